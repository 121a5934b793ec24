"""DMARC: whose policy counts, what is aligned, and what is asked for then."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.inbound.verify.dmarc import (
    Author,
    DmarcRecord,
    Policy,
    decide,
    find_policy,
    parse_dmarc,
    read_author,
)
from gateway.mail.auth_results import DkimCheck, DkimResult, DmarcCheck, SpfCheck, SpfResult
from gateway.mail.public_suffix import organizational_domain
from tests.counting import at_most
from tests.inbound.verify.zones import Zones

REJECT = Policy(DmarcRecord("reject", "quarantine"))


def spf(result: SpfResult = "none", domain: str = "other.example") -> SpfCheck:
    return SpfCheck(identity="mailfrom", result=result, domain=domain, reason="trouble")


def dkim(result: DkimResult, domain: str) -> DkimCheck:
    return DkimCheck(result=result, domain=domain, reason="" if result == "pass" else "trouble")


def decided(
    policy: Policy,
    *checks: DkimCheck,
    sender: SpfCheck | None = None,
    author: str = "example.org",
    sample: float = 0.5,
) -> DmarcCheck:
    return decide(Author((author,)), {author: policy}, sender or spf(), checks, lambda: sample)


# --- From -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "domains", "problem"),
    [
        ([b" a@example.org\r\n"], ("example.org",), ""),
        ([b" Alice <a@Example.ORG>,\r\n b@example.org\r\n"], ("example.org",), ""),
        ([b" a@example.org, b@example.com\r\n"], ("example.org", "example.com"), ""),
        ([b" a@b\xc3\xbccher.example\r\n"], ("b\xfccher.example",), ""),
        ([b" a@xn--bcher-kva.example\r\n"], ("b\xfccher.example",), ""),
        ([b" people: a@example.org;\r\n"], ("example.org",), ""),
        ([b" a..b@example.org\r\n"], ("example.org",), ""),
        ([], (), "there is no From"),
        ([b"\r\n"], (), "From has no address"),
        ([b" nobody:;\r\n"], (), "From has no address"),
        ([b" a@[192.0.2.1]\r\n"], (), "an address in From has no domain"),
        ([b" a@\r\n"], (), "an address in From has no domain"),
        ([b" a@example.org, b@\r\n"], ("example.org",), "an address in From has no domain"),
        ([b" a@example.org\r\n", b" a@example.org\r\n"], ("example.org",), "there is more than one From"),
        (
            [b"".join(b"a@d%d.example," % number for number in range(100))],
            ("d0.example", "d1.example", "d2.example", "d3.example"),
            "From has too many domains",
        ),
    ],
)
def test_the_author(fields: list[bytes], domains: tuple[str, ...], problem: str) -> None:
    assert read_author(fields) == Author(domains, problem, unread=problem == "From has too many domains")


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_anything_can_stand_in_from(fields: list[bytes]) -> None:
    author = read_author(fields)
    assert bool(author.domains) or bool(author.problem)


# --- Records --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (b"v=DMARC1; p=reject", DmarcRecord("reject", "reject")),
        (b"v=DMARC1;p=none;sp=reject;", DmarcRecord("none", "reject")),
        (
            b"v = DMARC1 ; p = Quarantine; adkim=s; aspf=s; pct=20; x=y; rua=mailto:a@b",
            DmarcRecord("quarantine", "quarantine", True, True, 20),
        ),
        (b"v=DMARC1; p=reject; pct=abc; adkim=q", DmarcRecord("reject", "reject")),
        (b"v=DMARC1; p=bogus; rua=mailto:a@example.org", DmarcRecord("none", "none")),
        (b"v=DMARC1; rua=mailto:a@example.org", DmarcRecord("none", "none")),
        (b"v=DMARC1; p=reject; pct=999", DmarcRecord("reject", "reject")),
        (b"v=DMARC1; p=reject\xff", None),
        (b"v=DMARC1; p=bogus", None),
        (b"v=DMARC1; p=reject; sp=bogus", None),
        (b"v=DMARC1", None),
        (b"v=DMARC1; p=reject;" + b"a=b;" * 2000, None),
    ],
)
def test_records(record: bytes, wanted: DmarcRecord | None) -> None:
    if wanted is None:
        with pytest.raises(ValueError, match="DMARC record"):
            parse_dmarc(record)
    else:
        assert parse_dmarc(record) == wanted


@pytest.mark.parametrize(
    ("domain", "wanted"),
    [
        ("example.org", "example.org"),
        ("a.b.example.org", "example.org"),
        ("a.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("localhost", "localhost"),
        ("sub.bücher.example", "bücher.example"),
    ],
)
def test_organizational_domains(domain: str, wanted: str) -> None:
    assert organizational_domain(domain) == wanted


@pytest.mark.parametrize(
    ("records", "asked_for", "wrong"),
    [
        ({"_dmarc.mail.example.org": [b"v=DMARC1; p=none"]}, "none", ""),
        ({"_dmarc.example.org": [b"v=DMARC1; p=none; sp=reject"]}, "reject", ""),
        ({"_dmarc.example.org": [b"v=DMARC1; p=quarantine"]}, "quarantine", ""),
        ({"_dmarc.mail.example.org": [b"x"], "_dmarc.example.org": [b"v=DMARC1; p=reject"]}, "reject", ""),
        ({"_dmarc.org": [b"v=DMARC1; p=reject"]}, None, ""),
        ({}, None, ""),
        ({"_dmarc.mail.example.org": [b"v=DMARC1; p=none", b"v=DMARC1; p=reject"]}, None, "2 DMARC records"),
        ({"_dmarc.mail.example.org": [b"v=DMARC1; p=maybe"]}, None, "no policy"),
    ],
)
async def test_the_policy_of_a_subdomain(
    records: dict[str, list[bytes]], asked_for: str | None, wrong: str
) -> None:
    dns = Zones()
    for name, texts in records.items():
        dns.add(name, "TXT", *texts)
    policy = await find_policy(dns, "mail.example.org")
    assert policy.asked_for == asked_for
    assert wrong in policy.error
    assert bool(policy.error) == bool(wrong)


@pytest.mark.parametrize("silent", ["_dmarc.mail.example.org", "_dmarc.example.org"])
async def test_a_policy_that_cannot_be_looked_up(silent: str) -> None:
    dns = Zones(silent={silent})
    policy = await find_policy(dns, "mail.example.org")
    assert (policy.trouble, policy.record) == ("DNS: no answer in time", None)


# --- The decision ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strict", "sender", "signer", "passes"),
    [
        (False, "example.org", None, True),
        (False, "bounces.example.org", None, True),
        (False, None, "mail.example.org", True),
        (False, "example.com", "example.com", False),
        (False, "notexample.org", None, False),
        (False, "org", "org", False),
        (True, "example.org", None, True),
        (True, "bounces.example.org", "mail.example.org", False),
        (True, None, "example.org", True),
    ],
)
def test_alignment(strict: bool, sender: str | None, signer: str | None, passes: bool) -> None:
    policy = Policy(DmarcRecord("reject", "reject", dkim_strict=strict, spf_strict=strict))
    checks = [dkim("pass", signer)] if signer else []
    found = decided(policy, *checks, sender=spf("pass", sender) if sender else None)
    assert (found.result == "pass", found.aligned) == (passes, passes)
    assert found.disposition == ("none" if passes else "reject")


def test_what_did_not_pass_is_not_aligned() -> None:
    found = decided(REJECT, dkim("fail", "example.org"), sender=spf("softfail", "example.org"))
    assert (found.result, found.policy, found.disposition) == ("fail", "reject", "reject")


def test_without_a_record_alignment_is_relaxed() -> None:
    found = decided(Policy(), dkim("pass", "mail.example.org"))
    assert (found.result, found.aligned, found.policy) == ("none", True, None)
    assert decided(Policy(), dkim("pass", "example.com")).aligned is False


def test_a_wrong_record() -> None:
    found = decided(Policy(error="two of them"), dkim("pass", "example.org"))
    assert (found.result, found.reason, found.aligned) == ("permerror", "two of them", True)


@pytest.mark.parametrize(
    ("sample", "asked"), [(0.0, "reject"), (0.29, "reject"), (0.3, "quarantine"), (0.99, "quarantine")]
)
def test_a_sample_of_messages(sample: float, asked: str) -> None:
    found = decided(Policy(DmarcRecord("reject", "reject", percent=30)), sample=sample)
    assert (found.result, found.policy, found.disposition) == ("fail", "reject", asked)


def test_subdomains_have_a_policy_of_their_own() -> None:
    inherited = Policy(DmarcRecord("reject", "quarantine"), inherited=True)
    assert decided(inherited, author="mail.example.org").disposition == "quarantine"


@pytest.mark.parametrize(
    ("checks", "sender"), [([], spf("temperror")), ([dkim("temperror", "example.org")], spf())]
)
def test_trouble_makes_a_failure_temporary(checks: list[DkimCheck], sender: SpfCheck) -> None:
    found = decided(REJECT, *checks, sender=sender)
    assert (found.result, found.policy, found.disposition) == ("temperror", "reject", "reject")
    passing = decided(REJECT, *checks, dkim("pass", "example.org"), sender=sender)
    assert (passing.result, passing.disposition) == ("pass", "none")


def test_while_the_policy_is_not_known_only_the_very_domain_is_aligned() -> None:
    unknown = Policy(trouble="time-out")
    assert decided(unknown, dkim("pass", "example.org")).aligned is True
    found = decided(unknown, dkim("pass", "mail.example.org"))
    assert (found.result, found.aligned, found.policy) == ("temperror", False, None)


def several(author: Author, policies: dict[str, Policy], *checks: DkimCheck) -> DmarcCheck:
    return decide(author, policies, spf(), checks, lambda: 0.0)


def test_of_several_authors_each_must_pass() -> None:
    both = Author(("example.org", "example.com"))
    one: dict[str, Any] = {"example.org": REJECT, "example.com": Policy()}
    found = several(both, one, dkim("pass", "example.com"))
    assert (found.result, found.domain, found.disposition) == ("fail", "example.org", "reject")
    found = several(both, one, dkim("pass", "example.org"))
    assert (found.result, found.domain, found.aligned) == ("none", "example.com", False)
    found = several(both, one, dkim("pass", "example.org"), dkim("pass", "example.com"))
    assert found.aligned is True


def test_several_from_fields_fail() -> None:
    author = Author(("example.org",), "there is more than one From")
    found = several(author, {"example.org": REJECT}, dkim("pass", "example.org"))
    assert (found.result, found.disposition, found.aligned) == ("fail", "reject", False)
    found = several(author, {"example.org": Policy()}, dkim("pass", "example.org"))
    assert (found.result, found.policy, found.disposition) == ("fail", None, "none")


def test_several_from_fields_wait_while_a_policy_is_not_known() -> None:
    author = Author(("example.org", "example.com"), "there is more than one From")
    unknown = Policy(trouble="time-out")
    found = several(author, {"example.org": unknown, "example.com": Policy()})
    assert (found.result, found.policy, found.reason) == ("temperror", None, "time-out")
    found = several(author, {"example.org": unknown, "example.com": REJECT})
    assert (found.result, found.disposition) == ("fail", "reject")


def test_an_author_among_too_many_is_held_to_what_the_others_do_not_ask_for() -> None:
    author = read_author([b", ".join(b"a@x%d.example" % n for n in range(5))])
    found = several(author, {domain: Policy() for domain in author.domains})
    assert (found.result, found.disposition, found.reason) == ("fail", "reject", "From has too many domains")


def test_no_author() -> None:
    found = several(Author(problem="there is no From"), {})
    assert (found.result, found.reason, found.aligned) == ("permerror", "there is no From", False)


@pytest.mark.parametrize(
    "value",
    [
        "ceo@bank.example>",
        '"x <ceo@bank.example>',
        "(x(y) ceo@bank.example",
        "[ceo@bank.example]",
        "ceo@bank.example:25",
        "ceo@bank.example\0 x",
        "=?utf-8?q?ceo=40bank.example?=",
        '"ceo@bank.example" ceo@bank.example',
        "ceo@BANK.example.",
    ],
)
def test_what_is_shown_as_an_address_is_held_to_its_domain(value: str) -> None:
    assert read_author([f" {value}\r\n".encode()]) == Author(("bank.example",))


@pytest.mark.parametrize("value", ["ceo@bank.example\0@x.example", "ceo@bank.example@x.example"])
def test_and_to_each_that_it_names(value: str) -> None:
    assert read_author([f" {value}\r\n".encode()]) == Author(("bank.example", "x.example"))


@pytest.mark.parametrize(
    "value", ["x" * 2000 + "@bank.example", "ceo@" + "x." * 130 + "bank.example", "ceo@bank..example"]
)
def test_a_domain_that_cannot_be_read_passes_by_none(value: str) -> None:
    author = read_author([f" {value}\r\n".encode()])
    assert author == Author((), "an address in From has no domain that can be read", unread=True)
    assert several(author, {}).disposition == "reject"


async def test_a_name_with_an_underscore_is_below_its_domain() -> None:
    assert read_author([b" ceo@_x.Y_.bank.example\r\n"]) == Author(("_x.y_.bank.example",))
    assert organizational_domain("_x.y_.bank.example") == "bank.example"


def test_too_many_addresses() -> None:
    with at_most(80_000):
        author = read_author([b"a@example.org," * 70_000])
    assert author == Author(("example.org",), "From is too long", unread=True)
