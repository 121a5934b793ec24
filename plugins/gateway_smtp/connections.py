"""Connections that are kept open after a transaction, for the next one to the same next hop."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import trio
from pydantic import BaseModel, ConfigDict, Field

from gateway.net.plan import TlsNeed
from gateway.net.shaping import Place, Share
from gateway.net.smtp_client import SmtpConnection
from gateway.net.tls_checks import Verdict
from gateway.smtp.results import Result

SHORTEST_SLEEP = 0.5  # seconds
CLOSING = 1.0  # seconds, to close all that is open at the end


class KeepSettings(BaseModel):
    """`keep = { ... }` of a transport: how long connections are of use. `idle = 0` keeps none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
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
    place: Place  # of those that the server's limits leave
    idle_since: float = 0.0
    refused: Result | None = None  # why we do not use it, though the server would
    abandoned: bool = False  # closed in the middle of something
    tls_used: str = ""  # the version, and how far the server was verified
    verdicts: dict[TlsNeed, Sequence[Verdict]] = field(default_factory=dict)  # what its checks came to

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
        made = self.connection.transactions
        offered, limit = self.connection.capabilities.max_transactions, self.place.messages
        return (
            self.failure is not None
            or (offered is not None and made >= offered)
            or (limit > 0 and made >= limit)
        )


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

    async def get(
        self,
        key: Hashable,
        share: Share,
        open_new: Callable[[Place], Awaitable[Kept]],
        fits: Callable[[Kept], bool] = lambda _kept: True,
        *,
        new: bool = False,
    ) -> Kept:
        """A kept connection to a next hop that fits, unless a `new` one is wanted; else a new one.

        Waits until the limits of `share` leave room for it. Raises Crowded.
        """

        def available() -> Kept | Place | None:
            kept = None if new else self.take(key, share, fits)
            return share.open_place() if kept is None else kept

        got: Kept | Place = await share.get(available)
        if isinstance(got, Kept):
            return got
        try:
            return await open_new(got)
        except BaseException:
            got.leave()
            raise

    def take(
        self, key: Hashable, share: Share, fits: Callable[[Kept], bool] = lambda _kept: True
    ) -> Kept | None:
        """The connection to a next hop that was used last, of those that fit; None if none is left.

        One whose place is another share's does not: that is of other limits.
        """
        now = trio.current_time()
        for kept in reversed(self._by_key.get(key, ())):
            if kept.place.share is not share or not self._fresh(kept, now):
                continue
            if kept.connection.disturbed:
                self._end(kept)
            elif fits(kept):
                self._remove(kept)
                return kept
        return None

    def has(self, key: Hashable) -> bool:
        """Whether there is any connection to a next hop, be it one that will not do."""
        return key in self._by_key

    def give_back(self, kept: Kept) -> None:
        """Keep the connection, or have it ended. One that has failed is closed already."""
        kept.idle_since = trio.current_time()
        if kept.abandoned or kept.connection.failure is not None:
            kept.place.leave()
            return
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
        kept.place.rest(partial(self._end, kept))
        if len(self._idle) > self._settings.connections:
            self._end(next(iter(self._idle)))

    def _end(self, kept: Kept) -> None:
        """Close one that is idle."""
        self._remove(kept)
        self._leave(kept)

    def _remove(self, kept: Kept) -> None:
        del self._idle[kept]
        kept.place.resume()
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
            async with trio.open_nursery() as nursery:
                while True:
                    with trio.move_on_after(max(self._settings.idle / 2, SHORTEST_SLEEP)):
                        await self._something_leaves.wait()
                    now = trio.current_time()
                    for kept in [one for one in self._idle if not self._fresh(one, now)]:
                        self._end(kept)
                    self._something_leaves = trio.Event()
                    while self._leaving:
                        nursery.start_soon(_quit, self._leaving.popleft())
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSING):
                for kept in (*self._leaving, *self._idle):
                    await kept.connection.aclose()
                    kept.place.leave()
                self._leaving.clear()
                self._idle.clear()
                self._by_key.clear()

    def _fresh(self, kept: Kept, now: float) -> bool:
        return (
            self._settings.idle > 0
            and now - kept.opened < self._settings.age
            and now - kept.idle_since <= self._settings.idle
        )


async def _quit(kept: Kept) -> None:
    try:
        await kept.connection.quit()
    finally:
        kept.place.leave()
