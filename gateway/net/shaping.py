"""Limits of what goes to a destination at a time: who shares one, and waiting for a place or a turn.

A connection has its place from before it is opened until it is closed, also while it is kept for the next
message. When all places are taken, one that is only kept makes room.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from gateway.errors import GatewayError
from gateway.model import Limits, NextHop
from gateway.net.pace import Pace

MAX_KEYS = 10_000  # remembered; those with open connections besides
FORGET_AT_A_TIME = 8
SMTP = 25  # a port that needs no mention

NO_LIMITS = Limits()
T = TypeVar("T")


class Crowded(GatewayError):
    """A limit leaves no room for too long; the text says which."""


@dataclass(slots=True)
class ShapingCounters:
    """What limits have come to since the gateway started."""

    waits: int = 0  # for a connection or a turn
    refusals: int = 0  # waits that were too long
    slowdowns: int = 0  # of a key's pace


async def _nobody(_hop: NextHop) -> Limits | None:
    return None


class Shaper:
    """The limits of one process. `ask` is the stage `shape`."""

    def __init__(self, ask: Callable[[NextHop], Awaitable[Limits | None]] = _nobody) -> None:
        self._ask = ask
        self._shares: OrderedDict[str, Share] = OrderedDict()  # by key, the longest unused first
        self.counters = ShapingCounters()

    async def share(self, hop: NextHop) -> Share:
        """What a next hop has to share with others. Raises PluginError."""
        limits = await self._ask(hop) or NO_LIMITS
        key = limits.key or (hop.host if hop.port == SMTP else f"{hop.host}:{hop.port}")
        share = self._shares.get(key)
        if share is not None:
            self._shares.move_to_end(key)
            share.pace.adopt(limits)
            return share
        share = self._shares[key] = Share(key, limits, self.counters)
        self._forget()
        return share

    def _forget(self) -> None:
        """Keep to the bound: what is not in use is forgotten, a few at a time."""
        for _ in range(min(len(self._shares) - MAX_KEYS, FORGET_AT_A_TIME)):
            oldest = next(iter(self._shares))
            if self._shares[oldest].busy:
                self._shares.move_to_end(oldest)
            else:
                del self._shares[oldest]


class Share:
    """The places and turns of one key."""

    __slots__ = ("_changed", "_counters", "_door", "_ending", "_key", "_resting", "pace")

    def __init__(self, key: str, limits: Limits, counters: ShapingCounters) -> None:
        self.pace = Pace(limits)
        self._key, self._counters = key, counters
        self._resting: OrderedDict[Place, Callable[[], None]] = OrderedDict()  # the longest idle first
        self._ending: Place | None = None  # a connection that makes room
        self._door = trio.Lock()  # those who wait for a place, in order
        self._changed: trio.Event | None = None  # the first of them waits for this

    @property
    def busy(self) -> bool:
        return bool(self.pace.open) or self._door.locked()

    async def turn(self) -> None:
        """Wait until a message may go. Raises Crowded, at once, if that would take too long."""
        pace = self.pace
        if not pace.limits.per_minute:
            return
        now = trio.current_time()
        wait = pace.until_next(now)
        if wait > self._patience(now):
            raise self._crowded(f"{pace.per_minute:.3g} messages a minute", "it has no turn")
        pace.take_turn(now)
        if wait:
            self._counters.waits += 1
            await trio.sleep(wait)

    async def get(self, available: Callable[[], T | None]) -> T:
        """What `available` answers, as soon as that is something: a kept connection, or `open_place`.

        Raises Crowded.
        """
        if not self._door.locked():
            got = available()
            if got is not None:
                return got
        self._counters.waits += 1
        with trio.move_on_after(self._patience(trio.current_time())):
            async with self._door:
                while (got := available()) is None:
                    self._changed = trio.Event()
                    await self._changed.wait()
                return got
        raise self._crowded(f"{self.pace.connections:.0f} connections at a time", "none came free")

    def open_place(self) -> Place | None:
        """A place for a new connection, if there is one now. If not, a kept connection may begin to end."""
        if self.pace.room:
            self.pace.open += 1
            return Place(self)
        if self._ending is None and self._resting:
            self._ending, end = self._resting.popitem(last=False)
            end()
        return None

    def slow_down(self) -> None:
        """A server asked for less."""
        self._counters.slowdowns += self.pace.slow_down(trio.current_time())

    def recover(self) -> None:
        """A server took a message."""
        if self.pace.slow:
            self.pace.recover()
            self.wake()

    def wake(self) -> None:
        """There may be room: whoever waits is to look."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    # --- For Place ---

    def rest(self, place: Place, end: Callable[[], None]) -> None:
        self._resting[place] = end
        self.wake()

    def resume(self, place: Place) -> None:
        self._resting.pop(place, None)

    def leave(self, place: Place) -> None:
        self._resting.pop(place, None)
        if self._ending is place:
            self._ending = None
        self.pace.open -= 1
        self.wake()

    def _patience(self, now: float) -> float:
        """Half of the time that is left at most, so that there is some for the message."""
        return min(self.pace.limits.wait, (trio.current_effective_deadline() - now) / 2)

    def _crowded(self, limit: str, what: str) -> Crowded:
        self._counters.refusals += 1
        slow = ", slowed down after the server asked for less" if self.pace.slow else ""
        return Crowded(f"not sent yet: the limit for {self._key} is {limit}{slow}, and {what} in time")


class Place:
    """One connection's place."""

    __slots__ = ("_left", "messages", "share")

    def __init__(self, share: Share) -> None:
        self.share = share
        self.messages = share.pace.limits.messages_per_connection  # that the connection may take; 0 is any
        self._left = False

    def rest(self, end: Callable[[], None]) -> None:
        """The connection is idle; `end` begins to close it for another, and must lead to `leave`."""
        self.share.rest(self, end)

    def resume(self) -> None:
        """It is in use again."""
        self.share.resume(self)

    def leave(self) -> None:
        """It is closed. May be called again."""
        if not self._left:
            self._left = True
            self.share.leave(self)
