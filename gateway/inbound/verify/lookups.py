"""What verification asks of DNS: `gateway.net.dns.Resolver`, or one that is simulated."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from gateway.net.dns import Mx, Reply


class Lookups(Protocol):
    """Never raises for what DNS does. Names are in Unicode or A-labels, without a final dot."""

    async def ipv4(self, host: str) -> Reply[IPv4Address]: ...
    async def ipv6(self, host: str) -> Reply[IPv6Address]: ...
    async def mx(self, domain: str) -> Reply[Mx]: ...
    async def txt(self, name: str) -> Reply[bytes]: ...
    async def ptr(self, address: IPv4Address | IPv6Address) -> Reply[str]: ...
