"""The settings of the transports that find the hosts of a recipient's domain: `direct` and `socks`."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from gateway.config.values import AsTuple, Domain, IpAddresses, Networks, without_login
from gateway.net.plan import Families
from gateway.net.socks import SocksLogin
from gateway_smtp.connections import KeepSettings
from gateway_smtp.settings import LoginSettings, OptionalPath, Port, Seconds, check_ca_file, check_host

_VERSIONS: dict[Literal["ipv4", "ipv6"], Literal[4, 6]] = {"ipv4": 4, "ipv6": 6}


def _families(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or len(set(value)) < len(value):
        raise ValueError('is to be "ipv4", "ipv6" or both')
    return value


def _proxy(value: object) -> object:
    """ "host:port" or "[::1]:port", as a pair."""
    if not isinstance(value, str):
        return value
    host, _, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    try:
        check_host(host)
        good = port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535
    except ValueError:
        good = False
    if not good:
        raise ValueError(f'{without_login(value)!a} is no host and port, such as "127.0.0.1:1080"')
    return value


class MxKeepSettings(KeepSettings):
    """`keep = { ... }`: for all hosts together."""

    connections: Annotated[int, Field(ge=0)] = 200  # that wait for the next message


class MxSettings(BaseModel):
    """What the two have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    port: Port = 25
    # IP versions that may be used, the preferred one first.
    families: Annotated[
        tuple[Literal["ipv4", "ipv6"], ...],
        AsTuple,
        AfterValidator(_families),
    ] = ("ipv6", "ipv4")
    allow_networks: Networks = ()  # that servers may be in, although they are not public
    ca_file: OptionalPath = None  # PEM, for MTA-STS; in place of the authorities that this system knows
    chunking: bool = True  # BDAT where it is offered
    connect_timeout: Seconds = 30.0
    tls_timeout: Seconds = 30.0  # for a handshake
    keep: MxKeepSettings = MxKeepSettings()

    @property
    def versions(self) -> Families:
        return [_VERSIONS[family] for family in self.families]

    @model_validator(mode="after")
    def _readable(self) -> Self:
        check_ca_file(self.ca_file)
        return self


class DirectSettings(MxSettings):
    """[transports.NAME] type = "direct" """

    local_addresses: IpAddresses = ()  # to connect from: at most one of each IP version

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        versions = [ip_address(address).version for address in self.local_addresses]
        if len(set(versions)) < len(versions):
            raise ValueError("local_addresses: at most one IPv4 and one IPv6 address")
        return self

    def local_address(self, remote: str) -> str | None:
        """What to connect to an address from; None: as the system likes."""
        version = ip_address(remote).version
        same = [address for address in self.local_addresses if ip_address(address).version == version]
        return same[0] if same else None


class ProxyAuthSettings(LoginSettings):
    """`auth = { ... }` of [transports.NAME] type = "socks" """

    _login: SocksLogin = PrivateAttr()

    def model_post_init(self, context: object) -> None:
        """Raises ValueError."""
        self._login = SocksLogin(self.username, self.read_password())

    @property
    def login(self) -> SocksLogin:
        return self._login


class SocksSettings(MxSettings):
    """[transports.NAME] type = "socks" """

    proxy: Annotated[str, BeforeValidator(_proxy)]
    hostname: Domain  # of the addresses that the proxy connects from, for EHLO
    auth: ProxyAuthSettings | None = None

    @property
    def proxy_address(self) -> tuple[str, int]:
        host, _, port = self.proxy.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)
