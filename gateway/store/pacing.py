"""When the threads of the store run, and when the loop: they share the interpreter."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

TURNS_TOGETHER = 2  # of a busy loop until the writer starts: who was woken for a write has handed in his own
BUSY_TURNS = 4  # of the loop without a rest, before it gives way: answering a caller takes two or three


class GiveWay(trio.abc.Instrument):
    """Lets threads have their turn while the loop is busy.

    A busy loop lets go of the interpreter's lock for a microsecond each turn, to look for I/O. That is too
    short for a waiting thread to take it, and keeps its time limit (sys.setswitchinterval) from running
    out: a write took up to two seconds. A sleep of any length is long enough.
    """

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self._wanted = wanted
        self._busy_turns = 0  # one after the other

    def before_io_wait(self, timeout: float) -> None:
        self._busy_turns = self._busy_turns + 1 if timeout <= 0 else 0
        if self._busy_turns > BUSY_TURNS and self._wanted():
            time.sleep(1e-6)  # seconds; the system makes it some 60 microseconds


class StartTogether(trio.abc.Instrument):
    """Starts the writer when the loop has nothing else to do, or after a few turns.

    So writes that belong together share a transaction, such as that of a message and the claim that takes it;
    and the writer's thread does not begin to compete for the interpreter with those who hand them in.
    """

    def __init__(self, start: Callable[[], None]) -> None:
        self._start = start
        self._turns = 0  # that may still pass; 0 when no write waits for its start

    @property
    def waiting(self) -> bool:
        return self._turns > 0

    def expect(self) -> None:
        """A write was handed in."""
        self._turns = self._turns or TURNS_TOGETHER

    def before_io_wait(self, timeout: float) -> None:
        if self._turns:
            self._turns = self._turns - 1 if timeout <= 0 else 0
            if not self._turns:
                self._start()
