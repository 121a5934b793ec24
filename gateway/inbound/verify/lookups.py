"""What verification asks of DNS: `gateway.net.dns.Resolver`, or one that is simulated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

import trio

from gateway.net.dns import Mx, Reply


class Lookups(Protocol):
    """Never raises for what DNS does. Names are in Unicode or A-labels, without a final dot."""

    async def ipv4(self, host: str) -> Reply[IPv4Address]: ...
    async def ipv6(self, host: str) -> Reply[IPv6Address]: ...
    async def mx(self, domain: str) -> Reply[Mx]: ...
    async def txt(self, name: str) -> Reply[bytes]: ...
    async def ptr(self, address: IPv4Address | IPv6Address) -> Reply[str]: ...


async def at_once(*steps: Callable[[], Awaitable[None]]) -> None:
    """All of them at the same time; a single one without the cost of that."""
    if len(steps) == 1:
        await steps[0]()
        return
    async with trio.open_nursery() as nursery:
        for step in steps:
            nursery.start_soon(step)
