"""What is done to webhook calls by filter: cancel, reschedule, replay."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.outbound.settle import keep_webhooks_until
from gateway.store import call_listing
from gateway.store.call_listing import CallFilter
from gateway.store.steps import run_steps
from gateway.store.store import Store


class CallOperations:
    """Actions on all queued calls that match a filter; each answers how many it changed.

    `queued` is called when a call may have become due. All raise StoreError.
    """

    def __init__(self, settings: Settings, store: Store, clock: Clock, queued: Callable[[], None]) -> None:
        self._settings, self._store, self._clock, self._queued = settings, store, clock, queued

    async def cancel(self, wanted: CallFilter, error: str) -> int:
        """The calls are over. One that is under way is not interrupted; its result goes to its history."""
        now = self._clock.now()
        return await run_steps(
            self._store,
            lambda conn, position: call_listing.cancel(
                conn,
                wanted,
                lambda account: keep_webhooks_until(self._settings.accounts.get(account), now),
                now,
                position,
                error,
            ),
            self._queued,  # a later event of the same message may have waited for its turn
        )

    async def schedule(self, wanted: CallFilter, at: datetime) -> int:
        """Set the next attempt. One that is under way is left alone: its result will set it."""
        return await run_steps(
            self._store,
            lambda conn, position: call_listing.schedule(conn, wanted, at, position),
            self._queued,
        )

    async def replay(self, wanted: CallFilter) -> int:
        """Make calls again that are over, as far as they are kept, with the same IDs and payloads.

        Those that were superseded only if they are named by ID.
        """
        now = self._clock.now()
        return await run_steps(
            self._store,
            lambda conn, position: call_listing.replay(conn, wanted, self._authorization, now, position),
            self._queued,
        )

    def _authorization(self, account: str, event: str, url: str) -> str | None:
        """As it is configured now: what was wrong with it may be why a call is made again."""
        settings = self._settings.accounts.get(account)
        for target in settings.webhook_targets(event) if settings else ():
            if target.url == url:
                return target.authorization
        return None
