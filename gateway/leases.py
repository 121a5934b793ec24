"""Leases that nobody holds any more: of processes that are gone, and those that ran out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import datetime

import sqlalchemy as sa
import trio

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.store import queue
from gateway.store.store import Store

log = logging.getLogger(__name__)

LOOK_EVERY = 60.0  # seconds


class Recovery:
    """Takes leases of one kind back, so that what they were for is due again.

    `recover(conn, dead owners, now)` takes some back and answers how many: `queue.recover`, or the one of
    webhook calls. `name` is what is leased, in the plural, for the log. `queued` is called
    when it is due again.
    """

    def __init__(
        self,
        name: str,
        recover: Callable[[sa.Connection, Collection[str], datetime], int],
        store: Store,
        clock: Clock,
        queued: Callable[[], None],
    ) -> None:
        self._name, self._step = name, recover
        self._store, self._clock, self._queued = store, clock, queued

    async def recover_dead(self, is_dead: Callable[[str], bool]) -> None:
        """Take back what was leased to owners that are gone. Raises StoreError."""
        dead = frozenset(filter(is_dead, await self._store.read(queue.lease_owners)))
        if dead and (count := await self._recover(dead)):
            log.warning("%d %s were cut off when the gateway stopped; they are due again", count, self._name)

    async def serve(self) -> None:
        """Take back leases that ran out, for ever."""
        while True:
            await trio.sleep(LOOK_EVERY)
            try:
                if count := await self._recover(frozenset()):
                    log.warning("%d %s took longer than their lease; they are due again", count, self._name)
                    self._queued()
            except StoreError as exc:
                log.warning("expired leases of %s not looked for: %s", self._name, exc)

    async def _recover(self, dead: frozenset[str]) -> int:
        total = 0
        while recovered := await self._store.write(lambda conn: self._step(conn, dead, self._clock.now())):
            total += recovered
        return total
