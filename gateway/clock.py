"""The gateway's time: one Clock, made at start and passed to whatever asks what time it is.

It is the wall time of the start plus the time that has passed since then, so that it never goes back and
never jumps: a lease does not expire, and a message is not due, because somebody set the machine's clock.
What the wall clock says otherwise is made up for slowly, and a jump of it is logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Never

import trio

log = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds between two looks at the wall clock
SETTLE = 600.0  # seconds: a look makes up for a tenth of the difference until the next one
MAX_SLEW = 0.1  # seconds in a second: an hour's difference is gone after ten hours
JUMP = 1.0  # seconds: a larger change of the difference between two looks is logged


def _elapsed() -> float:
    """Seconds that have passed, those that the machine slept included where the system counts them."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Pace(NamedTuple):
    """How a clock goes until it looks at the wall clock again. Any process of a machine can go on with it."""

    time: float  # at the reading
    reading: float  # monotonic
    slew: float
    expected: float = 0.0  # what the difference to the wall clock is at the next look if nothing jumps


class Clock:
    """Tells the time, as aware datetimes in UTC. `now` may be called from any thread.

    `wall` answers seconds since 1970; `monotonic` answers seconds since any moment and never goes back.
    To have the gateway's time follow a trio MockClock, give `monotonic=trio.current_time`. `pace`: of another
    process's clock, to tell the same time, whatever the wall clock says by now.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = _elapsed,
        pace: Pace | None = None,
    ) -> None:
        self._wall = wall
        self._elapsed = monotonic
        # Replaced whole, so that a thread sees all of it or nothing.
        self.pace = pace or Pace(wall(), monotonic(), 0.0)

    def monotonic(self) -> float:
        """Seconds since any moment, for durations."""
        return self._elapsed()

    def timestamp(self) -> float:
        """Seconds since 1970."""
        return self._at(self._elapsed())

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.timestamp(), UTC)

    def correct(self) -> None:
        """Looks at the wall clock, and makes up for a part of the difference until the next look."""
        reading = self._elapsed()
        here = self._at(reading)
        difference = self._wall() - here
        jump = difference - self.pace.expected
        if abs(jump) > JUMP:
            log.warning(
                "the machine's clock jumped by %+.1f s; the gateway's time follows at no more than %d s "
                "in a minute (a restart takes it over at once)",
                jump,
                MAX_SLEW * 60,
            )
        slew = max(-MAX_SLEW, min(MAX_SLEW, difference / SETTLE))
        self.pace = Pace(here, reading, slew, expected=difference - slew * INTERVAL)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> Never:
        """Corrects the time once a minute, for ever."""
        task_status.started()
        while True:
            await trio.sleep(INTERVAL)
            self.correct()

    def _at(self, reading: float) -> float:
        start, since, slew, _ = self.pace
        passed = reading - since
        # A look that comes late must not make up for more than it found.
        return start + passed + slew * min(passed, INTERVAL)


class ManualClock(Clock):
    """A Clock that stands still until it is told to move: for tests."""

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        # Whole microseconds: sums of floats would end a microsecond before the time that was meant.
        self._microseconds = round(start.timestamp() * 1e6)
        super().__init__(wall=self._time, monotonic=self._time)

    def _time(self) -> float:
        return self._microseconds / 1e6

    def advance(self, seconds: float | timedelta) -> datetime:
        """Moves the time on, and answers it."""
        passed = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
        if passed < timedelta():
            raise ValueError("time does not go back")
        self._microseconds += passed // timedelta(microseconds=1)
        return self.now()
