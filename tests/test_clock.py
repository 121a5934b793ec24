"""The clock: it follows the wall clock slowly, never goes back, and says when the wall clock jumps."""

from __future__ import annotations

import logging
import random
from datetime import UTC, datetime, timedelta

import pytest
import trio
import trio.testing

from gateway.clock import INTERVAL, Clock, ManualClock

START = 1_900_000_000.0  # seconds since 1970


class Machine:
    """A machine's two clocks."""

    def __init__(self) -> None:
        self.wall = START
        self.uptime = 77.0
        self.clock = Clock(wall=lambda: self.wall, monotonic=lambda: self.uptime)

    def run(self, seconds: float, *, rate: float = 1.0) -> None:
        """Time passes; `rate` is how fast the wall clock counts it."""
        self.uptime += seconds
        self.wall += seconds * rate

    @property
    def ahead(self) -> float:
        """How far the clock is ahead of the wall clock, in seconds."""
        return self.clock.timestamp() - self.wall


def test_starts_at_wall_time_in_utc() -> None:
    machine = Machine()
    assert machine.clock.now() == datetime.fromtimestamp(START, UTC)
    assert machine.clock.now().tzinfo is UTC
    machine.run(2.5)
    assert machine.clock.now() == datetime.fromtimestamp(START + 2.5, UTC)


def test_the_real_clock_tells_the_time() -> None:
    assert abs(Clock().now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_jump_does_not_show_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    machine.run(60)
    machine.wall += 3600
    before = machine.clock.timestamp()
    with caplog.at_level(logging.WARNING):
        machine.clock.correct()
        assert machine.clock.timestamp() == before
        assert "jumped by +3600.0 s" in caplog.text
        caplog.clear()
        for _ in range(5):
            machine.run(INTERVAL)
            machine.clock.correct()
        assert not caplog.records
    # Six seconds in a minute.
    assert machine.ahead == pytest.approx(-3600 + 5 * 6)


@pytest.mark.parametrize("jump", [-7200.0, -30.0, 30.0, 7200.0])
def test_time_never_goes_back_and_comes_right(jump: float) -> None:
    machine = Machine()
    machine.wall += jump
    last = machine.clock.now()
    for _ in range(int(30 * 3600 / INTERVAL)):
        machine.clock.correct()
        for _ in range(2):
            machine.run(INTERVAL / 2)
            now = machine.clock.now()
            assert now > last
            last = now
    assert machine.ahead == pytest.approx(0, abs=0.001)


def test_drift_is_made_up_for_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    for _ in range(24 * 60):
        machine.run(INTERVAL, rate=1.0001)  # 8.6 s in a day
        machine.clock.correct()
    assert abs(machine.ahead) < 0.1
    assert not caplog.records


def test_late_look_does_not_overshoot() -> None:
    machine = Machine()
    machine.wall += 30
    machine.clock.correct()
    machine.run(24 * 3600)  # the loop stood still
    assert machine.ahead == pytest.approx(-27)


async def test_serve_corrects_once_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    looks = 0

    def wall() -> float:
        nonlocal looks
        looks += 1
        return START + trio.current_time()

    clock = Clock(wall=wall, monotonic=trio.current_time)
    async with trio.open_nursery() as nursery:
        await nursery.start(clock.serve)
        await trio.sleep(10 * INTERVAL + 1)
        nursery.cancel_scope.cancel()
    assert looks == 11


def test_manual_clock_moves_when_told() -> None:
    clock = ManualClock()
    start = clock.now()
    assert clock.now() == start
    assert clock.advance(1.5) == start + timedelta(seconds=1.5)
    clock.advance(timedelta(hours=1))
    assert clock.now() == start + timedelta(hours=1, seconds=1.5)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_a_manual_clock_is_exact() -> None:
    """After hours in odd steps, too: with sums of floats one such walk in twenty ends beside its mark."""
    steps = random.Random(1)
    for _ in range(300):
        clock, passed = ManualClock(), timedelta()
        start = clock.now()
        for _ in range(14):
            step = timedelta(microseconds=steps.randrange(10**9, 6 * 10**10))
            clock.advance(step)
            passed += step
        assert clock.now() - start == passed


def test_another_process_goes_on_with_the_time(caplog: pytest.LogCaptureFixture) -> None:
    """As it was slowly corrected, and nothing is said again of a jump that is known."""
    machine = Machine()
    machine.wall += 3600
    machine.clock.correct()
    machine.run(INTERVAL / 2)
    caplog.clear()
    other = Clock(lambda: machine.wall, lambda: machine.uptime, pace=machine.clock.pace)
    for _ in range(3):
        assert other.now() == machine.clock.now()
        machine.run(INTERVAL)
        machine.clock.correct()
        other.correct()
    assert not caplog.records
