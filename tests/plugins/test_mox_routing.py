from __future__ import annotations

import pytest

from gateway import Address, Route, RouteRule
from gateway_mox.routing import route
from tests.plugins.mox_messages import message


def asked(
    *rules: RouteRule, sender: str = "me@example.com", to: str = "you@example.org", attempts: int = 1
) -> str:
    chosen = route(
        message(
            sender=Address.parse(sender) if sender else None, recipient=Address.parse(to), attempts=attempts
        ),
        rules,
    )
    return "" if chosen is None else chosen.transport


def test_the_first_match_wins() -> None:
    rules = [
        RouteRule(transport="no", to_domains=("example.net",)),
        RouteRule(transport="first"),
        RouteRule(transport="second"),
    ]
    assert route(message(), rules) == Route("first")


def test_without_a_match_another_plugin_is_asked() -> None:
    assert route(message(), []) is None
    assert asked(RouteRule(transport="x", from_domains=("example.net",))) == ""


@pytest.mark.parametrize(
    ("pattern", "domain", "matches"),
    [
        ("example.org", "example.org", True),
        ("example.org", "EXAMPLE.org", True),
        ("example.org", "sub.example.org", False),
        ("example.org", "notexample.org", False),
        (".example.org", "example.org", True),
        (".example.org", "sub.example.org", True),
        (".example.org", "a.b.example.org", True),
        (".example.org", "notexample.org", False),
        (".example.org", "example.org.evil.net", False),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("[192.0.2.1]", "[192.0.2.1]", True),
    ],
)
def test_domains(pattern: str, domain: str, matches: bool) -> None:
    by_recipient = RouteRule(transport="x", to_domains=("other.example", pattern))
    assert (asked(by_recipient, to=f"you@{domain}") == "x") is matches
    by_sender = RouteRule(transport="x", from_domains=("other.example", pattern))
    assert (asked(by_sender, sender=f"me@{domain}") == "x") is matches


def test_the_null_sender_is_of_no_domain() -> None:
    assert asked(RouteRule(transport="x", from_domains=(".example.com",)), sender="") == ""
    assert asked(RouteRule(transport="x"), sender="") == "x"


def test_all_conditions_must_hold() -> None:
    rule = RouteRule(
        transport="x", from_domains=("example.com",), to_domains=("example.org",), minimum_attempts=2
    )
    assert asked(rule, attempts=3) == "x"
    assert asked(rule, attempts=3, to="you@example.net") == ""
    assert asked(rule, attempts=3, sender="me@example.net") == ""


@pytest.mark.parametrize(("attempts", "matches"), [(1, False), (2, False), (3, True), (4, True)])
def test_the_attempt_under_way_is_no_earlier_one(attempts: int, matches: bool) -> None:
    assert (asked(RouteRule(transport="x", minimum_attempts=2), attempts=attempts) == "x") is matches
