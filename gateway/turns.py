"""Long work on the event loop, in pieces: whoever else waits has a turn now and then.

A turn of the loop costs some ten microseconds, so one after each piece of work would be dear where the pieces
are short.
"""

from __future__ import annotations

from time import perf_counter

import trio

EVERY = 0.002  # seconds of work; small beside what a call takes that waits meanwhile


class Turns:
    """Of one piece of long work. Ask it between two steps."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = perf_counter()

    async def give(self) -> None:
        """Lets the loop turn if that is some time ago. Only then is it a checkpoint."""
        if self._due():
            await trio.lowlevel.checkpoint()
            self._last = perf_counter()

    async def give_shielded(self) -> None:
        """The same, where the work must not be cancelled."""
        if self._due():
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._last = perf_counter()

    def _due(self) -> bool:
        return perf_counter() - self._last >= EVERY
