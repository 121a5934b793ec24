"""Connections that are kept open after a transaction, for the next one to the same next hop."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Annotated

import trio
from pydantic import BaseModel, ConfigDict, Field

from gateway.net.smtp_client import SmtpConnection
from gateway.smtp.results import Result

SHORTEST_SLEEP = 0.5  # seconds
CLOSING = 1.0  # seconds, to close all that is open at the end


class KeepSettings(BaseModel):
    """`keep = { ... }` of a transport: how long connections are of use. `idle = 0` keeps none."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    connections: Annotated[int, Field(ge=0)] = 100  # that wait for the next message
    messages: Annotated[int, Field(ge=1)] = 100  # on one connection
    age: Annotated[float, Field(ge=0)] = 300.0  # seconds since it was opened
    idle: Annotated[float, Field(ge=0)] = 10.0  # seconds since its last message


@dataclass(slots=True, eq=False)
class Kept:
    """A connection and what it has been used for."""

    connection: SmtpConnection
    key: Hashable  # of the next hop, our host name included
    opened: float  # trio's time
    idle_since: float = 0.0
    refused: Result | None = None  # why we do not use it, though the server would
    tls_used: str = ""  # the version, and how far the server was verified

    @property
    def failure(self) -> Result | None:
        """Why it is of no use."""
        return self.refused or self.connection.failure

    @property
    def reused(self) -> bool:
        return self.connection.transactions > 0

    @property
    def spent(self) -> bool:
        """It takes no further transaction."""
        most = self.connection.capabilities.max_transactions
        return self.failure is not None or (most is not None and self.connection.transactions >= most)


class Connections:
    """The idle connections of one transport. Those in use are their users'.

    `serve` has to run: it ends those that are not kept, so that nobody who has a result waits for that.
    """

    def __init__(self, settings: KeepSettings) -> None:
        self._settings = settings
        self._idle: OrderedDict[Kept, None] = OrderedDict()  # the longest idle first
        self._by_key: defaultdict[Hashable, list[Kept]] = defaultdict(list)  # the same, by next hop
        self._leaving: deque[Kept] = deque()
        self._something_leaves = trio.Event()

    def take(self, key: Hashable, fits: Callable[[Kept], bool] = lambda _kept: True) -> Kept | None:
        """The connection to a next hop that was used last, of those that fit; None if none is left."""
        now = trio.current_time()
        for kept in reversed(self._by_key.get(key, ())):
            if not self._fresh(kept, now):
                continue
            if fits(kept):
                self._remove(kept)
                return kept
        return None

    def has(self, key: Hashable) -> bool:
        """Whether there is any connection to a next hop, be it one that will not do."""
        return key in self._by_key

    def give_back(self, kept: Kept) -> None:
        """Keep the connection, or have it ended."""
        kept.idle_since = trio.current_time()
        if kept.connection.failure is not None:
            return  # it is closed
        if (
            kept.spent
            or kept.connection.transactions >= self._settings.messages
            or not self._settings.connections
            or not self._fresh(kept, kept.idle_since)
        ):
            self._leave(kept)
            return
        self._idle[kept] = None
        self._by_key[kept.key].append(kept)
        if len(self._idle) > self._settings.connections:
            longest = next(iter(self._idle))
            self._remove(longest)
            self._leave(longest)

    def _remove(self, kept: Kept) -> None:
        del self._idle[kept]
        same = self._by_key[kept.key]
        same.remove(kept)
        if not same:
            del self._by_key[kept.key]

    def _leave(self, kept: Kept) -> None:
        self._leaving.append(kept)
        self._something_leaves.set()

    async def serve(self) -> None:
        """End connections that are not kept or were idle for too long, for ever; when cancelled, all."""
        try:
            while True:
                with trio.move_on_after(max(self._settings.idle / 2, SHORTEST_SLEEP)):
                    await self._something_leaves.wait()
                now = trio.current_time()
                for kept in [one for one in self._idle if not self._fresh(one, now)]:
                    self._remove(kept)
                    self._leaving.append(kept)
                self._something_leaves = trio.Event()
                async with trio.open_nursery() as nursery:
                    while self._leaving:
                        nursery.start_soon(self._leaving.popleft().connection.quit)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSING):
                for kept in (*self._leaving, *self._idle):
                    await kept.connection.aclose()
                self._leaving.clear()
                self._idle.clear()
                self._by_key.clear()

    def _fresh(self, kept: Kept, now: float) -> bool:
        return (
            self._settings.idle > 0
            and now - kept.opened < self._settings.age
            and now - kept.idle_since <= self._settings.idle
        )
