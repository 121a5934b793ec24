"""What operators do to the queue: hold, release, schedule, drop, and the rules that hold.

Actions on many messages run in many short transactions, so that sending goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import sqlalchemy as sa

from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.model import HoldRule
from gateway.outbound.settle import ending
from gateway.store import actions, holds
from gateway.store.changes import Step
from gateway.store.listing import Filter
from gateway.store.store import Store


class HoldRules:
    """The hold rules. A copy is kept in memory, so that a submission need not ask the store.

    The copy may be old; the generation that goes with it is checked when a submission is written.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._known: tuple[tuple[HoldRule, ...], int] | None = None

    async def snapshot(self) -> tuple[Sequence[HoldRule], int]:
        """The rules and their generation, from memory where possible. Raises StoreError."""
        return self._known or await self.refresh()

    async def refresh(self) -> tuple[Sequence[HoldRule], int]:
        self._known = await self._store.read(holds.snapshot)
        return self._known

    async def add(self, account: str, sender_domain: str, recipient_domain: str) -> tuple[HoldRule, int]:
        """Add a rule and hold what it matches in the queue; the rule, and how many messages those were."""
        now = self._clock.now()
        rule = await self._store.write(
            lambda conn: holds.add_rule(
                conn, now, account=account, sender_domain=sender_domain, recipient_domain=recipient_domain
            )
        )
        await self.refresh()
        return rule, await self._apply(rule)

    async def finish(self) -> None:
        """Go on with rules that a stop kept from being applied to the whole queue."""
        for rule in await self._store.read(holds.unapplied):
            await self._apply(rule)

    async def _apply(self, rule: HoldRule) -> int:
        return await _all_steps(self._store, lambda conn, position: holds.apply_rule(conn, rule, position))

    async def remove(self, rule_id: int) -> bool:
        """Remove a rule; what it held stays on hold. False when there is none of that ID."""
        removed = await self._store.write(lambda conn: holds.remove_rule(conn, rule_id))
        await self.refresh()
        return removed


class QueueOperations:
    """Actions on all queued messages that match a filter; each answers how many it changed."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Clock,
        queued: Callable[[], None],
        settled: Callable[[], None],
    ) -> None:
        self._settings, self._store, self._clock = settings, store, clock
        self._queued, self._settled = queued, settled

    async def hold(self, wanted: Filter) -> int:
        return await _all_steps(self._store, lambda conn, at: actions.hold(conn, wanted, at))

    async def release(self, wanted: Filter) -> int:
        changed = await _all_steps(
            self._store, lambda conn, at: actions.release(conn, wanted, at), self._queued
        )
        self._queued()
        return changed

    async def schedule(self, wanted: Filter, at: datetime) -> int:
        changed = await _all_steps(
            self._store, lambda conn, position: actions.schedule(conn, wanted, position, at=at), self._queued
        )
        self._queued()
        return changed

    async def drop(self, wanted: Filter, error: str) -> int:
        """The messages are canceled: the account hears of it, the sender gets no DSN."""
        now = self._clock.now()
        changed = await _all_steps(
            self._store,
            lambda conn, at: actions.cancel(
                conn,
                wanted,
                lambda account: ending(self._settings.accounts.get(account), "canceled", now),
                error,
                now,
                at,
            ),
            self._settled,
        )
        self._settled()
        return changed


async def _all_steps(
    store: Store, step: Callable[[sa.Connection, str], Step], after_each: Callable[[], None] | None = None
) -> int:
    changed, position = 0, ""
    while True:
        done = await store.write(partial(_one_step, step, position))
        await store.content.unlink(done.files)
        changed += done.affected
        if after_each is not None:
            after_each()
        if done.position is None:
            return changed
        position = done.position


def _one_step(step: Callable[[sa.Connection, str], Step], position: str, conn: sa.Connection) -> Step:
    return step(conn, position)
