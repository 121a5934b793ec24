"""The settings of the transports that hand all messages to one host, and what follows from them.

`[transports.NAME]` with `type = "smtp"`, `"submission"` or `"submissions"`: they differ in port, in how TLS
begins, and in whether a login is expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from OpenSSL import SSL
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from gateway import AddressError, ConfigPath
from gateway.config.values import without_login
from gateway.mail.address import parse_domain
from gateway.net.smtp_client_settings import ClientSettings, TlsPolicy
from gateway.net.tls_contexts import client_context
from gateway.smtp.client_auth import Credentials
from gateway_smtp.connections import KeepSettings

MAX_PASSWORD_FILE = 4096  # bytes
SILENCE = 5.0  # seconds that a server may keep us waiting before we look whether it waits for TLS


def check_host(value: str) -> str:
    """A name, as DNS or this machine's list of hosts may have it, or an IP address. Raises ValueError."""
    try:
        ip_address(value)
    except ValueError:
        name = value.removesuffix(".").replace("_", "x")
        try:
            literal = parse_domain(name).startswith("[")
        except AddressError:
            literal = True
        if literal:
            raise ValueError(
                f"{without_login(value)!a} is no host name or IP address;"
                " its port is a setting of its own, port"
            ) from None
    return value


Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
TlsUse = Literal["starttls", "opportunistic", "none", "at once"]
Host = Annotated[str, AfterValidator(check_host)]
OptionalPath = Annotated[ConfigPath | None, BeforeValidator(lambda value: None if value == "" else value)]

_POLICIES: Mapping[TlsUse, TlsPolicy] = {"none": TlsPolicy.NONE, "opportunistic": TlsPolicy.OPPORTUNISTIC}


def _only_text(value: object) -> object:
    """Checked here, since the usual complaint shows the value."""
    if not isinstance(value, str):
        raise ValueError("is to be text in quotes")
    return value


class LoginSettings(BaseModel):
    """A user name and a password, which stands here, or in a file that is read at the start."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    username: Annotated[str, Field(min_length=1)]
    password: Annotated[str, BeforeValidator(_only_text), Field(repr=False)] = ""
    password_file: OptionalPath = None  # the first line of it

    def read_password(self) -> str:
        """Raises ValueError."""
        if bool(self.password) == (self.password_file is not None):
            raise ValueError("give either password or password_file")
        return self.password if self.password_file is None else _read_password(self.password_file)


class AuthSettings(LoginSettings):
    """`auth = { ... }` of a transport to one host."""

    plain: bool = False  # PLAIN too, where the server offers nothing better
    without_tls: bool = False  # also where the connection may be without TLS
    _credentials: Credentials = PrivateAttr()

    def model_post_init(self, context: object) -> None:
        """Raises ValueError."""
        self._credentials = Credentials(
            self.username, self.read_password(), plain=self.plain, without_tls=self.without_tls
        )

    @property
    def credentials(self) -> Credentials:
        return self._credentials


def _read_password(path: Path) -> str:
    """The first line of a file. Raises ValueError that names it, and nothing of what is in it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PASSWORD_FILE + 1)
    except OSError as exc:
        raise ValueError(f"password_file: {path}: cannot be read ({exc.strerror})") from None
    try:
        password = (data.decode().splitlines() or [""])[0]
    except UnicodeDecodeError:
        password = ""
    if not password or len(data) > MAX_PASSWORD_FILE:
        raise ValueError(f"password_file: {path}: its first line is to be the password, in UTF-8")
    return password


def check_ca_file(path: Path | None) -> None:
    """Raises ValueError if authorities cannot be read from there."""
    if path is None:
        return
    try:
        client_context(verified=True, ca_file=str(path))
    except (SSL.Error, OSError):
        raise ValueError(f"ca_file: {path}: cannot be read as a PEM file with certificates") from None


class NextHopSettings(BaseModel):
    """What the three kinds have in common: all that the one implementation in `transport` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    host: Host
    port: Port
    tls_verify: bool = True
    ca_file: OptionalPath = None  # PEM; in place of the authorities that this system knows
    auth: AuthSettings | None = None
    chunking: bool = True  # BDAT where it is offered
    connect_timeout: Seconds = 30.0
    keep: KeepSettings = KeepSettings()

    @property
    def tls_use(self) -> TlsUse:
        """When TLS begins."""
        return "at once"

    @property
    def verified(self) -> bool:
        """Messages travel within verified TLS, or not at all."""
        return self.tls_use in ("starttls", "at once") and self.tls_verify

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.auth is not None and self.tls_use in ("opportunistic", "none") and not self.auth.without_tls:
            raise ValueError(
                f'auth: with tls = "{self.tls_use}" the login may be sent without TLS; set'
                ' tls = "starttls", or without_tls = true in auth if everybody on the way is trusted'
            )
        if self.ca_file is not None and not self.verified:
            raise ValueError("ca_file: certificates are not verified with these settings; remove it")
        check_ca_file(self.ca_file)
        return self

    def client_settings(self, hostname: str) -> ClientSettings:
        """For connections, with our host name in EHLO."""
        required = TlsPolicy.VERIFIED if self.tls_verify else TlsPolicy.REQUIRED
        return ClientSettings(
            hostname,
            tls=_POLICIES.get(self.tls_use, required),
            tls_at_once=self.tls_use == "at once",
            ca_file=None if self.ca_file is None else str(self.ca_file),
            credentials=None if self.auth is None else self.auth.credentials,
            chunking=self.chunking,
            connect_timeout=self.connect_timeout,
            look_for_tls_after=SILENCE,
        )


class SmtpTransportSettings(NextHopSettings):
    """[transports.NAME] type = "smtp" """

    port: Port = 25
    tls: Literal["starttls", "opportunistic", "none"] = "starttls"

    @property
    def tls_use(self) -> TlsUse:
        return self.tls


class SubmissionTransportSettings(NextHopSettings):
    """[transports.NAME] type = "submission" """

    port: Port = 587
    tls: Literal["starttls", "none"] = "starttls"

    @property
    def tls_use(self) -> TlsUse:
        return self.tls


class SubmissionsTransportSettings(NextHopSettings):
    """[transports.NAME] type = "submissions" """

    port: Port = 465
