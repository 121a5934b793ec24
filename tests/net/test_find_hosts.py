"""From questions to a real DNS server to a plan: what is asked, and what faults of DNS come to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.net.dns import DnsTrouble, Resolver
from gateway.net.find_hosts import find_hosts
from gateway.net.hosts import MAX_HOSTS, MAX_NAMES
from gateway.net.mta_sts import StsAnswer, parse_policy
from gateway.net.plan import Plan
from gateway.outbound.outcomes import add_dialed
from tests.dns_server import DnsServer, Fault, dns_server
from tests.networks import EVERYWHERE

TLSA = "3 1 1 " + "ab" * 32
POLICY = b"version: STSv1\nmode: enforce\nmx: *.example.net\nmax_age: 86400\n"


@dataclass
class KnownPolicies:
    """Answers instead of `MtaStsPolicies`."""

    answer: StsAnswer | DnsTrouble = field(default_factory=StsAnswer)
    asked: list[str] = field(default_factory=list)

    async def find(self, domain: str, *, allow_networks: object = ()) -> StsAnswer | DnsTrouble:
        self.asked.append(domain)
        return self.answer


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    """example.org with one host and DANE, all of it authentic."""
    async with dns_server() as server:
        server.add("example.org", "MX", "10 mx.example.org.", secure=True)
        server.add("mx.example.org", "A", "192.0.2.1", secure=True)
        server.add("mx.example.org", "AAAA", "2001:db8::1", secure=True)
        server.add("_25._tcp.mx.example.org", "TLSA", TLSA, secure=True)
        server.secure_denial = True
        yield server


async def find(
    server: DnsServer, domain: str = "example.org", policies: KnownPolicies | None = None, **how: Any
) -> Plan:
    resolver = Resolver(
        server.settings(validating=how.pop("validating", True), timeout=how.pop("timeout", 0.5))
    )
    how.setdefault("allow_networks", EVERYWHERE)
    return await find_hosts(resolver, policies or KnownPolicies(), domain, random=Random(1), **how)


def summary(plan: Plan) -> str:
    """The hosts with their enforced policies, or what failed."""
    if plan.failure is not None:
        return f"{plan.failure.enhanced} {plan.failure.text}"
    return ", ".join(
        one.name + "".join(f" {check.type}={check.domain}" for check in one.tls.checks if check.enforced)
        for one in plan.hosts
    )


async def test_all_there_is(server: DnsServer) -> None:
    policies = KnownPolicies(StsAnswer(parse_policy(POLICY.replace(b"example.net", b"example.org"))))
    plan = await find(server, policies=policies)
    assert summary(plan) == "mx.example.org tlsa=mx.example.org sts=example.org"
    assert plan.hosts[0].addresses == (ip_address("2001:db8::1"), ip_address("192.0.2.1"))
    assert policies.asked == ["example.org"]
    assert server.asked == [
        "example.org MX",
        "mx.example.org A",
        "mx.example.org AAAA",
        "_25._tcp.mx.example.org TLSA",
    ]


async def test_nothing_is_authentic_without_a_validating_resolver(server: DnsServer) -> None:
    assert summary(await find(server, validating=False)) == "mx.example.org"
    assert not any("TLSA" in question for question in server.asked)


async def test_port_families_and_dialled_addresses(server: DnsServer) -> None:
    server.add("_2525._tcp.mx.example.org", "TLSA", TLSA, secure=True)
    plan = await find(server, port=2525, families=(4,))
    assert summary(plan) == "mx.example.org tlsa=mx.example.org"
    assert plan.hosts[0].addresses == (ip_address("192.0.2.1"),)
    assert "mx.example.org AAAA" not in server.asked
    plan = await find(server, dialed={"mx.example.org": ["2001:db8::1"]})
    assert plan.hosts[0].addresses == (ip_address("192.0.2.1"), ip_address("2001:db8::1"))


async def test_an_address_literal_asks_nothing(server: DnsServer) -> None:
    policies = KnownPolicies()
    assert summary(await find(server, "[192.0.2.9]", policies)) == "[192.0.2.9]"
    assert server.asked == policies.asked == []


async def test_implicit_mx(server: DnsServer) -> None:
    server.add("bare.example", "A", "192.0.2.5", secure=True)
    server.add("_25._tcp.bare.example", "TLSA", TLSA, secure=True)
    assert summary(await find(server, "bare.example")) == "bare.example tlsa=bare.example"


@pytest.mark.parametrize(
    ("name", "rdtype", "fault"),
    [
        ("example.org", "MX", "SERVFAIL"),
        ("example.org", "MX", "silent"),
        ("example.org", "MX", "truncated for ever"),
        ("mx.example.org", "A", "SERVFAIL"),
        ("_25._tcp.mx.example.org", "TLSA", "SERVFAIL"),
        ("_25._tcp.mx.example.org", "TLSA", "silent"),
    ],
)
async def test_trouble_is_temporary(server: DnsServer, name: str, rdtype: str, fault: Fault) -> None:
    server.fail(name, rdtype, fault)
    server.remove("mx.example.org", "AAAA")
    plan = await find(server)
    assert summary(plan).startswith("4.4.3 DNS: no answer")
    assert f"for {name} {rdtype}: 127.0.0.1: " in summary(plan)


async def test_a_host_without_trouble_is_used(server: DnsServer) -> None:
    server.remove("example.org", "MX")
    server.add("example.org", "MX", "10 mx.example.org.", "20 spare.example.org.", secure=True)
    server.add("spare.example.org", "A", "192.0.2.2")
    server.fail("_25._tcp.mx.example.org", "TLSA", "SERVFAIL")
    plan = await find(server)
    assert summary(plan) == "spare.example.org"
    assert [one.name for one in plan.skipped] == ["mx.example.org"]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("nowhere.example", "5.1.2 there is no domain nowhere.example"),
        ("null.example", "5.1.10 null.example takes no mail (it has a null MX)"),
        (
            "circle.example",
            "4.4.3 DNS: no answer for circle.example MX: 127.0.0.1: its aliases (CNAME) have no end",
        ),
        ("dangling.example", "5.1.2 there is no domain dangling.example"),
        ("hostless.example", "4.4.4 gone.example, a mail server of hostless.example, has no address"),
        ("text.example", "4.4.4 text.example has no address"),
        ("truncated.example", "mx.example.org tlsa=mx.example.org"),
        ("alias.example", "mx.example.org tlsa=mx.example.org"),
    ],
)
async def test_domains(server: DnsServer, domain: str, expected: str) -> None:
    server.add("null.example", "MX", "0 .")
    server.add("circle.example", "CNAME", "circle.example.")
    server.add("dangling.example", "CNAME", "gone.example.")
    server.add("hostless.example", "MX", "10 gone.example.")
    server.add("text.example", "TXT", "hello")
    server.add("truncated.example", "MX", "10 mx.example.org.", secure=True)
    server.fail("truncated.example", "MX", "truncated")
    server.add("alias.example", "CNAME", "example.org.", secure=True)
    policies = KnownPolicies()
    assert summary(await find(server, domain, policies)) == expected
    # Whose policy holds is the recipient domain's, whatever it is an alias of.
    assert set(policies.asked) <= {domain}


async def test_an_insecure_alias_of_the_domain_is_a_way_around_dane(server: DnsServer) -> None:
    server.add("alias.example", "CNAME", "example.org.")
    assert summary(await find(server, "alias.example")) == "mx.example.org"


@pytest.mark.parametrize(
    ("first", "second", "at", "expected"),
    [
        (True, True, "real.example", "tlsa=real.example"),
        (True, True, "mx.alias.example", "tlsa=mx.alias.example"),
        (True, False, "mx.alias.example", "tlsa=mx.alias.example"),
        (True, False, "real.example", ""),
        (False, True, "mx.alias.example", ""),
        (False, True, "real.example", ""),
    ],
)
async def test_a_host_that_is_an_alias(
    server: DnsServer, first: bool, second: bool, at: str, expected: str
) -> None:
    """Whether the alias itself, and what it leads to, are authentic (RFC 7672, section 2.2.2)."""
    server.add("alias.example", "MX", "10 mx.alias.example.", secure=True)
    server.add("mx.alias.example", "CNAME", "real.example.", secure=first)
    server.add("real.example", "A", "192.0.2.7", secure=second)
    server.add(f"_25._tcp.{at}", "TLSA", TLSA, secure=True)
    assert summary(await find(server, "alias.example")) == f"mx.alias.example {expected}".strip()


async def test_an_alias_that_is_not_known(server: DnsServer) -> None:
    server.add("alias.example", "MX", "10 mx.alias.example.", secure=True)
    server.add("mx.alias.example", "CNAME", "real.example.", secure=True)
    server.add("real.example", "A", "192.0.2.7")
    server.fail("mx.alias.example", "CNAME", "SERVFAIL")
    plan = await find(server, "alias.example")
    assert summary(plan) == "4.4.3 DNS: no answer for mx.alias.example CNAME: 127.0.0.1: SERVFAIL"
    assert summary(await find(server, "alias.example", require_tls=False)) == "mx.alias.example"


async def test_requiretls(server: DnsServer) -> None:
    plan = await find(server, require_tls=True)
    assert plan.require_tls
    assert summary(plan) == "mx.example.org tlsa=mx.example.org"
    server.remove("_25._tcp.mx.example.org", "TLSA")
    assert summary(await find(server, require_tls=True)).startswith("5.7.30 ")


async def test_a_policy_that_refuses_a_host_saves_its_questions(server: DnsServer) -> None:
    policies = KnownPolicies(StsAnswer(parse_policy(POLICY)))
    assert summary(await find(server, policies=policies)).startswith(
        "4.7.5 mx.example.org is none of the hosts"
    )
    assert server.asked == ["example.org MX"]
    assert summary(await find(server, policies=policies, require_tls=False)) == "mx.example.org"


async def test_the_policy_is_not_known(server: DnsServer) -> None:
    policies = KnownPolicies(DnsTrouble("DNS: no answer for TXT"))
    assert summary(await find(server, policies=policies)) == "4.4.3 DNS: no answer for TXT"
    assert summary(await find(server, policies=policies, require_tls=False)) == "mx.example.org"


def many(server: DnsServer, *with_address: int, hosts: int = 50) -> list[str]:
    """The hosts of many.example, in the order of preference."""
    names = [f"mx{number}.many.example" for number in range(hosts)]
    server.add("many.example", "MX", *(f"{number} {name}." for number, name in enumerate(names)))
    for number in with_address:
        server.add(names[number], "A", "192.0.2.1")
    return names


async def test_fifty_mx(server: DnsServer) -> None:
    names = many(server, *range(50))
    plan = await find(server, "many.example", timeout=30.0)
    assert [one.name for one in plan.hosts] == names[:MAX_HOSTS]
    assert len(server.asked) == 1 + 2 * MAX_HOSTS


async def test_fifty_mx_have_their_turns(server: DnsServer) -> None:
    names = many(server, *range(50))
    dialed: dict[str, list[str]] = {}
    for begin in (0, 16, 32):
        plan = await find(server, "many.example", timeout=30.0, dialed=dialed)
        assert [one.name for one in plan.hosts] == names[begin : begin + MAX_HOSTS]
        dialed = add_dialed(dialed, {one.name: ["192.0.2.1"] for one in plan.hosts})
    plan = await find(server, "many.example", timeout=30.0, dialed=dialed)
    assert [one.name for one in plan.hosts] == names[48:] + names[: MAX_HOSTS - 2]


async def test_hosts_without_an_address_do_not_count(server: DnsServer) -> None:
    names = many(server, 3, 40)
    plan = await find(server, "many.example", timeout=30.0)
    assert [one.name for one in plan.hosts] == [names[3], names[40]]


async def test_no_more_is_asked_than_the_limit(server: DnsServer) -> None:
    names = many(server, 3, MAX_NAMES, hosts=100)
    plan = await find(server, "many.example", timeout=30.0)
    assert [one.name for one in plan.hosts] == [names[3]]
    addresses = [question for question in server.asked if question.endswith((" A", " AAAA"))]
    assert len(addresses) == 2 * MAX_NAMES


async def test_the_stores_failure_is_raised_as_it_is(server: DnsServer) -> None:
    class Failing(KnownPolicies):
        async def find(self, domain: str, *, allow_networks: object = ()) -> StsAnswer | DnsTrouble:
            raise StoreUnavailable("the disk is full")

    with pytest.raises(StoreUnavailable, match="the disk is full"):
        await find_hosts(Resolver(server.settings()), Failing(), "example.org", random=Random(1))
