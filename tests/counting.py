"""What work costs, told without a clock: in calls of functions, Python's and C's. As many on every machine,
however busy it is."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import pytest
import trio

OURS = ("gateway.", "trio._highlevel_serve_listeners.")  # tasks; the second are connections
THE_TESTS = "tests.running.receiving.<locals>.serve"  # the receiver of webhooks, with all that it starts
AGES = 60  # seconds
A_CALL = 1e-6  # seconds that a call takes, by the clock of Turns: near to what it is
A_STALL = (
    100_000  # calls in one step: 0.05 s or so; what is seen is 80,000 and less, what must not be millions
)


class Calls:
    """Counts the calls that this thread makes. With more than `limit` it fails at once."""

    def __init__(self, limit: float = math.inf) -> None:
        self.made, self._limit = 0, limit

    def __enter__(self) -> Calls:
        sys.setprofile(self._event)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, arg: Any) -> None:
        if event in ("call", "c_call"):
            self.made += 1
            if self.made > self._limit:
                pytest.fail(f"more than {self._limit:,} calls")


class _Steps(trio.abc.Instrument):
    """How many steps tasks took, and the longest, in calls."""

    taken, longest, of = 0, 0, ""

    def __init__(self, calls: Calls, of: tuple[str, ...]) -> None:
        self._calls, self._tasks = calls, of
        self._began = calls.made

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = self._calls.made

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        took = self._calls.made - self._began
        if task.name.startswith(self._tasks) and not _the_tests(task):
            self.taken += 1
            if took > self.longest:
                self.longest, self.of = took, task.name


def _the_tests(task: trio.lowlevel.Task) -> bool:
    above: trio.lowlevel.Task | None = task
    while above is not None and above.name != THE_TESTS:
        above = above.parent_nursery.parent_task if above.parent_nursery is not None else None
    return above is not None


@contextmanager
def never_stalled(of: tuple[str, ...] = OURS) -> Iterator[_Steps]:
    """Fails if one of these tasks (their names' beginnings) held the event loop for too many calls.

    Long work gives its turns by this measure too.
    """
    with pytest.MonkeyPatch.context() as patch, Calls() as calls:
        patch.setattr("gateway.turns.perf_counter", lambda: calls.made * A_CALL)
        steps = _Steps(calls, of)
        trio.lowlevel.add_instrument(steps)
        try:
            yield steps
        finally:
            trio.lowlevel.remove_instrument(steps)
    assert steps.longest < A_STALL, f"{steps.of}: {steps.longest:,} calls"


@contextmanager
def at_most(calls: int) -> Iterator[None]:
    """Fails if the block makes more calls, or takes ages within one of them."""
    with without_ages(), Calls(calls) as made:
        yield
    assert made.made <= calls, f"{made.made:,} calls"


@contextmanager
def without_ages() -> Iterator[None]:
    """Fails if the block takes ages: more processor time than what is linear takes on any machine.

    For so much data that what is quadratic would take minutes or hours, in a pattern or in a loop.
    What looks at no signal, as some patterns' search, ends with the process.
    """

    def ages(*signal: object) -> NoReturn:
        pytest.fail(f"takes more than {AGES} s of processor time")

    before = signal.signal(signal.SIGPROF, ages)
    signal.setitimer(signal.ITIMER_PROF, AGES)
    signal.setitimer(signal.ITIMER_VIRTUAL, AGES + 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGPROF, before)
