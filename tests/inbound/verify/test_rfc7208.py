"""All of the public test suite of RFC 7208 (rfc7208-tests.yml; its licence is beside it)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.inbound.verify.spf import check_spf
from gateway.net.dns import Mx
from tests.inbound.verify.zones import Zones

SUITE = list(yaml.safe_load_all(Path(__file__).with_name("rfc7208-tests.yml").read_text(encoding="utf-8")))
CASES = [
    pytest.param(scenario["zonedata"], case, id=f"{scenario['description']}: {name}")
    for scenario in SUITE
    for name, case in scenario["tests"].items()
]


def zones(zonedata: dict[str, list[Any]]) -> Zones:
    """As the suite's drivers read it: SPF records are TXT records where a name has no TXT of its own."""
    dns = Zones()
    for name, entries in zonedata.items():
        kinds = [kind for entry in entries if isinstance(entry, dict) for kind in entry]
        for entry in entries:
            if entry == "TIMEOUT":
                dns.silent.add(name.lower())
                continue
            [(kind, value)] = entry.items()
            if value == "NONE":
                continue
            if kind == "SPF":
                if "TXT" in kinds:
                    continue
                kind = "TXT"
            dns.add(name, kind, _record(kind, value))
    return dns


def _record(kind: str, value: Any) -> Any:
    match kind:
        case "TXT":
            strings = value if isinstance(value, list) else [value]
            return "".join(strings).encode("latin-1")
        case "MX":
            return Mx(int(value[0]), value[1].removesuffix("."))
        case "A":
            return IPv4Address(value)
        case "AAAA":
            return IPv6Address(value)
        case _:
            return value.removesuffix(".")


@pytest.mark.parametrize(("zonedata", "case"), CASES)
async def test_case(zonedata: dict[str, list[Any]], case: dict[str, Any]) -> None:
    localpart, _, domain = case["mailfrom"].rpartition("@")
    found = await check_spf(
        zones(zonedata),
        ip=ip_address(case["host"]),
        domain=domain or case["helo"],
        localpart=localpart,
        helo=case["helo"],
        receiver="receiver.example.org",
        identity="mailfrom" if case["mailfrom"] else "helo",
    )
    wanted = case["result"] if isinstance(case["result"], list) else [case["result"]]
    assert found.result in wanted, found
    if "explanation" in case:
        assert (found.explanation or "DEFAULT") == case["explanation"]


def test_the_suite_is_whole() -> None:
    assert (len(SUITE), len(CASES)) == (16, 203)
