from collections import Counter

import pytest
from gateway_failover import Failover, FailoverSettings, in_shares
from pydantic import ValidationError

from gateway import Route
from gateway.testing import queued_message, temporary

SETTINGS = FailoverSettings(
    transports={
        "example.com": ("partner", "smarthost"),
        ".example.net": ("net",),
        ".lab.example.net": ("lab",),
        "google": {"first": 3, "second": 1},
    },
    providers={"google": ("gmail.com", ".google.com")},
    attempts=2,
)


@pytest.mark.parametrize(
    ("attempt", "transport"),
    [(1, "partner"), (2, "partner"), (3, "smarthost"), (4, "smarthost"), (9, "smarthost")],
)
def test_each_transport_has_its_attempts(attempt, transport):
    message = queued_message("ada@example.com", attempts=attempt)
    assert Failover().route(message, SETTINGS) == Route(transport)


@pytest.mark.parametrize(
    ("domain", "transport"),
    [
        ("example.net", "net"),
        ("mx.example.net", "net"),
        ("lab.example.net", "lab"),
        ("a.b.lab.example.net", "lab"),
        ("sub.example.com", None),
        ("notexample.net", None),
        ("example.org", None),
    ],
)
def test_domains(domain, transport):
    found = Failover().route(queued_message(f"ada@{domain}"), SETTINGS)
    assert found == (Route(transport) if transport else None)


@pytest.mark.parametrize("domain", ["gmail.com", "google.com", "mail.google.com"])
def test_a_provider_s_mail_goes_out_in_shares(domain):
    first, then = Counter(), Counter()
    for number in range(2000):
        message = queued_message(f"ada@{domain}", id=number)
        route = Failover().route(message, SETTINGS)
        again = Failover().route(queued_message(f"ada@{domain}", id=number, attempts=2), SETTINGS)
        after = Failover().route(queued_message(f"ada@{domain}", id=number, attempts=3), SETTINGS)
        assert again == route
        assert after != route
        first[route.transport] += 1
        then[after.transport] += 1
    assert 1400 < first["first"] < 1600  # three of four
    assert then["second"] == first["first"]


def test_one_that_is_taken_out_moves_nothing_else():
    all_three, two = {"a": 1, "b": 1, "c": 2}, {"a": 1, "b": 1}
    for key in map(str, range(300)):
        assert [one for one in in_shares(all_three, key) if one != "c"] == in_shares(two, key)


async def test_a_message_takes_the_other_way(mail_gateway):
    settings = {"example.failover": {"transports": {".example.com": ["partner", "smarthost"]}}}
    transports = ("usual", "partner", "smarthost")
    async with mail_gateway("example.failover", settings=settings, transports=transports) as gateway:
        gateway.transport("partner").answer(temporary(451))
        await gateway.deliver(to="ada@mail.example.com")
        happened = await gateway.advance(3600)
        used = [attempt.transport for attempt in happened["ada@mail.example.com"].attempts]
        assert used == ["partner", "smarthost"]
        happened = await gateway.deliver(to="ada@example.org")
        assert happened.handed_over[0].transport == "usual"


def test_wrong_settings():
    for wrong in ({"attempts": 0}, {"transports": {"example.com": ()}}, {"transports": {"x": {"a": 0}}}):
        with pytest.raises(ValidationError):
            FailoverSettings(**wrong)
