"""Connections that are kept open after a transaction, for the next one to the same next hop."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

import trio
from pydantic import BaseModel, ConfigDict, Field

from gateway.net.smtp_client import SmtpConnection

SHORTEST_SLEEP = 0.5  # seconds
CLOSING = 1.0  # seconds, to close all that is open at the end


class KeepSettings(BaseModel):
    """`keep = { ... }` of a transport: how long connections are of use. `idle = 0` keeps none."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    connections: Annotated[int, Field(ge=0)] = 20  # that wait for the next message
    messages: Annotated[int, Field(ge=1)] = 100  # on one connection
    age: Annotated[float, Field(ge=0)] = 300.0  # seconds since it was opened
    idle: Annotated[float, Field(ge=0)] = 10.0  # seconds since its last message


@dataclass(slots=True)
class Kept:
    """A connection and what it has been used for."""

    connection: SmtpConnection
    hostname: str  # ours, that it was opened with
    opened: float  # trio's time
    idle_since: float = 0.0

    @property
    def reused(self) -> bool:
        return self.connection.transactions > 0

    @property
    def spent(self) -> bool:
        """It takes no further transaction."""
        most = self.connection.capabilities.max_transactions
        return self.connection.failure is not None or (
            most is not None and self.connection.transactions >= most
        )


class Connections:
    """The connections of one transport to one next hop. Those in use are their users'.

    `serve` has to run: it ends those that are not kept, so that nobody who has a result waits for that.
    """

    def __init__(self, settings: KeepSettings, open_new: Callable[[str], Awaitable[SmtpConnection]]) -> None:
        self._settings, self._open_new = settings, open_new
        self._idle: deque[Kept] = deque()  # the longest idle first
        self._leaving: deque[Kept] = deque()
        self._something_leaves = trio.Event()

    async def take(self, hostname: str, *, new: bool = False) -> Kept:
        """The connection opened with our `hostname` that was used last, or a new one (perhaps failed)."""
        now = trio.current_time()
        if not new and self._idle:
            kept = self._idle.pop()
            if kept.hostname == hostname and self._fresh(kept, now):
                return kept
            self._leave(kept)
        return Kept(await self._open_new(hostname), hostname, now)

    def give_back(self, kept: Kept) -> None:
        """Keep the connection, or have it ended."""
        kept.idle_since = trio.current_time()
        if kept.connection.failure is not None:
            return  # it is closed
        if (
            not kept.spent
            and kept.connection.transactions < self._settings.messages
            and len(self._idle) < self._settings.connections
            and self._fresh(kept, kept.idle_since)
        ):
            self._idle.append(kept)
        else:
            self._leave(kept)

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
                while self._idle and not self._fresh(self._idle[0], now):
                    self._leaving.append(self._idle.popleft())
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

    def _fresh(self, kept: Kept, now: float) -> bool:
        return (
            self._settings.idle > 0
            and now - kept.opened < self._settings.age
            and now - kept.idle_since <= self._settings.idle
        )
