"""What operators do to the queue: hold, release, schedule, set, fail, drop, and the rules that hold."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import trio

from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.errors import NotConfigured, StoreError
from gateway.model import HoldRule, Outcome
from gateway.outbound.notices import News, Notices
from gateway.outbound.settle import ending
from gateway.store import actions, holds, listing
from gateway.store.changes import EventDraft, Report, Retire
from gateway.store.listing import Filter, Item
from gateway.store.steps import remaining, run_filtered, run_steps
from gateway.store.store import Store

log = logging.getLogger(__name__)

FINISH_AGAIN_AFTER = 10.0  # seconds


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
        while True:
            try:
                for rule in await self._store.read(holds.unapplied):
                    await self._apply(rule)
                return
            except StoreError as exc:
                log.warning("hold rules will be applied to the whole queue later: %s", exc)
                await trio.sleep(FINISH_AGAIN_AFTER)

    async def _apply(self, rule: HoldRule) -> int:
        return await run_steps(self._store, lambda conn, position: holds.apply_rule(conn, rule, position))

    async def remove(self, rule_id: int) -> bool:
        """Remove a rule; what it held stays on hold. False when there is none of that ID."""
        removed = await self._store.write(lambda conn: holds.remove_rule(conn, rule_id))
        await self.refresh()
        return removed


class QueueOperations:
    """Actions on the queued messages that match a filter, all or its maximum; each answers how many it
    changed."""

    def __init__(
        self,
        settings: Settings,
        transports: Collection[str],
        store: Store,
        clock: Clock,
        notices: Notices,
        queued: Callable[[], None],
        settled: Callable[[], None],
    ) -> None:
        self._settings, self._store, self._clock, self._notices = settings, store, clock, notices
        self._transports = transports
        self._queued, self._settled = queued, settled

    async def hold(self, wanted: Filter) -> int:
        return await run_filtered(self._store, wanted, actions.hold)

    async def release(self, wanted: Filter) -> int:
        return await run_filtered(self._store, wanted, actions.release, self._queued)

    async def schedule(self, wanted: Filter, at: datetime) -> int:
        """Set the next attempt. One that is under way is left alone."""
        return await run_filtered(self._store, wanted, partial(actions.schedule, at=at), self._queued)

    async def postpone(self, wanted: Filter, by: timedelta) -> int:
        """Move the next attempt, from when it is due now."""
        return await run_filtered(self._store, wanted, partial(actions.schedule, plus=by), self._queued)

    async def set_transport(self, wanted: Filter, name: str) -> int:
        """From the next attempt on; empty: routes decide. Raises NotConfigured."""
        if name and name not in self._transports:
            raise NotConfigured("transport", name, self._transports)
        return await run_filtered(
            self._store, wanted, lambda conn, left, at: actions.set_transport(conn, left, name, at)
        )

    async def set_require_tls(self, wanted: Filter, value: bool | None) -> int:
        """From the next attempt on (RFC 8689); None: as the recipient's domain asks for."""
        return await run_filtered(
            self._store, wanted, lambda conn, left, at: actions.set_require_tls(conn, left, value, at)
        )

    async def fail(self, wanted: Filter, error: str) -> int:
        """The messages fail for good, as after an attempt: the account hears of it as event failed.

        Nobody refused them, so nothing is suppressed.
        """
        changed, position = 0, ""
        while True:
            items, following = await self._store.read(
                partial(actions.matching, wanted=remaining(wanted, changed), position=position)
            )
            now = self._clock.now()
            reports = [await self._failure(item, error, now) for item in items]
            notices = [report.notice for report in reports if report.notice is not None]
            try:
                write = partial(actions.end, reports=reports, now=now)
                done = await self._store.write(write, size=sum(notice.content.size for notice in notices))
            finally:
                for notice in notices:
                    await self._notices.discard(notice)
            await self._store.content.unlink(done.files)
            self._settled()
            changed += done.affected
            if following is None or changed == wanted.maximum:
                return changed
            position = following

    async def _failure(self, item: Item, error: str, now: datetime) -> Report:
        """What is written of one."""
        terms = ending(self._settings.accounts.get(item.message.account), "failed", now)
        why = error + (actions.UNDER_WAY if item.leased else "")
        where = await self._store.read(partial(listing.content_of, message_id=item.message.id))
        content = None if where is None else self._store.content.open(where)
        outcome = replace(Outcome.permanent(why), unknown=item.leased)
        news = News(event="failed", outcome=outcome, error=why)
        return Report(
            message_id=item.message.id,
            error=why,
            success=False,
            retire=Retire(retired_as="failed", success=False, keep_until=terms.keep_until),
            event=EventDraft(name="failed", error=why, keep_until=terms.event_keep_until, calls=terms.calls),
            notice=await self._notices.about(None, item, content, news, now),
        )

    async def drop(self, wanted: Filter, error: str) -> int:
        """The messages are canceled: the account hears of it, the sender gets no DSN."""
        now = self._clock.now()
        return await run_filtered(
            self._store,
            wanted,
            lambda conn, left, at: actions.cancel(
                conn,
                left,
                lambda account: ending(self._settings.accounts.get(account), "canceled", now),
                error,
                now,
                at,
            ),
            self._settled,
        )
