"""Which transports there are, and what is kept of their answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gateway import Outcome, TlsResult, Transport, TransportType
from gateway.config.load import parse
from gateway.config.settings import Settings
from gateway.errors import ConfigError
from gateway.outbound import outcomes
from gateway.outbound.outcomes import MAX_DIALED, MAX_DIALED_HOSTS, MAX_TLS_RESULTS, add_dialed, checked
from gateway.outbound.transports import make_transports, read_transports, tables_of
from tests.networks import a_network


class Nothing(BaseModel):
    pass


def nobody(name: str, settings: object, network: object) -> Transport:
    raise NotImplementedError


TYPES = {"smtp": TransportType(Nothing, nobody), "direct": TransportType(Nothing, nobody)}


def settings(*routes: dict[str, Any], **more: Any) -> Settings:
    raw = {
        "hostname": "gateway.example",
        "routes": list(routes),
        "transports": {"relay": {"type": "smtp"}},
        "domains": {"example.org": {}},
        "accounts": {"shop": {"addresses": ["shop@example.org"]}},
    }
    return parse(raw | more, Path("/etc/gateway/gateway.toml"))


RELAY, DIRECT = {"transport": "relay"}, {"transport": "direct"}
SOME = {"to_domains": ["example.net"]}


@pytest.mark.parametrize(
    ("routes", "there"),
    [
        ([], True),
        ([RELAY | SOME], True),
        ([RELAY | {"from_domains": ["example.net"]}], True),
        ([RELAY | {"minimum_attempts": 1}], True),
        ([RELAY], False),
        ([RELAY | SOME, RELAY], False),
        ([RELAY, RELAY | SOME], False),
        ([DIRECT | SOME, RELAY], True),  # who names it wants it
        ([RELAY | SOME, DIRECT], True),
    ],
)
def test_when_there_is_direct_delivery(routes: list[dict[str, Any]], there: bool) -> None:
    found = tables_of(settings(*routes), TYPES)
    assert found == {"relay": {"type": "smtp"}} | ({"direct": {"type": "direct"}} if there else {})


def test_direct_delivery_that_an_account_or_a_domain_names() -> None:
    of_account = {"shop": {"addresses": ["shop@example.org"], "routes": [DIRECT]}}
    assert "direct" in tables_of(settings(RELAY, accounts=of_account), TYPES)
    assert "direct" in tables_of(settings(RELAY, domains={"example.org": {"routes": [DIRECT]}}), TYPES)
    of_account["shop"]["routes"] = [RELAY]
    assert "direct" not in tables_of(settings(RELAY, accounts=of_account), TYPES)


def test_direct_delivery_as_it_is_configured() -> None:
    table = {"type": "direct", "port": 2525}
    assert tables_of(settings(RELAY, transports={"relay": {}, "direct": table}), TYPES)["direct"] == table


def test_no_plugin_for_direct_delivery(tmp_path: Path) -> None:
    smtp_only = {"smtp": TYPES["smtp"]}
    assert "direct" not in tables_of(settings(), smtp_only)
    named = tables_of(settings(DIRECT, transports={}), smtp_only)
    with pytest.raises(ConfigError, match=r"transports\.x\.type: is missing; the plugins in use offer"):
        read_transports({"x": {}}, {}, Path())
    with pytest.raises(ConfigError, match=r"transports\.direct\.type: there is no transport type 'direct'"):
        read_transports(named, smtp_only, tmp_path)


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"routes": [DIRECT, {"transport": "gone"}]}, r"routes\[1\]"),
        (
            {"domains": {"example.org": {"routes": [{"transport": "gone"}]}}},
            r"domains\.'example\.org'\.routes\[0\]",
        ),
        (
            {"accounts": {"shop": {"addresses": ["shop@example.org"], "routes": [{"transport": "gone"}]}}},
            r"accounts\.shop\.routes\[0\]",
        ),
    ],
)
def test_a_route_to_no_known_transport(more: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError, match=place + r"\.transport: there is no \[transports\.gone\]; add it"):
        settings(**more)


def test_a_domain_is_there_once_however_it_is_spelt() -> None:
    assert set(settings(domains={"Example.ORG": {}, "xn--bcher-kva.example": {}}).domains) == {
        "example.org",
        "bücher.example",
    }
    both = {"example.org": {}, "Example.ORG": {"disabled": True}}
    with pytest.raises(
        ConfigError, match=r": domains: 'example\.org' and 'Example\.ORG' are the same domain"
    ):
        settings(domains=both)
    with pytest.raises(ConfigError, match=r': domains\."exa mple\.org": domain .* has an empty,'):
        settings(domains={"example.org": {}, "exa mple.org": {}})


def test_a_transport_gets_its_settings_and_the_network(tmp_path: Path) -> None:
    given: list[object] = []

    class Sends:
        async def deliver(self, delivery: object) -> list[Outcome]:
            return []

    def make(*arguments: object) -> Transport:
        given.extend(arguments)
        return Sends()

    network = a_network()
    types = {"own": TransportType(Nothing, make)}
    made = make_transports(read_transports({"out": {"type": "own"}}, types, tmp_path), network)
    assert isinstance(made["out"], Sends)
    assert given == ["out", Nothing(), network]


# --- Addresses that were tried ---


@pytest.mark.parametrize(
    ("earlier", "now", "together"),
    [
        ({}, {"a": ["1"]}, {"a": ["1"]}),
        ({"a": ["1"]}, {"a": ["2"]}, {"a": ["1", "2"]}),
        ({"a": ["1"]}, {"a": ["1"]}, {"a": ["1", "1"]}),  # how often matters
        ({"a": ["1"], "b": ["2"]}, {"a": ["3"]}, {"b": ["2"], "a": ["1", "3"]}),
        ({"a": ["x"] * MAX_DIALED}, {"a": ["1"]}, {"a": ["x"] * (MAX_DIALED - 1) + ["1"]}),
    ],
)
def test_addresses_are_added(
    earlier: dict[str, list[str]], now: dict[str, list[str]], together: dict[str, list[str]]
) -> None:
    assert add_dialed(earlier, now) == together


def test_the_hosts_of_the_latest_attempts_are_kept() -> None:
    many = {f"mx{number}": ["1"] for number in range(MAX_DIALED_HOSTS)}
    together = add_dialed(many, {"new": ["2"]})
    assert list(together) == [*list(many)[1:], "new"]


RESULT = TlsResult(recipient_domain="example.org", policy_type="sts", policy_domain="example.org")


def test_what_a_transport_tells_is_cut() -> None:
    long = replace(RESULT, detail="x" * 10_000, policy=("y" * 10_000,) * 1000)
    told = replace(
        Outcome.temporary("later"),
        dialed={"h" * 1000: ["192.0.2.1" * 100] * 100},
        tls_results=(long,) * 1000,
    )
    found = checked([told], 1)
    assert found
    [(host, addresses)] = found[0].dialed.items()
    assert (len(host), len(addresses), len(addresses[0])) == (255, MAX_DIALED, 64)
    assert len(found[0].tls_results) == MAX_TLS_RESULTS
    [first, *_] = found[0].tls_results
    assert (len(first.detail), len(first.policy)) == (outcomes.MAX_TLS_TEXT, outcomes.MAX_TLS_STRINGS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dialed": None},
        {"dialed": {1: ["192.0.2.1"]}},
        {"dialed": {"mx": "192.0.2.1"}},
        {"dialed": {"mx": [1]}},
        {"tls_results": [RESULT]},
        {"tls_results": ("sts",)},
        {"tls_results": (replace(RESULT, detail=None),)},  # type: ignore[arg-type]
        {"tls_results": (replace(RESULT, policy=(1,)),)},  # type: ignore[arg-type]
    ],
)
def test_what_is_no_outcome(wrong: dict[str, Any]) -> None:
    assert checked([replace(Outcome.temporary("later"), **wrong)], 1) is None
