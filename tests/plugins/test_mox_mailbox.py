"""The plugin mox.mailbox: which rule of an account chooses the mailbox."""

from __future__ import annotations

import fnmatch
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway import (
    Address,
    AuthResults,
    DkimCheck,
    DmarcCheck,
    IprevCheck,
    Reception,
    SpfCheck,
)
from gateway_mox.mailbox import LOOKED_AT, READ, MailboxSettings, MoxMailbox, matches_pattern
from tests.counting import at_most
from tests.hooks.helpers import a_reception

HEADER = (
    b"From: =?utf-8?q?Jo_Sm=C3=ADth?= <Jo@Billing.example>, second@example.net\r\n"
    b"Subject: =?utf-8?q?Your_Invoice_=C3=84?=\r\n 17\r\nList-Id: News <news.example.net>\r\n"
    b"List-Id: <other.example.net>\r\n\r\n"
)


def verified(spf: str = "none", dkim: str = "fail") -> AuthResults:
    check = SpfCheck(identity="mailfrom", result=spf, domain="bounces.example.org")  # type: ignore[arg-type]
    return AuthResults(
        iprev=IprevCheck(result="pass"),
        spf=check,
        helo=replace(check, identity="helo"),
        dkim=(DkimCheck(result=dkim, domain="mail.billing.example"),),  # type: ignore[arg-type]
        dmarc=DmarcCheck(result="none"),
    )


def mail(header: bytes = HEADER, sender: str = "B-17@bounces.example.org", **fields: Any) -> Reception:
    path = Address.parse(sender) if sender else None
    return replace(a_reception(), step="data", header=header, reverse_path=path, **fields)


def chosen(reception: Reception, *rules: dict[str, Any], chosen: str = "Inbox") -> str | None:
    listed = [{"mailbox": f"Box {number}"} | rule for number, rule in enumerate(rules)]
    settings = MailboxSettings.model_validate({"rules": listed})
    return MoxMailbox().mailbox(reception, chosen, settings)


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ({"mail_from": "b-*@bounces.example.org"}, True),
        ({"mail_from": "*@BOUNCES.example.org"}, True),
        ({"mail_from": "*@example.org"}, False),
        ({"mail_from": "b-17@bounces.example"}, False),
        ({"header_from": "*@billing.example"}, True),
        ({"header_from": "second@*"}, True),
        ({"header_from": "jo*"}, True),
        ({"header_from": "*smíth*"}, False),  # the address, not the name
        ({"headers": {"subject": "*invoice ä*17"}}, True),
        ({"headers": {"SUBJECT": "your*"}}, True),
        ({"headers": {"subject": "invoice"}}, False),
        ({"headers": {"list-id": "*<other.example.net>"}}, True),
        ({"headers": {"list-id": "*<other.example.net>", "subject": "*"}}, True),
        ({"headers": {"list-id": "*", "x-other": "*"}}, False),
        ({"mail_from": "b-*", "header_from": "*@elsewhere.example"}, False),
        ({"mail_from": "b-*", "header_from": "*@billing.example", "headers": {"subject": "*17"}}, True),
        ({"verified_domain": "billing.example"}, False),
    ],
)
def test_a_rule(rule: dict[str, Any], matches: bool) -> None:
    assert chosen(mail(), rule) == ("Box 0" if matches else None)


@pytest.mark.parametrize(
    "pattern", ["*@bücher.example", "*@XN--bcher-kva.example", "jo@xn--bcher-kva.*", "*@BÜ*"]
)
@pytest.mark.parametrize("sender", ["jo@bücher.example", "jo@xn--bcher-kva.example"])
def test_the_two_spellings_of_a_domain(pattern: str, sender: str) -> None:
    received = mail(f"From: {sender}\r\n\r\n".encode(), sender)
    assert chosen(received, {"mail_from": pattern, "header_from": pattern}) == "Box 0"


@pytest.mark.parametrize(
    ("domain", "auth", "matches"),
    [
        ("billing.example", verified(dkim="pass"), True),
        ("Mail.Billing.example", verified(dkim="pass"), True),
        ("ling.example", verified(dkim="pass"), False),
        ("x.mail.billing.example", verified(dkim="pass"), False),
        ("billing.example", verified(), False),
        ("example.org", verified(spf="pass"), True),
        ("example.org", verified(spf="softfail"), False),
        ("example.org", None, False),
    ],
)
def test_a_verified_domain(domain: str, auth: AuthResults | None, matches: bool) -> None:
    assert chosen(mail(auth=auth), {"verified_domain": domain}) == ("Box 0" if matches else None)


def test_the_first_that_matches_counts() -> None:
    one, two = {"headers": {"subject": "*invoice*"}}, {"header_from": "*"}
    assert chosen(mail(), {"mail_from": "nobody@*"}, one, two) == "Box 1"
    assert chosen(mail(), two, one) == "Box 0"
    assert chosen(mail()) is None


def test_what_a_policy_chose_stays() -> None:
    assert chosen(mail(), {"mail_from": "*"}, chosen="Junk") is None


def test_the_null_sender_and_an_empty_message() -> None:
    assert chosen(mail(sender=""), {"mail_from": "<>"}) == "Box 0"
    assert chosen(mail(), {"mail_from": "<>"}) is None
    assert chosen(mail(b""), {"header_from": "*"}) is None
    assert chosen(mail(b""), {"headers": {"subject": "*"}}) is None


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({}, "a rule needs one of"),
        ({"mail_from": "*", "mailbox": " Orders"}, "no space around"),
        ({"mail_from": "*", "mailbox": "a\nb"}, "printable"),
        ({"mail_from": "*", "mailbox": ""}, "at least 1 character"),
        ({"mail_from": "x" * 201}, "at most 200"),
        ({"headers": {"subject": ""}}, "at least 1 character"),
        ({"verified_domain": "not a domain"}, "domain"),
        ({"from": "*"}, "Extra inputs"),
        ({"headers": {f"x-{n}": "*" for n in range(6)}}, "at most 5"),
    ],
)
def test_refused_rules(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        chosen(mail(), rule)


@given(st.text("ab*", max_size=12), st.text("ab", max_size=12))
def test_a_pattern_is_a_glob(pattern: str, text: str) -> None:
    assert matches_pattern(pattern, text) == fnmatch.fnmatchcase(text, pattern)


def test_hostile_input_takes_no_time() -> None:
    """What would keep a backtracking engine busy for ever; all that is read of it is bounded."""
    rule = {"headers": {f"x-{n}": "*a" * 90 + "*b" for n in range(5)}}
    field = b"a" * LOOKED_AT
    header = b"".join(b"X-%d: %s\r\n" % (n % 5, field) for n in range(500))
    assert len(header) > READ
    with at_most(10_000):
        assert chosen(mail(header), *[rule] * 100) is None
