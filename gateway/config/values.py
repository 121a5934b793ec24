"""What a value in gateway.toml may be: the types that the settings are made of.

A validator's message says what is wrong and what to write; where it is, pydantic and `load` add.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.mail.address import Address, AddressError, parse_domain
from gateway.mail.fields import FieldError, check_text
from gateway.model import EventName

MAX_MAILBOX = 200  # characters of a mailbox's name
SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets of Standard Webhooks begin with


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, so that typos surface."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Listen(Section):
    """An address to listen on, written "127.0.0.1:1025" or "[::1]:1025"."""

    host: str
    port: int

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        host, colon, port = value.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f'{value!r} is not an address and a port, such as "127.0.0.1:1025"')
        try:
            ip_address(host)
        except ValueError:
            raise ValueError(f'{host!r} is not an IP address; write one, such as "127.0.0.1:1025"') from None
        return {"host": host, "port": int(port)}

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _domain(value: str) -> str:
    try:
        return parse_domain(value)
    except AddressError as exc:
        raise ValueError(str(exc)) from None


def _one_spelling(value: object) -> object:
    """Of two spellings of a domain one would be left, and nobody told which."""
    spelt: dict[str, str] = {}
    for key in value if isinstance(value, Mapping) else ():
        try:
            domain = parse_domain(key)
        except (AddressError, TypeError, AttributeError):  # as `Domain` says, with the place
            continue
        if domain in spelt:
            raise ValueError(f"{spelt[domain]!a} and {key!a} are the same domain; keep one of them")
        spelt[domain] = key
    return value


def _domain_pattern(value: str) -> str:
    """A domain, or with a leading dot the domain and all below it."""
    return "." + _domain(value[1:]) if value.startswith(".") else _domain(value)


def _address(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return Address.parse(value)
    except AddressError as exc:
        raise ValueError(str(exc)) from None


def _network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value)
    except ValueError as exc:
        raise ValueError(f'{exc}; write a network such as "10.0.0.0/8"') from None


def _ip(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        raise ValueError(f'{value!a} is not an IP address; write one, such as "127.0.0.1"') from None


def _separator(value: str) -> str:
    try:
        Address.parse(f"a{value}b@localhost")
    except AddressError:
        pass
    else:
        if value:
            return value
    raise ValueError(f'{value!a} can separate nothing in an address; write one such as "+"')


def _text(value: str) -> str:
    try:
        check_text("", value)
    except FieldError as exc:
        raise ValueError(str(exc).removeprefix(": ")) from None
    return value


def _mailbox(value: str) -> str:
    if not value or len(value) > MAX_MAILBOX or not value.isprintable() or value != value.strip():
        raise ValueError(f"{value!a} is no name of a mailbox: 1 to {MAX_MAILBOX} printable characters")
    return value


def _header_value(value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError("must be printable ASCII, as it goes into a header")
    return value


def _secret(value: str) -> str:
    """Standard Webhooks: 24 to 64 random bytes."""
    try:
        size = len(base64.b64decode(value.removeprefix(SECRET_PREFIX), validate=True))
    except binascii.Error:
        size = 0
    if not value.startswith(SECRET_PREFIX) or not 24 <= size <= 64:
        raise ValueError(
            f"a secret is {SECRET_PREFIX} and 24 to 64 bytes in base64; make one with"
            ' echo "whsec_$(head -c 32 /dev/urandom | base64)"'
        )
    return value


def _data_dir(value: Path) -> Path:
    if "\0" in str(value):
        raise ValueError("no path has a NUL character")
    return value


def without_login(value: str) -> str:
    """What can be shown of a text that may have a user and a password in it, which an @ follows."""
    _, at, rest = value.rpartition("@")
    return f"...@{rest}" if at else value


def http_url(value: str) -> str:
    """Raises ValueError if nothing could be called there."""
    try:
        parts = urlsplit(value)
        callable_ = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port over 65535, brackets that do not match
        callable_ = False
    if not callable_ or any(char.isspace() or not char.isprintable() for char in value):
        raise ValueError(f"{without_login(value)!a} is no URL; write one such as http://localhost:9090/")
    return value


def _is_near(host: str) -> bool:
    """Whether it is this machine, or an address that the internet does not reach."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return host == "localhost"


def _base_url(value: str) -> str:
    if not value:
        return value
    parts = urlsplit(http_url(value))
    if parts.scheme != "https" and not _is_near(parts.hostname or ""):
        raise ValueError(
            f"{without_login(value)!a} must begin with https:// (RFC 8058); put a proxy with TLS before it"
        )
    if parts.query or parts.fragment or parts.username is not None or not value.isascii():
        raise ValueError(f"{without_login(value)!a} must be ASCII, without a user, ? and #")
    return value.rstrip("/") + "/"


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


AsTuple = BeforeValidator(_tuple)  # of what is a list in TOML
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Domain = Annotated[str, AfterValidator(_domain)]
OneSpelling = BeforeValidator(_one_spelling)  # of a mapping whose keys are domains
DomainPattern = Annotated[str, AfterValidator(_domain_pattern)]
DomainPatterns = Annotated[tuple[DomainPattern, ...], AsTuple]
EmailAddress = Annotated[Address, BeforeValidator(_address)]
EmailAddresses = Annotated[tuple[EmailAddress, ...], AsTuple]
Text = Annotated[str, AfterValidator(_text)]  # for people, in a header
HeaderValue = Annotated[str, AfterValidator(_header_value)]
Strings = Annotated[tuple[str, ...], AsTuple]
IpAddresses = Annotated[tuple[Annotated[str, AfterValidator(_ip)], ...], AsTuple]
Listens = Annotated[tuple[Listen, ...], AsTuple]
Mailboxes = Annotated[tuple[Annotated[str, AfterValidator(_mailbox)], ...], AsTuple]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Separators = Annotated[tuple[Annotated[str, AfterValidator(_separator)], ...], AsTuple]
Events = Annotated[tuple[EventName, ...], AsTuple]
AllEvents = Annotated[tuple[EventName | Literal["incoming"], ...], AsTuple]
Secrets = Annotated[
    tuple[Annotated[str, AfterValidator(_secret)], ...], AsTuple, Field(max_length=2, repr=False)
]
FormatName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,49}$")]
Positive = Annotated[int, Field(gt=0)]
Networks = Annotated[tuple[Network, ...], AsTuple]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
HttpUrl = Annotated[str, AfterValidator(http_url)]
DataDir = Annotated[Path, AfterValidator(_data_dir)]
