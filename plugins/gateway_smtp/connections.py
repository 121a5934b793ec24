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
    opened: float  # trio's time
    messages: int = 0
    idle_since: float = 0.0

    @property
    def reused(self) -> bool:
        return self.messages > 0


class Connections:
    """The connections of one transport to one next hop. Those in use are their users'."""

    def __init__(self, settings: KeepSettings, open_new: Callable[[], Awaitable[SmtpConnection]]) -> None:
        self._settings, self._open_new = settings, open_new
        self._idle: deque[Kept] = deque()  # the longest idle first

    async def take(self, *, new: bool = False) -> Kept:
        """The connection that was used last, or a new one, which may have failed to open."""
        now = trio.current_time()
        if not new and self._idle:
            kept = self._idle.pop()
            if self._fresh(kept, now):
                return kept
            await kept.connection.aclose()
        return Kept(await self._open_new(), now)

    async def give_back(self, kept: Kept) -> None:
        """Keep the connection, or end it."""
        kept.messages += 1
        kept.idle_since = trio.current_time()
        if kept.connection.failure is not None:
            await kept.connection.aclose()
        elif (
            kept.messages < self._settings.messages
            and len(self._idle) < self._settings.connections
            and self._fresh(kept, kept.idle_since)
        ):
            self._idle.append(kept)
        else:
            await kept.connection.quit()

    async def serve(self) -> None:
        """End connections that were idle for too long, for ever; when cancelled, all."""
        try:
            while True:
                await trio.sleep(max(self._settings.idle / 2, SHORTEST_SLEEP))
                now = trio.current_time()
                while self._idle and not self._fresh(self._idle[0], now):
                    await self._idle.popleft().connection.quit()
        finally:
            with trio.CancelScope(shield=True):
                while self._idle:
                    await self._idle.pop().connection.aclose()

    def _fresh(self, kept: Kept, now: float) -> bool:
        return (
            self._settings.idle > 0
            and now - kept.opened < self._settings.age
            and now - kept.idle_since <= self._settings.idle
        )
