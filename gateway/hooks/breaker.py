"""Suspends a plugin's hook that fails again and again: a circuit breaker.

After `FAILURES` in a row it is not called for a while; then once, to see. An answer closes the matter,
another failure makes the while twice as long. What the stage does meanwhile is what it does when the plugin
fails, only at once: nobody waits for a time limit each time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import trio

FAILURES = 5  # in a row
FIRST_WAIT, LONGEST_WAIT = 5.0, 300.0  # seconds

COUNTED = ("calls", "failures", "timeouts", "slow", "seconds", "skipped")  # of a Tally

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """What one plugin's implementation of one hook has come to since the gateway started."""

    calls: int = 0
    failures: int = 0  # time-outs included
    timeouts: int = 0
    slow: int = 0  # times that it stopped the event loop for longer than gateway.hooks.calls.SLOW
    seconds: float = 0.0  # altogether
    skipped: int = 0  # calls that were not made, because it was suspended
    in_a_row: int = 0  # failures since it last answered
    again_at: float = 0.0  # of trio's clock: when it may be asked again, if it failed

    @property
    def suspended(self) -> bool:
        return self.in_a_row >= FAILURES

    def with_others(self, others: Iterable[Tally]) -> Tally:
        """The tally of several processes: suspended if any of them has suspended it."""
        together = (self, *others)
        return Tally(
            in_a_row=max(one.in_a_row for one in together),
            **{name: sum(getattr(one, name) for one in together) for name in COUNTED},
        )


def may_ask(tally: Tally, limit: float) -> bool:
    """Whether to call a suspended hook now. If so, others have to wait for what comes of it: at most `limit`
    seconds."""
    now = trio.current_time()
    if now < tally.again_at:
        tally.skipped += 1
        return False
    tally.again_at = now + limit + 1.0
    return True


def note_failure(tally: Tally, label: str) -> None:
    """`label`: whose, for the log."""
    tally.in_a_row += 1
    doublings = min(max(tally.in_a_row - FAILURES, 0), 10)
    wait = min(FIRST_WAIT * (1 << doublings), LONGEST_WAIT)
    tally.again_at = trio.current_time() + wait
    if tally.in_a_row == FAILURES:
        log.error(
            "%s: failed %d times in a row; suspended, and asked again in %g s",
            label,
            FAILURES,
            wait,
        )


def note_answer(tally: Tally, label: str) -> None:
    """To be called when it answered and `in_a_row` is not 0."""
    if tally.suspended:
        log.warning("%s: answers again", label)
    tally.in_a_row, tally.again_at = 0, 0.0
