"""What work costs, told without a clock: in calls of functions, Python's and C's. As many on every machine,
however busy it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import trio

OURS = ("gateway.", "trio._highlevel_serve_listeners.")  # tasks; the second are connections
THE_TESTS = "tests.running.receiving.<locals>.serve"  # the receiver of webhooks, with all that it starts
A_CALL = 1e-6  # seconds that a call takes, by the clock of Turns: near to what it is
A_STALL = (
    100_000  # calls in one step: 0.05 s or so; what is seen is 80,000 and less, what must not be millions
)


class Calls:
    """Counts the calls that this thread makes."""

    made = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._event)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, arg: Any) -> None:
        if event in ("call", "c_call"):
            self.made += 1


class _Steps(trio.abc.Instrument):
    """The longest step of a task of the gateway, in calls."""

    longest, of = 0, ""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._began = calls.made

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = self._calls.made

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        took = self._calls.made - self._began
        if took > self.longest and task.name.startswith(OURS) and not _the_tests(task):
            self.longest, self.of = took, task.name


def _the_tests(task: trio.lowlevel.Task) -> bool:
    above: trio.lowlevel.Task | None = task
    while above is not None and above.name != THE_TESTS:
        above = above.parent_nursery.parent_task if above.parent_nursery is not None else None
    return above is not None


@contextmanager
def never_stalled(most: int = A_STALL) -> Iterator[None]:
    """Fails if a task of the gateway held the event loop for too many calls; the test's own may.

    Long work gives its turns by this measure too.
    """
    with pytest.MonkeyPatch.context() as patch, Calls() as calls:
        patch.setattr("gateway.turns.perf_counter", lambda: calls.made * A_CALL)
        steps = _Steps(calls)
        trio.lowlevel.add_instrument(steps)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(steps)
    assert steps.longest < most, f"{steps.of}: {steps.longest:,} calls"
