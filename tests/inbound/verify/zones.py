"""DNS as data: answers to what verification asks, without a socket."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from gateway.net.dns import Answer, DnsTrouble, Mx, NoRecords, Reply

TROUBLE = DnsTrouble("DNS: no answer in time")


@dataclass
class Zones:
    """`records` by name and type; a name in `silent` gets no answer for what has no record."""

    records: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def add(self, name: str, kind: str, *values: Any) -> None:
        self.records.setdefault((name.lower(), kind), []).extend(values)

    def _find(self, name: str, kind: str) -> Reply[Any]:
        name = name.lower()
        self.asked.append(f"{name} {kind}")
        for _ in range(10):
            found = self.records.get((name, kind))
            if found:
                return Answer(tuple(found))
            if name in self.silent:
                return TROUBLE
            alias = self.records.get((name, "CNAME"))
            if not alias:
                return NoRecords(nxdomain=not any(name == known for known, _ in self.records))
            name = alias[0].lower()
        return TROUBLE

    async def ipv4(self, host: str) -> Reply[IPv4Address]:
        return self._find(host, "A")

    async def ipv6(self, host: str) -> Reply[IPv6Address]:
        return self._find(host, "AAAA")

    async def mx(self, domain: str) -> Reply[Mx]:
        return self._find(domain, "MX")

    async def txt(self, name: str) -> Reply[bytes]:
        return self._find(name, "TXT")

    async def ptr(self, address: IPv4Address | IPv6Address) -> Reply[str]:
        return self._find(address.reverse_pointer, "PTR")


def texts(values: Iterable[str]) -> list[bytes]:
    return [value.encode("latin-1") for value in values]
