from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

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
