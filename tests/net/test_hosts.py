"""The decision where a message goes and what TLS it needs: as tables, each with all combinations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from random import Random
from typing import Any

import pytest

from gateway.net.addresses import Network
from gateway.net.dns import Answer, DnsTrouble, Mx, NoRecords, Reply, Tlsa
from gateway.net.hosts import (
    MAX_ADDRESSES,
    MAX_HOSTS,
    MAX_NAMES,
    alias_matters,
    candidates,
    decide,
    tlsa_bases,
)
from gateway.net.mta_sts import Mode, Policy, StsAnswer
from gateway.net.plan import Check, Failure, Families, HostAnswers, Plan, Question, Skipped
from gateway.net.tls_results import TlsFault
from tests.networks import EVERYWHERE

DOMAIN, MX = "example.org", "mx.example.org"
V4, V6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
TROUBLE = DnsTrouble("DNS: no answer")
NOT_THERE, NONE = NoRecords(nxdomain=True), NoRecords()
USABLE, UNUSABLE = Tlsa(3, 1, 1, b"x" * 32), Tlsa(0, 0, 1, b"x" * 32)


def sts(mode: Mode, *mx: str) -> StsAnswer:
    text = f"version: STSv1\nmode: {mode}\n"
    return StsAnswer(Policy(mode, mx, 86400, text.encode()))


def host(name: str = MX, *, authentic: bool = True, **answers: Any) -> HostAnswers:
    with_addresses = HostAnswers(
        name=name, ipv4=Answer((V4,), authentic, name), ipv6=Answer((V6,), authentic, name)
    )
    return replace(with_addresses, **answers)


def question(*names: str, authentic: bool = True, **known: Any) -> Question:
    """A domain with one host, or with these in the order of preference."""
    records = tuple(Mx(number, name) for number, name in enumerate(names or (MX,)))
    hosts = tuple(host(name) for name in names or (MX,))
    return replace(Question(domain=DOMAIN, mx=Answer(records, authentic, DOMAIN), hosts=hosts), **known)


def decided(about: Question, **how: Any) -> Plan:
    return decide(about, random=Random(1), **{"allow_networks": EVERYWHERE} | how)


def outcome(plan: Plan) -> str:
    """One word: "may" and "must" for STARTTLS, the policies that are enforced, or a failure's status."""
    if plan.failure is not None:
        assert not plan.hosts
        assert plan.failure.enhanced[0] == ("5" if plan.failure.permanent else "4")
        return plan.failure.enhanced
    [one] = plan.hosts
    enforced = "+".join(check.type for check in one.tls.checks if check.enforced)
    assert one.tls.verified == bool(enforced)
    assert one.tls.required or not enforced
    return enforced or ("must" if one.tls.required else "may")


# --- Policies: DANE, MTA-STS, REQUIRETLS and TLS-Required: No, in all combinations ---------------------

DANE: dict[str, Question] = {
    # What led to the host can be forged: TLSA records must not be looked at.
    "mx": question(authentic=False, hosts=(host(tlsa=((MX, Answer((USABLE,), True)),)),)),
    "host": question(hosts=(host(authentic=False, tlsa=((MX, Answer((USABLE,), True)),)),)),
    "record": question(hosts=(host(tlsa=((MX, Answer((USABLE,), False)),)),)),
    "absent": question(hosts=(host(tlsa=((MX, NoRecords(authentic=True)),)),)),
    "usable": question(hosts=(host(tlsa=((MX, Answer((UNUSABLE, USABLE), True)),)),)),
    "unusable": question(hosts=(host(tlsa=((MX, Answer((UNUSABLE,), True)),)),)),
    "trouble": question(hosts=(host(tlsa=((MX, TROUBLE),)),)),
}
STS: dict[str, StsAnswer | DnsTrouble] = {
    "no policy": StsAnswer(),
    "mode none": sts("none"),
    "testing": sts("testing", "*.example.org"),
    "testing, another": sts("testing", "mx.example.net"),
    "enforce": sts("enforce", MX),
    "enforce, another": sts("enforce", "mx.example.net"),
    "trouble": TROUBLE,
}
# For each state of DANE, in the order of STS.
USUALLY = """
mx       | may   | may   | may   | may   | sts      | 4.7.5 | 4.4.3
host     | may   | may   | may   | may   | sts      | 4.7.5 | 4.4.3
record   | may   | may   | may   | may   | sts      | 4.7.5 | 4.4.3
absent   | may   | may   | may   | may   | sts      | 4.7.5 | 4.4.3
usable   | tlsa  | tlsa  | tlsa  | tlsa  | tlsa+sts | 4.7.5 | 4.4.3
unusable | must  | must  | must  | must  | sts      | 4.7.5 | 4.4.3
trouble  | 4.4.3 | 4.4.3 | 4.4.3 | 4.4.3 | 4.4.3    | 4.7.5 | 4.4.3
"""
REQUIRETLS = """
mx       | 5.7.30 | 5.7.30 | 5.7.30 | 5.7.30 | sts      | 4.7.5 | 4.4.3
host     | 5.7.30 | 5.7.30 | 5.7.30 | 5.7.30 | sts      | 4.7.5 | 4.4.3
record   | 5.7.30 | 5.7.30 | 5.7.30 | 5.7.30 | sts      | 4.7.5 | 4.4.3
absent   | 5.7.30 | 5.7.30 | 5.7.30 | 5.7.30 | sts      | 4.7.5 | 4.4.3
usable   | tlsa   | tlsa   | tlsa   | tlsa   | tlsa+sts | 4.7.5 | 4.4.3
unusable | 5.7.30 | 5.7.30 | 5.7.30 | 5.7.30 | sts      | 4.7.5 | 4.4.3
trouble  | 4.4.3  | 4.4.3  | 4.4.3  | 4.4.3  | 4.4.3    | 4.7.5 | 4.4.3
"""


def cells(table: str) -> list[tuple[str, str, str]]:
    rows = [[cell.strip() for cell in row.split("|")] for row in table.strip().splitlines()]
    assert [row[0] for row in rows] == list(DANE)
    return [(row[0], name, cell) for row in rows for name, cell in zip(STS, row[1:], strict=True)]


@pytest.mark.parametrize(
    ("require_tls", "dane", "policy", "expected"),
    [
        *((None, *cell) for cell in cells(USUALLY)),
        *((True, *cell) for cell in cells(REQUIRETLS)),
        *((False, dane, policy, "may") for dane in DANE for policy in STS),
    ],
)
def test_policies(require_tls: bool | None, dane: str, policy: str, expected: str) -> None:
    about = replace(DANE[dane], sts=STS[policy], require_tls=require_tls)
    allowed = candidates(about, Random(1))
    # As `find_hosts` does it: what a policy refuses was not asked about.
    plan = decided(replace(about, hosts=tuple(one for one in about.hosts if one.name in allowed)))
    assert outcome(plan) == expected
    assert plan.require_tls == (require_tls is True and (plan.failure is None or bool(plan.skipped)))


REPORTED: list[tuple[str, str, bool | None, list[tuple[str, str, bool, str | None]]]] = [
    ("absent", "no policy", None, [("no-policy-found", DOMAIN, False, None)]),
    ("absent", "mode none", None, [("no-policy-found", DOMAIN, False, None)]),
    ("absent", "no policy", False, [("no-policy-found", DOMAIN, False, None)]),
    ("absent", "testing", None, [("sts", DOMAIN, False, None)]),
    ("absent", "testing, another", None, [("sts", DOMAIN, False, "validation-failure")]),
    ("absent", "enforce", None, [("sts", DOMAIN, True, None)]),
    ("absent", "enforce", False, [("sts", DOMAIN, False, None)]),
    ("absent", "enforce, another", False, [("sts", DOMAIN, False, "validation-failure")]),
    ("usable", "no policy", None, [("tlsa", MX, True, None)]),
    ("usable", "no policy", False, [("tlsa", MX, False, None)]),
    ("usable", "testing", None, [("tlsa", MX, True, None), ("sts", DOMAIN, False, None)]),
    ("usable", "enforce", None, [("tlsa", MX, True, None), ("sts", DOMAIN, True, None)]),
    ("unusable", "no policy", None, [("tlsa", MX, False, "tlsa-invalid")]),
    ("unusable", "enforce", None, [("tlsa", MX, False, "tlsa-invalid"), ("sts", DOMAIN, True, None)]),
    ("trouble", "no policy", False, [("no-policy-found", DOMAIN, False, None)]),
    ("mx", "trouble", False, [("no-policy-found", DOMAIN, False, None)]),
]


@pytest.mark.parametrize(("dane", "policy", "require_tls", "expected"), REPORTED)
def test_what_is_checked_and_reported(
    dane: str, policy: str, require_tls: bool | None, expected: list[tuple[str, str, bool, str | None]]
) -> None:
    """Also what is not enforced is checked, for the reports."""
    [one] = decided(replace(DANE[dane], sts=STS[policy], require_tls=require_tls)).hosts
    found = [(c.type, c.domain, c.enforced, c.fault.type if c.fault else None) for c in one.tls.checks]
    assert found == expected


def test_the_checks_in_full() -> None:
    [one] = decided(replace(DANE["usable"], sts=STS["enforce"])).hosts
    assert one.tls.server_name == MX
    assert one.tls.checks == (
        Check(
            type="tlsa",
            domain=MX,
            enforced=True,
            names=(MX, DOMAIN),
            tlsa=(USABLE,),
            strings=("0 0 1 " + "78" * 32, "3 1 1 " + "78" * 32),
        ),
        Check(
            type="sts",
            domain=DOMAIN,
            enforced=True,
            names=(MX,),
            strings=("version: STSv1", "mode: enforce"),
            mx=(MX,),
        ),
    )


def test_hosts_that_are_refused_are_told_with_the_policy() -> None:
    other = question("mx.example.net", MX, sts=STS["enforce"], hosts=(host(),))
    plan = decided(other)
    assert [one.name for one in plan.hosts] == [MX]
    fault = TlsFault(
        "validation-failure", "mx.example.net is none of the hosts in the MTA-STS policy of example.org"
    )
    [skipped] = plan.skipped
    assert skipped.failure == Failure(permanent=False, enhanced="4.7.5", text=fault.text)
    assert skipped.check is not None
    assert (skipped.check.type, skipped.check.enforced, skipped.check.fault) == ("sts", True, fault)
    [skipped] = decided(DANE["trouble"]).skipped
    fault = TlsFault("dnssec-invalid", TROUBLE.text)
    assert skipped.check == Check(type="tlsa", domain=MX, enforced=True, fault=fault)


def test_a_policy_that_could_not_be_had() -> None:
    fault = TlsFault("sts-policy-fetch-error", "no")
    plan = decided(question(sts=StsAnswer(None, fault)))
    assert plan.policy_fault == fault
    assert outcome(plan) == "may"


# --- The domain -------------------------------------------------------------------------------------

NULL = Mx(0, ".")


@pytest.mark.parametrize("require_tls", [None, True, False])
@pytest.mark.parametrize(
    ("mx", "failure"),
    [
        (TROUBLE, Failure(permanent=False, enhanced="4.4.3", text="DNS: no answer")),
        (
            NoRecords(nxdomain=True),
            Failure(permanent=True, enhanced="5.1.2", text="there is no domain example.org"),
        ),
        (
            Answer((NULL,)),
            Failure(permanent=True, enhanced="5.1.10", text="example.org takes no mail (it has a null MX)"),
        ),
    ],
)
def test_no_way(mx: Reply[Mx], failure: Failure, require_tls: bool | None) -> None:
    about = Question(domain=DOMAIN, mx=mx, require_tls=require_tls)
    assert candidates(about, Random(1)) == ()
    assert decided(about) == Plan(failure=failure)
    # Trouble with the policy makes nothing of it temporary that is permanent.
    assert decided(replace(about, sts=TROUBLE)).failure == failure


LOOPBACK = ip_network("127.0.0.0/8"), ip_network("::1/128")
HERE = Answer((IPv4Address("127.0.0.1"),)), Answer((IPv6Address("::1"),))
PUBLIC = Answer((IPv4Address("8.8.8.8"),)), Answer((IPv6Address("2600::1"),))
NOT_PUBLIC = f"{MX} has no public address, only ::1, 127.0.0.1"


def test_addresses_that_are_not_public_are_used_only_where_the_operator_says_so() -> None:
    def to(ipv4: Answer[IPv4Address], ipv6: Answer[IPv6Address], *networks: Network) -> Plan:
        return decided(question(hosts=(host(ipv4=ipv4, ipv6=ipv6),)), allow_networks=networks)

    failure = Failure(permanent=True, enhanced="5.4.4", text=NOT_PUBLIC)
    assert to(*HERE).failure == failure
    assert to(*HERE, ip_network("10.0.0.0/8")).failure == failure
    assert [*map(str, to(*HERE, *LOOPBACK).hosts[0].addresses)] == ["::1", "127.0.0.1"]
    assert [*map(str, to(*HERE, LOOPBACK[0]).hosts[0].addresses)] == ["127.0.0.1"]
    # One of them among public ones is left out; then there is one IP version only.
    [mixed] = to(HERE[0], PUBLIC[1]).hosts
    assert ([*map(str, mixed.addresses)], mixed.dual_stack) == (["2600::1"], False)
    mapped = Answer((IPv6Address("::ffff:10.0.0.1"),))
    assert outcome(to(HERE[0], mapped)) == "5.4.4"


def test_another_host_may_still_be_there_when_one_has_no_public_address() -> None:
    here = host("a.example.org", ipv4=HERE[0], ipv6=HERE[1])
    about = question("a.example.org", MX, hosts=(here, host(ipv4=PUBLIC[0], ipv6=PUBLIC[1])))
    assert [one.name for one in decided(about, allow_networks=()).hosts] == [MX]
    away = question("a.example.org", MX, hosts=(here, host(ipv4=TROUBLE, ipv6=TROUBLE)))
    assert outcome(decided(away, allow_networks=())) == "4.4.3"  # it is not known


@pytest.mark.parametrize("literal", ["[127.0.0.1]", "[IPv6:::1]", "[10.0.0.1]", "[169.254.169.254]"])
def test_an_address_literal_that_is_not_public(literal: str) -> None:
    about = Question(domain=literal)
    assert outcome(decided(about, allow_networks=())) == "5.4.4"
    assert outcome(decided(about)) == "may"


def test_a_null_mx_among_others_is_none() -> None:
    about = question(mx=Answer((NULL, Mx(5, MX))))
    assert candidates(about, Random(1)) == (MX,)
    assert outcome(decided(about)) == "may"


def test_without_mx_the_domain_is_the_host() -> None:
    about = Question(domain=DOMAIN, mx=NoRecords())
    assert candidates(about, Random(1)) == (DOMAIN,)
    plan = decided(replace(about, hosts=(host(DOMAIN),)))
    assert [one.name for one in plan.hosts] == [DOMAIN]
    assert plan.hosts[0].tls.server_name == DOMAIN
    # A policy may name it, or not.
    assert candidates(replace(about, sts=sts("enforce", DOMAIN)), Random(1)) == (DOMAIN,)
    refused = replace(about, sts=sts("enforce", MX))
    assert candidates(refused, Random(1)) == ()
    assert outcome(decided(refused)) == "4.7.5"
    # DANE needs the denial of MX records to be authentic.
    tlsa = host(DOMAIN, tlsa=((DOMAIN, Answer((USABLE,), True)),))
    assert outcome(decided(replace(about, hosts=(tlsa,)))) == "may"
    assert outcome(decided(replace(about, mx=NoRecords(authentic=True), hosts=(tlsa,)))) == "tlsa"


def test_order() -> None:
    """By preference; shuffled where that is equal, and then every order comes."""
    mx = Answer((Mx(20, "c.example"), Mx(10, "a.example"), Mx(20, "d.example"), Mx(10, "b.example")))
    about = Question(domain=DOMAIN, mx=mx)
    orders = {candidates(about, Random(seed)) for seed in range(100)}
    expected = {
        (*first, *second)
        for first in (("a.example", "b.example"), ("b.example", "a.example"))
        for second in (("c.example", "d.example"), ("d.example", "c.example"))
    }
    assert orders == expected


def test_the_order_of_the_hosts_is_kept() -> None:
    names = ("b.example", "c.example", "a.example")
    assert tuple(one.name for one in decided(question(*names)).hosts) == names


def test_a_host_that_is_there_twice_counts_once() -> None:
    mx = Answer((Mx(20, "a.example"), Mx(10, "a.example"), Mx(15, "b.example")))
    assert candidates(Question(domain=DOMAIN, mx=mx), Random(1)) == ("a.example", "b.example")


def test_hundred_hosts() -> None:
    """The best are asked about; where the limit cuts through equals, each has its chance."""
    equal = Answer(tuple(Mx(10, f"mx{n}.example") for n in range(100)))
    about = Question(domain=DOMAIN, mx=equal)
    found = [candidates(about, Random(seed)) for seed in range(40)]
    assert {len(names) for names in found} == {MAX_NAMES}
    assert len(set().union(*found)) == 100
    ordered = Question(domain=DOMAIN, mx=Answer(tuple(Mx(100 - n, f"mx{n}.example") for n in range(100))))
    assert candidates(ordered, Random(1)) == tuple(f"mx{99 - n}.example" for n in range(MAX_NAMES))
    # Those that the policy refuses take nobody's place.
    last = replace(ordered, sts=sts("enforce", "mx0.example"))
    assert candidates(last, Random(1)) == ("mx0.example",)
    plan = decided(replace(last, hosts=(host("mx0.example"),)))
    assert [one.name for one in plan.hosts] == ["mx0.example"]
    assert len(plan.skipped) == MAX_HOSTS


def numbered(*numbers: int) -> tuple[str, ...]:
    return tuple(f"mx{number}.example" for number in numbers)


@pytest.mark.parametrize(
    ("hosts", "dialed", "expected"),
    [
        (3, {}, [0, 1, 2]),
        (3, {0: 1}, [0, 1, 2]),  # each has its turn anyway: the preferred one goes first
        (MAX_HOSTS, {0: 5}, range(MAX_HOSTS)),
        (MAX_HOSTS + 1, {}, range(MAX_HOSTS + 1)),
        (MAX_HOSTS + 1, dict.fromkeys(range(MAX_HOSTS), 1), [16, *range(16)]),
        (20, dict.fromkeys(range(4, 20), 1), [0, 1, 2, 3, *range(4, 20)]),
        (20, dict.fromkeys(range(20), 1) | {0: 2, 1: 3}, [*range(2, 20), 0, 1]),
        (20, {99: 1}, range(20)),  # of another domain
    ],
)
def test_hosts_dialled_least_go_first_where_there_are_too_many(
    hosts: int, dialed: dict[int, int], expected: Sequence[int]
) -> None:
    earlier = {name: ["192.0.2.1"] * dialed[n] for n in dialed for name in numbered(n)}
    assert candidates(question(*numbered(*range(hosts))), Random(1), earlier) == numbered(*expected)


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ((), range(MAX_HOSTS)),
        (range(10), range(10, 10 + MAX_HOSTS)),
        (range(0, 40, 2), [*range(1, 40, 2)][:MAX_HOSTS]),
        (range(39), [39]),
    ],
)  # the numbers of hosts that have no address
def test_hosts_that_cannot_be_tried_take_nobodys_place(
    without: Sequence[int], expected: Sequence[int]
) -> None:
    names = numbered(*range(40))
    hosts = [host(name, ipv4=NONE, ipv6=NONE) if n in without else host(name) for n, name in enumerate(names)]
    plan = decided(question(*names, hosts=tuple(hosts)))
    assert tuple(one.name for one in plan.hosts) == numbered(*expected)
    assert {one.name for one in plan.skipped} == set(numbered(*(n for n in without if n < expected[-1])))


@pytest.mark.parametrize(
    ("literal", "require_tls", "families", "expected"),
    [
        ("[192.0.2.1]", None, (6, 4), "may"),
        ("[192.0.2.1]", False, (4,), "may"),
        ("[192.0.2.1]", None, (6,), "4.4.4"),
        ("[IPv6:2001:db8::1]", None, (4, 6), "may"),
        ("[IPv6:2001:db8::1]", None, (4,), "4.4.4"),
        ("[192.0.2.1]", True, (6, 4), "5.7.30"),
    ],
)
def test_address_literals(literal: str, require_tls: bool | None, families: Families, expected: str) -> None:
    about = Question(domain=literal, require_tls=require_tls)
    assert candidates(about, Random(1)) == ()
    plan = decided(about, families=families)
    assert outcome(plan) == expected
    for one in plan.hosts:
        assert (one.name, one.tls.server_name) == (literal, "")
        assert one.addresses == (ip_address(literal.strip("[]").removeprefix("IPv6:")),)
        assert one.tls.checks == (Check(type="no-policy-found", domain=literal),)


# --- Several hosts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("unusable", "unusable", "5.7.30"),
        ("unusable", "trouble", "4.4.3"),  # it may have what the message requires
        ("trouble", "unusable", "4.4.3"),
        ("unusable", "usable", "tlsa"),
        ("usable", "trouble", "tlsa"),
    ],
)
def test_requiretls_is_permanent_when_all_hosts_lack_it(first: str, second: str, expected: str) -> None:
    hosts = []
    for name, state in (("a.example", first), ("b.example", second)):
        [answers] = DANE[state].hosts
        [(_, reply)] = answers.tlsa
        hosts.append(host(name, tlsa=((name, reply),)))
    about = question("a.example", "b.example", hosts=tuple(hosts), require_tls=True)
    assert outcome(decided(about)) == expected


def test_each_host_needs_what_is_its_own() -> None:
    hosts = (host("a.example", tlsa=(("a.example", Answer((USABLE,), True)),)), host("b.example"))
    plan = decided(question("a.example", "b.example", hosts=hosts))
    assert [(one.name, one.tls.required, one.tls.verified) for one in plan.hosts] == [
        ("a.example", True, True),
        ("b.example", False, False),
    ]


# --- Addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "families", "expected"),
    [
        (Answer((V4,)), Answer((V6,)), (6, 4), [V6, V4]),
        (Answer((V4,)), Answer((V6,)), (4, 6), [V4, V6]),
        (Answer((V4,)), Answer((V6,)), (4,), [V4]),
        (Answer((V4,)), Answer((V6,)), (6,), [V6]),
        (Answer((V4,)), NONE, (6, 4), [V4]),
        (Answer((V4,)), TROUBLE, (6, 4), [V4]),
        (TROUBLE, Answer((V6,)), (6, 4), [V6]),
        (Answer((V4,)), None, (4,), [V4]),
        (NONE, NONE, (6, 4), "4.4.4 mx.example.org, a mail server of example.org, has no address"),
        (NOT_THERE, NOT_THERE, (6, 4), "4.4.4 mx.example.org, a mail server of example.org, has no address"),
        (NONE, TROUBLE, (6, 4), "4.4.3 DNS: no answer"),
        (TROUBLE, NONE, (4, 6), "4.4.3 DNS: no answer"),
        (None, NONE, (6,), "4.4.4 mx.example.org, a mail server of example.org, has no IPv6 address"),
        (NONE, None, (4,), "4.4.4 mx.example.org, a mail server of example.org, has no IPv4 address"),
    ],
)
def test_addresses(
    ipv4: Reply[IPv4Address] | None, ipv6: Reply[IPv6Address] | None, families: Families, expected: Any
) -> None:
    plan = decided(question(hosts=(host(ipv4=ipv4, ipv6=ipv6),)), families=families)
    if isinstance(expected, str):
        assert plan.failure is not None
        assert f"{plan.failure.enhanced} {plan.failure.text}" == expected
        assert not plan.failure.permanent
        assert plan.skipped == (Skipped(name=MX, failure=plan.failure),)
    else:
        [one] = plan.hosts
        assert list(one.addresses) == expected
        assert one.dual_stack == (len(expected) == 2)


def addresses(plan: Plan) -> list[str]:
    [one] = plan.hosts
    return [str(address) for address in one.addresses]


@pytest.mark.parametrize(
    ("dialed", "families", "expected"),
    [
        ((), (6, 4), "646464"),
        ((), (4, 6), "464646"),
        (("192.0.2.1",), (4, 6), "646464"),
        (("2001:db8::1",), (6, 4), "464646"),
        (("192.0.2.1", "2001:db8::1"), (6, 4), "464646"),
        (("2001:db8::1", "192.0.2.1"), (4, 6), "646464"),
    ],
)
def test_families_take_turns_and_begin_with_the_other(
    dialed: Sequence[str], families: Families, expected: str
) -> None:
    ipv4 = Answer(tuple(IPv4Address(f"192.0.2.{n}") for n in (1, 2, 3)))
    ipv6 = Answer(tuple(IPv6Address(f"2001:db8::{n}") for n in (1, 2, 3)))
    about = question(hosts=(host(ipv4=ipv4, ipv6=ipv6),))
    found = addresses(decided(about, families=families, dialed={MX: dialed}))
    assert "".join("6" if ":" in address else "4" for address in found) == expected
    assert set(found[len(found) - len(set(dialed)) :]) >= set(dialed)


def test_what_was_dialled_least_goes_first() -> None:
    ipv4 = Answer(tuple(IPv4Address(f"192.0.2.{n}") for n in range(4)))
    about = question(hosts=(host(ipv4=ipv4, ipv6=NONE),))
    dialed = {MX: ["192.0.2.1", "192.0.2.2", "192.0.2.1"], "other.example": ["192.0.2.0"]}
    seen = set()
    for seed in range(30):
        found = addresses(decide(about, random=Random(seed), allow_networks=EVERYWHERE, dialed=dialed))
        assert found[2:] == ["192.0.2.2", "192.0.2.1"]
        seen.add(found[0])
    assert seen == {"192.0.2.0", "192.0.2.3"}


def test_many_addresses() -> None:
    ipv4 = Answer(tuple(IPv4Address(f"192.0.2.{n}") for n in range(200)))
    found = addresses(decided(question(hosts=(host(ipv4=ipv4),))))
    assert len(found) == MAX_ADDRESSES


TWO_V4 = Answer((V4, IPv4Address("192.0.2.2")))


@pytest.mark.parametrize(
    ("about", "only"),
    [
        (question(), True),
        (question("a.example", "b.example"), True),
        (question(mx=NONE, hosts=(host(DOMAIN),)), True),
        (question(hosts=(host(ipv4=TWO_V4),)), False),
        (question("a.example", hosts=(host("a.example"), host("b.example", ipv4=TWO_V4))), False),
        (question(mx=Answer((Mx(10, MX), Mx(10, "b.example")))), False),
        (question("a.example", hosts=(host("a.example"), host("b.example", ipv4=NONE, ipv6=NONE))), False),
        (question(mx=TROUBLE), False),
    ],
)
def test_another_order_would_do_as_well_unless_it_is_the_only_one(about: Question, only: bool) -> None:
    assert decided(about).only is only


# --- Names with TLSA records ------------------------------------------------------------------------

ALIAS = "real.example"


def aliased(*, authentic: bool, alias: Reply[str] | None = None) -> HostAnswers:
    return host(ipv4=Answer((V4,), authentic, ALIAS), ipv6=NoRecords(authentic=authentic), alias=alias)


@pytest.mark.parametrize(
    ("about", "answers", "bases"),
    [
        (question(), host(), (MX,)),
        (question(authentic=False), host(), ()),
        (question(mx=TROUBLE), host(), ()),
        (question(), host(authentic=False), ()),
        (question(), host(ipv4=Answer((V4,), True, MX), ipv6=Answer((V6,), False, MX)), ()),
        (question(), host(ipv4=Answer((V4,), True, MX), ipv6=NoRecords()), ()),
        (question(), host(ipv4=Answer((V4,), True, MX), ipv6=NoRecords(authentic=True)), (MX,)),
        (question(), host(ipv4=Answer((V4,), True, MX), ipv6=TROUBLE), (MX,)),
        (question(), host(ipv4=Answer((V4,), True, MX), ipv6=None), (MX,)),
        (question(), host(ipv4=NONE, ipv6=NONE), ()),
        (question(), aliased(authentic=True), (ALIAS, MX)),
        (question(), aliased(authentic=False), ()),
        (question(), aliased(authentic=False, alias=Answer((ALIAS,), True)), (MX,)),
        (question(), aliased(authentic=False, alias=Answer((ALIAS,), False)), ()),
        (question(), aliased(authentic=False, alias=TROUBLE), ()),
        (question(authentic=False), aliased(authentic=False, alias=Answer((ALIAS,), True)), ()),
    ],
)
def test_bases(about: Question, answers: HostAnswers, bases: tuple[str, ...]) -> None:
    assert tlsa_bases(about, answers) == bases
    wanted = about.mx == question().mx and answers.ipv4 == Answer((V4,), False, ALIAS)
    assert alias_matters(about, replace(answers, alias=None)) == wanted


def test_the_name_that_the_records_are_at() -> None:
    records = Answer((USABLE,), True)
    there = replace(aliased(authentic=True), tlsa=((ALIAS, records),))
    [one] = decided(question(hosts=(there,))).hosts
    [check] = one.tls.checks
    assert (one.name, one.tls.server_name, check.domain) == (MX, ALIAS, ALIAS)
    assert check.names == (ALIAS, DOMAIN)
    here = replace(aliased(authentic=True), tlsa=((ALIAS, NoRecords()), (MX, records)))
    [one] = decided(question(hosts=(here,))).hosts
    [check] = one.tls.checks
    assert (one.tls.server_name, check.domain, check.names) == (MX, MX, (MX, DOMAIN))
    nowhere = replace(aliased(authentic=True), tlsa=((ALIAS, NoRecords()), (MX, NoRecords())))
    assert outcome(decided(question(hosts=(nowhere,)))) == "may"


def test_an_alias_of_the_domain_counts_too() -> None:
    mx = Answer((Mx(1, MX),), True, "bücher.example")
    about = question(mx=mx, hosts=(host(tlsa=((MX, Answer((USABLE,), True)),)),))
    [one] = decided(about).hosts
    assert one.tls.checks[0].names == (MX, DOMAIN, "xn--bcher-kva.example")


def test_an_alias_of_which_nothing_is_known() -> None:
    """It might be authentic, and then there might be records: no way around them."""
    unknown = question(hosts=(aliased(authentic=False, alias=TROUBLE),))
    assert outcome(decided(unknown)) == "4.4.3"
    assert outcome(decided(replace(unknown, require_tls=False))) == "may"
    insecure = question(authentic=False, hosts=(aliased(authentic=False, alias=TROUBLE),))
    assert outcome(decided(insecure)) == "may"


def test_the_answer_is_for_the_name_that_was_asked() -> None:
    """Records at a name that is no base are not looked at."""
    about = question(hosts=(host(tlsa=(("other.example", Answer((USABLE,), True)),)),))
    assert outcome(decided(about)) == "may"


def test_a_host_in_unicode() -> None:
    about = question("mxö.example", sts=sts("enforce", "xn--mx-gka.example"), hosts=(host("mxö.example"),))
    plan = decided(about)
    assert outcome(plan) == "sts"
    [one] = plan.hosts
    assert one.tls.server_name == "xn--mx-gka.example"
