"""mox.base_address, mox.suppressed and mox.suppress, as functions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import Address, Earlier, FailureSource, Outcome, Suppress, Suppression
from gateway.mail.address import MAX_LOCALPART, AddressError
from gateway_mox.base_address import base_address
from gateway_mox.suppress import suppress
from gateway_mox.suppressed import suppressed

TIME = datetime(2030, 1, 1, tzinfo=UTC)
ENTRY = Suppression(
    id=1,
    created=TIME,
    account="a",
    base_address="you@example.org",
    original_address="you@example.org",
    manual=False,
    reason="",
    expires=None,
)


@pytest.mark.parametrize(
    ("address", "base"),
    [
        ("you@example.org", "you@example.org"),
        ("YOU@Example.ORG", "you@example.org"),
        ("you+news@example.org", "you@example.org"),
        ("you+a-b+c@example.org", "you@example.org"),
        ("you-news@example.org", "you@example.org"),
        ("you-a+b-c@example.org", "you@example.org"),
        ("Y.o.u@example.org", "you@example.org"),
        ("y.ou-x+z@example.org", "you@example.org"),
        # Nothing is left.
        ("+You@example.org", "+you@example.org"),
        ("-a.B@example.org", "-a.b@example.org"),
        ("-+@example.org", "-+@example.org"),
        ('"..+a"@example.org', '"..+a"@example.org'),
        # What is no ASCII, and the domain, stay as they are.
        ("Jürgen.Ö@bücher.example", "jürgenö@bücher.example"),
        ("you@[192.0.2.1]", "you@[192.0.2.1]"),
        ('"a b"@example.org', '"a b"@example.org'),
        # The small form of one letter is longer, and all of them would be too long.
        ("İ@example.org", "i̇@example.org"),
        ("İ" * 64 + "@example.org", "İ" * 64 + "@example.org"),
        (".".join("İ" * 42) + "+@example.org", "i̇" * 42 + "@example.org"),
        ("İ" * 62 + "+x@example.org", "İ" * 62 + "@example.org"),
        ("+" + "İ" * 63 + "@example.org", "+" + "İ" * 63 + "@example.org"),
    ],
)
def test_base_address(address: str, base: str) -> None:
    found = base_address(Address.parse(address))
    assert str(found) == base
    assert base_address(found) == found


_LETTERS = st.characters(codec="utf-8") | st.sampled_from("İẞΣǅK\u0301\u0345+-. A")


@given(text=st.text(_LETTERS, max_size=MAX_LOCALPART), fill=st.booleans())
@example(text="İ", fill=True)
def test_every_address_has_a_base_address(text: str, fill: bool) -> None:
    times = MAX_LOCALPART // len(text.encode()) if text and fill else 1
    try:
        address = Address(text * times, "example.org")
    except AddressError:
        return
    base = base_address(address)
    assert base_address(base) == base


def test_suppressed() -> None:
    assert suppressed(ENTRY) is True
    assert suppressed(None) is None


def earlier(*successes: bool) -> list[Earlier]:
    return [Earlier(id=9 - n, time=TIME, success=success) for n, success in enumerate(successes)]


def failure(code: int, enhanced: str = "") -> Outcome:
    return Outcome.permanent("no", code=code, enhanced=enhanced)


@pytest.mark.parametrize(
    ("code", "enhanced", "at_once"),
    [
        *((code, "", True) for code in (521, 550, 551, 553, 556)),
        *((code, "5.0.0", False) for code in (500, 501, 552, 554, 555, 557)),
        *((554, f"5.{detail}", True) for detail in ("1.1", "1.2", "1.3", "1.6", "2.1", "7.1")),
        *((554, f"5.{detail}", False) for detail in ("1.4", "1.10", "1.0", "2.2", "7.0", "7.10", "11.1")),
        (550, "5.7.30", True),
        (554, "1.1", False),
        (450, "4.1.1", False),
        (421, "", False),
    ],
)
def test_what_suppresses_at_once(code: int, enhanced: str, at_once: bool) -> None:
    answer = suppress(failure(code, enhanced), "queue", [])
    said = f"{code} {enhanced}".strip()
    assert answer == (Suppress(f"failure reported by the queue: {said}") if at_once else None)


@pytest.mark.parametrize(
    ("successes", "third"),
    [
        ((), False),
        ((False,), False),
        ((False, False), True),
        ((False, True), False),
        ((True, False), False),
        ((False, False, True), True),
        ((True, False, False), False),
    ],
)
@pytest.mark.parametrize("source", ["queue", "dsn"])
def test_the_rule_of_three(successes: tuple[bool, ...], third: bool, source: FailureSource) -> None:
    answer = suppress(failure(451, "4.7.1"), source, earlier(*successes))
    teller = {"queue": "the queue", "dsn": "a DSN"}[source]
    reason = f"3 failures in a row, the last reported by {teller}: 451 4.7.1"
    assert answer == (Suppress(reason) if third else None)


def test_a_failure_without_a_code_says_nothing() -> None:
    assert suppress(failure(0, "5.1.1"), "queue", earlier(False, False)) is None


def test_what_was_refused_for_another_reason_says_nothing_of_the_recipient() -> None:
    refused = replace(failure(550, "5.7.1"), about_recipient=False)
    assert suppress(refused, "queue", earlier(False, False)) is None


def test_a_complaint() -> None:
    """At once, and without a code."""
    complained = Outcome.permanent("complaint: abuse, by Loop/1.0")
    assert suppress(complained, "complaint", ()) == Suppress("complaint: abuse, by Loop/1.0")
    assert suppress(complained, "dsn", ()) is None
