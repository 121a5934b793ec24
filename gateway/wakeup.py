"""A hint that there may be something to do.

Schedulers poll; a hint only makes them look earlier, so one that is lost costs time and never progress.
"""

from __future__ import annotations

import trio


class Bell:
    """A hint to all who wait: they take `next`, look for what they wait for, and then wait for it."""

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next = trio.Event()

    def ring(self) -> None:
        self.next.set()
        self.next = trio.Event()


class Wakeup:
    """Coalesces hints: however often it was set since the last `wait`, that wakes once.

    For the trio thread only; from another thread use `trio.from_thread.run_sync(wakeup.set)`.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """Ends the `wait` under way, or else the next one."""
        self._event.set()

    async def wait(self, timeout: float) -> None:
        """Returns once it is set, and in any case after `timeout` seconds (`math.inf`: never by time)."""
        event = self._event
        with trio.move_on_after(max(0.0, timeout)):
            await event.wait()
        # Of several that wait, the first takes the hint away; the others must not take a newer one.
        if event.is_set() and self._event is event:
            self._event = trio.Event()
