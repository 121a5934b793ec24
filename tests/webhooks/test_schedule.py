from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.webhooks import schedule
from gateway.webhooks.schedule import MAX_ATTEMPTS, next_attempt, random_spread

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MINUTES = [1, 2, 4, 7.5, 15, 30, 60, 120, 240, 480, 960]


@pytest.mark.parametrize(("attempts", "minutes"), [*enumerate(MINUTES, start=1)])
def test_intervals_are_those_of_the_specification(attempts: int, minutes: float) -> None:
    assert next_attempt(attempts, NOW, 0.0) == NOW + timedelta(minutes=minutes)


@pytest.mark.parametrize("spread", [-1.0, 0.5, 1.0])
def test_jitter_is_one_percent_of_the_interval(spread: float) -> None:
    assert next_attempt(11, NOW, spread) == NOW + timedelta(hours=16) * (1 + spread / 100)


def test_after_the_twelfth_attempt_there_is_none() -> None:
    assert MAX_ATTEMPTS == 12
    assert next_attempt(11, NOW, 0.0) is not None
    assert next_attempt(12, NOW, 0.0) is None
    assert next_attempt(10**9, NOW, 0.0) is None


def test_spread_goes_both_ways_and_stays_in_bounds() -> None:
    spreads = [random_spread() for _ in range(200)]
    assert all(-1 <= spread <= 1 for spread in spreads)
    assert min(spreads) < 0 < max(spreads)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Wed, 02 Jan 2030 03:04:45 GMT", 40),
        ("Wed, 02 Jan 2030 03:00:00 GMT", 0),
        ("", 0),
        ("-5", 0),
        ("soon", 0),
        ("1e3", 0),
        ("٣", 0),
        ("9" * 5000, 9_999_999_999),
        ("Wed, 02 Jan 2030 03:04:45 +9999", 0),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    now = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert schedule.wanted_wait(text, now) == seconds


def test_a_receiver_may_want_more_time_but_not_less_and_not_for_ever() -> None:
    now = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    for wanted, seconds in ((0.0, 60), (30.0, 60), (90.0, 90), (1e9, 16 * 3600)):
        assert schedule.next_attempt(1, now, 0.0, wanted) == now + timedelta(seconds=seconds)
    assert schedule.next_attempt(schedule.MAX_ATTEMPTS, now, 0.0, 90.0) is None


def test_which_answers_pause_a_url() -> None:
    for code, wait, seconds in ((429, 0.0, 60), (429, 5.0, 5), (503, 0.0, 0), (503, 5.0, 5), (500, 5.0, 0)):
        assert schedule.pause(code, wait) == seconds
    assert schedule.pause(429, 1e9) == 16 * 3600
