"""Why a message came back: words, codes, and what is stronger."""

from __future__ import annotations

import pytest

from gateway.mail.bounce_class import MAX_TEXT, FailureClass, by_words, classify, is_permanent
from tests.counting import at_most

WORDS: list[tuple[str, FailureClass]] = [
    ("User unknown", "bad-mailbox"),
    ("No such user here", "bad-mailbox"),
    ("The email account that you tried to reach does not exist.", "bad-mailbox"),
    ("Recipient address rejected: undeliverable address", "bad-mailbox"),
    ("mailbox unavailable", "bad-mailbox"),
    ("This account has been disabled or discontinued", "bad-mailbox"),
    ("sorry, no mailbox here by that name", "bad-mailbox"),
    ("Host unknown (Name server: example.net.: host not found)", "bad-domain"),
    ("Host or domain name not found. Name service error for name=example.net", "bad-domain"),
    ("DNS type 'mx' lookup of example.net responded with code NXDOMAIN", "bad-domain"),
    ("Mailbox full", "full"),
    ("User is over quota", "full"),
    ("mailbox for ada is full", "full"),
    ("The user has exceeded his storage", "full"),
    ("Insufficient system storage", "full"),
    ("Client host [192.0.2.1] blocked using bl.example.net", "blocked"),
    ("Your IP is on a blacklist", "blocked"),
    ("very low reputation of the sending IP address", "blocked"),
    ("Reverse DNS lookup for host failed", "blocked"),
    ("Message content rejected, UBE", "content"),
    ("This message contains a virus", "content"),
    ("Message too large", "content"),
    ("message size exceeds fixed maximum message size", "content"),
    ("rejected as spam", "content"),
    ("rejected due to the domain's DMARC policy", "policy"),
    ("Sender address rejected", "policy"),
    ("Not authorized to send to this group", "policy"),
    ("Access denied", "policy"),
    ("Relaying denied", "relaying"),
    ("Relay access denied", "relaying"),
    ("unable to relay for ada@example.net", "relaying"),
    ("message expired", "expired"),
    ("retry timeout exceeded", "expired"),
    ("Connection timed out", "expired"),
    ("Connection refused", "expired"),
    ("this message has been in the queue too long", "expired"),
    ("try again later", "temporary"),
    ("Greylisted", "temporary"),
    ("Too many recipients", "temporary"),
    ("Syntax error in parameters", "protocol"),
    ("too many hops", "protocol"),
    ("", "unknown"),
    ("Requested action not taken", "unknown"),
]


@pytest.mark.parametrize(("text", "expected"), WORDS, ids=[text[:30] for text, _ in WORDS])
def test_words(text: str, expected: FailureClass) -> None:
    assert by_words(text) == expected
    assert by_words(f"the server said: {text.upper()}") == expected
    assert classify(f"550 {text}", code=550) == expected


CODES: list[tuple[str, int, str, FailureClass]] = [
    ("no", 550, "5.1.1", "bad-mailbox"),
    ("no", 550, "5.1.2", "bad-domain"),
    ("no", 552, "5.2.2", "full"),
    ("no", 0, "5.2.2", "full"),
    ("no", 552, "", "full"),
    ("no", 552, "5.3.4", "content"),
    ("no", 550, "5.7.1", "policy"),
    ("no", 550, "5.7.25", "blocked"),
    ("no", 0, "4.4.1", "expired"),
    ("no", 0, "4.4.7", "expired"),
    ("no", 500, "5.4.4", "bad-domain"),
    ("no", 451, "", "temporary"),
    ("no", 451, "4.0.0", "temporary"),
    ("no", 503, "", "protocol"),
    ("no", 550, "5.0.0", "unknown"),
    ("no", 550, "", "unknown"),
    ("no", 0, "", "unknown"),
    # A plain status is believed, but for words that are plainer.
    ("550 5.1.1 spam is not what this is about", 550, "5.1.1", "bad-mailbox"),
    ("550 5.1.1 your IP is on a blacklist", 550, "5.1.1", "blocked"),
    ("550 5.1.1 mailbox full", 550, "5.1.1", "full"),
    ("550 5.7.1 user unknown", 550, "5.7.1", "bad-mailbox"),
    # What the server that refused says counts, not what is said around it.
    ("Connected to mx but sender was rejected. It said: 550 mailbox full", 550, "", "full"),
    ("the mailbox is full: 550 no", 550, "", "full"),
]


@pytest.mark.parametrize(("text", "code", "enhanced", "expected"), CODES)
def test_codes(text: str, code: int, enhanced: str, expected: FailureClass) -> None:
    assert classify(text, code=code, enhanced=enhanced) == expected


@pytest.mark.parametrize(
    ("text", "action", "code", "enhanced", "expected"),
    [
        ("", "failed", 550, "5.1.1", True),
        ("", "failed", 550, "4.4.7", False),
        ("", "failed", 421, "", False),
        ("", "failed", 500, "", True),
        ("temporarily", "failed", 550, "", True),
        ("", "failed", 0, "", True),
        ("temporarily out of order", "failed", 0, "", False),
        ("", "delayed", 550, "5.1.1", False),
        ("", "delivered", 250, "2.0.0", False),
    ],
)
def test_whether_it_is_permanent(text: str, action: str, code: int, enhanced: str, expected: bool) -> None:
    assert is_permanent(text, action=action, code=code, enhanced=enhanced) is expected


@pytest.mark.parametrize("piece", ["user ", "a", "not ", "mailbox host domain address message ", " ", "5"])
def test_long_texts_take_no_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    with at_most(1_000):
        classify(text, code=550)
    assert classify(" " * MAX_TEXT + "user unknown") == "unknown"
