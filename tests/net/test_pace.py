"""How limits slow down and recover, without waiting."""

from __future__ import annotations

from math import inf

import pytest

from gateway import Limits
from gateway.net.pace import SETTLE, Pace


@pytest.mark.parametrize(
    ("limit", "open_now", "slowed", "allowed"),
    [
        (20, 0, 0, 20),
        (20, 20, 1, 10),
        (20, 20, 2, 5),
        (20, 20, 10, 1),  # never less than one
        (20, 6, 1, 3),  # half of what is open, not of what would have been allowed
        (20, 1, 1, 1),
        (20, 0, 1, 1),
        (1, 1, 3, 1),
        (0, 8, 0, inf),
        (0, 8, 1, 4),
    ],
)
def test_connections_are_halved(limit: int, open_now: int, slowed: int, allowed: float) -> None:
    pace = Pace(Limits(connections=limit), open=open_now)
    for number in range(slowed):
        assert pace.slow_down(number * SETTLE)
    assert pace.connections == allowed
    assert pace.slow == (allowed < (limit or inf))
    assert pace.room == (open_now + 1 <= allowed)


@pytest.mark.parametrize(
    ("limit", "slowed", "allowed"),
    [(600.0, 1, 300.0), (600.0, 3, 75.0), (600.0, 20, 1.0), (1.5, 5, 1.0), (0.25, 3, 0.25), (0.0, 2, inf)],
)
def test_the_rate_is_halved(limit: float, slowed: int, allowed: float) -> None:
    pace = Pace(Limits(per_minute=limit))
    for number in range(slowed):
        pace.slow_down(number * SETTLE)
    assert pace.per_minute == allowed


def test_what_was_under_way_when_it_was_slowed_down_says_nothing() -> None:
    pace = Pace(Limits(connections=16, per_minute=160), open=16)
    told = [pace.slow_down(100.0 + seconds) for seconds in (0, 0, 0.1, 5, SETTLE - 0.1)]
    assert told == [True, False, False, False, False]
    assert (pace.connections, pace.per_minute) == (8, 80)
    assert pace.slow_down(100.0 + SETTLE)
    assert (pace.connections, pace.per_minute) == (4, 40)


def test_connections_recover_one_by_one() -> None:
    """With N connections, N messages bring one more."""
    pace = Pace(Limits(connections=5), open=2)
    pace.slow_down(0)
    assert pace.connections == 1
    needed = []
    for more in (2, 3, 4, 5):
        count = 0
        while pace.connections < more:
            pace.recover()
            count += 1
        needed.append(count)
    assert all(expected <= count <= expected + 1 for expected, count in enumerate(needed, 1))  # rounding
    for _ in range(10):
        pace.recover()
    assert (pace.connections, pace.slow) == (5, False)


def test_without_a_limit_it_recovers_to_what_was_open() -> None:
    pace = Pace(Limits(), open=8)
    pace.slow_down(0)
    pace.open = 4
    pace.slow_down(SETTLE)
    assert pace.connections == 2
    for _ in range(2 + 3 + 4 + 5 + 6 + 7 + 6):
        pace.recover()
    assert (pace.connections, pace.slow) == (inf, False)


def test_the_rate_recovers_a_tenth_in_a_minute() -> None:
    pace = Pace(Limits(per_minute=600), open=1)
    pace.slow_down(0)
    for _ in range(4):
        before = pace.per_minute
        for _ in range(int(before)):
            pace.recover()
        assert pace.per_minute == pytest.approx(before + 60, rel=0.02)
    for _ in range(1200):
        pace.recover()
    assert (pace.per_minute, pace.slow) == (600, False)


def test_messages_go_at_even_intervals() -> None:
    pace = Pace(Limits(per_minute=60))
    waits = []
    for now in (0.0, 0.0, 0.5, 10.0, 10.0):
        waits.append(pace.until_next(now))
        pace.take_turn(now)
    assert waits == [0.0, 1.0, 1.5, 0.0, 1.0]  # nothing is saved up while nothing is sent


def test_in_no_minute_there_are_more_than_allowed() -> None:
    pace = Pace(Limits(per_minute=90))
    gone = []
    for second in range(300):
        for _ in range(3):
            if not pace.until_next(second):
                pace.take_turn(second)
                gone.append(second)
    assert len(gone) > 5 * 60 * 0.9
    assert all(sum(start <= at < start + 60 for at in gone) <= 90 for start in range(240))


def test_other_limits_begin_anew_and_the_same_do_not() -> None:
    pace = Pace(Limits(connections=8), open=8)
    pace.slow_down(0)
    pace.adopt(Limits(connections=8))
    assert pace.connections == 4
    pace.adopt(Limits(connections=6, per_minute=30))
    assert (pace.connections, pace.per_minute, pace.open) == (6, 30, 8)
