"""The scheduler of the queue: claims what is due, as much as there is room for, and starts its attempts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio

from gateway.clock import Clock
from gateway.config.settings import QueueSettings
from gateway.errors import StoreError
from gateway.outbound.attempt import Attempts
from gateway.outbound.places import Place, Places
from gateway.outbound.schedule import fallback_next_attempt
from gateway.store import queue
from gateway.store.changes import Claim, Claimed
from gateway.store.store import Store
from gateway.wakeup import Wakeup

log = logging.getLogger(__name__)

POLL = 5.0  # seconds: the longest that a missed hint, or another process's message, waits
STORE_AGAIN_AFTER = 1.0  # seconds
CLAIMED = 50  # transactions at a time: what is under way goes on while the next are claimed


class QueueScheduler:
    """Runs attempts, as many as there are places for."""

    def __init__(
        self,
        owner: str,
        settings: QueueSettings,
        attempts: Attempts,
        store: Store,
        clock: Clock,
        queued: Wakeup,
        *,
        crowded: Callable[[], None] | None = None,
    ) -> None:
        """`crowded`: if there are other schedulers of the same store; called when there may be something for
        them to do."""
        self._owner, self._settings, self._attempts = owner, settings, attempts
        self._store, self._clock, self._queued = store, clock, queued
        self._shared, self._tell_others = crowded is not None, crowded or (lambda: None)
        self._told = False  # by another scheduler, which need not be told the same
        self._places = Places(
            most=settings.max_deliveries,
            most_slow=settings.max_slow_deliveries,
            for_proven=settings.max_deliveries // 2,
        )
        self._stopping = trio.Event()
        self._position = ""  # where the search for destinations with room goes on
        self._crowded = False  # something that is due waits for a place

    async def serve(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Claim and attempt until `stopping`; returns when the attempts under way are done.

        Cancelling it cuts attempts off; their messages are due again soon after the next start.
        """
        self._stopping = stopping
        async with trio.open_nursery() as nursery:
            task_status.started()
            while not stopping.is_set():
                try:
                    wait = await self._turn(nursery)
                except StoreError as exc:
                    log.warning("the queue waits for the store: %s", exc)
                    wait = STORE_AGAIN_AFTER
                if wait:
                    await self._queued.wait(wait)

    def look(self) -> None:
        """Another worker has no place for what is due, or does not deliver."""
        self._told = True
        self._queued.set()

    async def _turn(self, nursery: trio.Nursery) -> float:
        """Start what is due as far as there is room; seconds to wait until there may be more.

        Raises StoreError.
        """
        now = trio.current_time()
        room = self._places.room(now)
        self._crowded = True  # until we know better: an attempt that ends meanwhile leaves a place
        told, self._told = self._told, False
        if room <= 0:
            if not told:
                self._tell_others()
            return min(self._places.until_room(now), POLL)
        wanted = Claim(
            owner=self._owner,
            now=self._clock.now(),
            lease_seconds=self._settings.lease,
            room=min(room, CLAIMED),
            per_destination=self._settings.max_deliveries_per_destination,
            max_recipients=self._settings.max_recipients_per_transaction,
            busy=self._places.busy(),
            shared=self._shared,
            standing=self._places.standing(now),
            position=self._position,
        )
        claims = await self._store.write(lambda conn: queue.claim(conn, wanted, fallback_next_attempt))
        self._position = claims.position
        for transaction in claims.transactions:
            place = self._places.take(transaction[0].destination, trio.current_time())
            nursery.start_soon(self._attempt, transaction, place)
        if claims.more:
            return 0.0
        seconds = POLL if claims.next_due is None else (claims.next_due - wanted.now).total_seconds()
        self._crowded = seconds <= 0  # due already, yet not claimed: its destination has no room
        if self._crowded and not told:
            self._tell_others()  # who has its room looks again when that is free
        return min(self._places.until_room(now) if self._crowded else seconds, POLL)

    async def _attempt(self, claims: Sequence[Claimed], place: Place) -> None:
        def leave(*, delivered: bool) -> None:
            self._places.leave(place, trio.current_time(), delivered=delivered)
            if self._crowded:  # somebody may have its place now
                self._queued.set()

        delivered = False
        try:
            delivered = await self._attempts.run(claims, leave, self._stopping.is_set)
        except Exception:
            # A fault of ours. The lease keeps the message from being lost or sent twice at a time.
            log.exception("attempt failed submission=%s", claims[0].message.submission_id)
        finally:
            leave(delivered=False)  # unless it has left
            if not delivered:  # it may be due again soon
                self._queued.set()
