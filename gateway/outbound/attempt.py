"""One attempt at one SMTP transaction: suppressed? route; hand over to the transport; settle.

Whatever happens in here, each message gets exactly one outcome: a plugin or a transport that fails makes
the outcome temporary, so that the message waits and is tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Protocol

import trio

from gateway.accounts.directory import Directory
from gateway.clock import Clock
from gateway.config.settings import DIRECT, Settings
from gateway.errors import PluginError, Stale, StoreError
from gateway.hooks.stages import Hooks, Stages
from gateway.mail.address import ascii_domain
from gateway.model import Delivery, DsnRequest, Outcome, QueuedMessage, Result, Route, RouteRule
from gateway.outbound import outcomes, suppression
from gateway.outbound.notices import News, Notices
from gateway.outbound.settle import decide
from gateway.outbound.transports import CalledTransport
from gateway.store import settle
from gateway.store.changes import MESSAGE_BYTES, Claimed, Reschedule, Settled, Settlement
from gateway.store.store import Store

log = logging.getLogger(__name__)

DECIDE_AGAIN = 3  # times, when what a suppression rests on changes between decision and commit
_TOOK_TOO_LONG = Outcome.temporary("the attempt took longer than its lease")
SETTLE_AGAIN_AFTER = 1.0  # seconds, when the store is away; the lease bounds how long it goes on


class Recording(Protocol):
    def __call__(self, *, delivered: bool) -> None: ...


class NoTransport(Exception):
    """There is no way to hand this message on now."""


class _Tried:
    """What came of an attempt, as far as it got."""

    def __init__(self) -> None:
        self.route: Route | None = None
        self.suppressed: set[int] = set()  # messages
        self.known: dict[int, Outcome] = {}  # by message
        self.otherwise = _TOOK_TOO_LONG  # of those that have none there
        self.failing = ""  # the plugin that it ended with


@dataclass(frozen=True, slots=True)
class Attempts:
    """Makes attempts. Holds what each needs, and no state."""

    settings: Settings
    directory: Directory
    hooks: Hooks
    transports: dict[str, CalledTransport]
    store: Store
    clock: Clock
    notices: Notices
    settled: Callable[[], None]  # webhook calls and events may be waiting
    count: Callable[[str], None] = lambda _event: None  # each attempt that ended, by its event

    async def run(
        self, claims: Sequence[Claimed], recording: Recording, stopping: Callable[[], bool]
    ) -> bool:
        """Attempt a transaction and settle it; returns when the result is durable or the lease ran out.

        Answers whether it was delivered, to one recipient at least. `recording` is told when only the store
        is still waited for: what is claimed in place of this shares the transaction of its result.

        If nobody answers while the gateway is `stopping`, the attempt is left as one that was cut off, and
        tried again soon after the next start: the next hop may be this gateway, or a machine that stops too.
        """
        message = claims[0].message
        stages = self.hooks.for_account(message.account)
        started = trio.current_time()
        # Time is left to record the outcome before the lease runs out.
        left = (claims[0].lease_expires - self.clock.now()).total_seconds() * 0.9
        if left <= 0:  # the process was stopped for so long; another one may have the message by now
            log.warning("submission=%s: not attempted, the lease ran out before", message.submission_id)
            return False
        tried = _Tried()
        with trio.move_on_after(left) as scope:
            await self._try(stages, claims, tried)
        if scope.cancelled_caught and tried.route is not None:
            self.transports[tried.route.transport].took_too_long()
            tried.otherwise = replace(_TOOK_TOO_LONG, unknown=True)  # it may have been handed over
        if stopping() and all(map(_nobody_serves, (tried.known.get(one.message.id) for one in claims))):
            log.info("submission=%s: cut off by the stop, as nobody answered", message.submission_id)
            return False
        now, duration = self.clock.now(), trio.current_time() - started
        settlements = [await self._decided(stages, claimed, tried, now, duration) for claimed in claims]
        notified = [
            await self._with_notice(stages, claimed, settlement, tried.route, now)
            for claimed, settlement in zip(claims, settlements, strict=True)
        ]
        delivered = any(outcome.result is Result.DELIVERED for outcome in tried.known.values())
        try:
            await self._settle(stages, claims, notified, now, partial(recording, delivered=delivered))
        finally:
            for settlement in notified:
                await self.notices.discard(settlement.notice)
        return delivered

    async def _try(self, stages: Stages, claims: Sequence[Claimed], tried: _Tried) -> None:
        try:
            self._check_sender(claims[0].message)
            for claimed in claims:
                if await stages.suppressed(message=claimed.message, entry=claimed.suppression):
                    tried.suppressed.add(claimed.message.id)
                    tried.known[claimed.message.id] = suppression.not_sent(claimed.suppression)
            sent = [claimed for claimed in claims if claimed.message.id not in tried.suppressed]
            if sent:
                delivery = self._delivery(sent)
                async with stages.around_attempt(delivery=delivery):
                    tried.route = await self._route(stages, claims[0].message)
                    found = await self.transports[tried.route.transport].deliver(delivery)
                    tried.known.update(zip((claimed.message.id for claimed in sent), found, strict=True))
        except NoTransport as exc:
            tried.otherwise = _not_tried(str(exc))
        except PluginError as exc:
            tried.otherwise, tried.failing = replace(_not_tried(str(exc)), counts=False), exc.plugin

    async def _decided(
        self, stages: Stages, claimed: Claimed, tried: _Tried, now: datetime, duration: float
    ) -> Settlement:
        """What is to be recorded for one of the messages."""
        message, suppressed = claimed.message, claimed.message.id in tried.suppressed
        outcome = tried.known.get(message.id, tried.otherwise)
        transport = "" if tried.route is None else tried.route.transport
        retry = None
        if outcome.result is not Result.DELIVERED and not suppressed:
            classified = await stages.classify_outcome(outcome=outcome, message=message, transport=transport)
            outcome = outcomes.fit(classified)
        if outcome.result is Result.TEMPORARY:
            failed = message if outcome.counts else replace(message, attempts=message.attempts - 1)
            retry = await stages.retry(message=failed, outcome=outcome, now=now, route=tried.route)
        return decide(
            claimed,
            outcome,
            retry,
            self.settings.accounts.get(message.account),
            suppressed=suppressed,
            waits_for="" if message.id in tried.known else tried.failing,
            transport=transport,
            duration=duration,
            now=now,
        )

    def _delivery(self, sent: Sequence[Claimed]) -> Delivery:
        return Delivery(
            messages=tuple(claimed.message for claimed in sent),
            content=self.store.content.open(sent[0].content),
            hostname=ascii_domain(self.settings.hostname),
            started=sent[0].message.last_attempt or self.clock.now(),
            deadline=sent[0].lease_expires,
            dsn=_dsn(sent),
            dialed=sent[0].dialed_ips,
        )

    def _check_sender(self, message: QueuedMessage) -> None:
        """Raises NoTransport."""
        domain = message.sender.domain if message.sender else ""
        if domain and self.directory.domain_disabled(domain):
            raise NoTransport(f"the sender's domain {domain} is disabled")

    async def _route(self, stages: Stages, message: QueuedMessage) -> Route:
        """The transport to use, which is there. Raises NoTransport, PluginError."""
        sender_domain = message.sender.domain if message.sender else ""
        if message.transport:
            route = Route(message.transport)
        else:
            found = await stages.route(
                message=message, routes=configured_routes(self.settings, message.account, sender_domain)
            )
            if found is None and DIRECT not in self.transports:
                raise NoTransport("no route matches this message; add a [[routes]] entry for it")
            route = found or Route(DIRECT)
        name = route.transport
        if name not in self.transports:
            raise NoTransport(f"there is no transport {name!r}; add [transports.{name}] or change the route")
        return route

    async def _settle(
        self,
        stages: Stages,
        claims: Sequence[Claimed],
        settlements: Sequence[Settlement],
        now: datetime,
        recording: Callable[[], None],
    ) -> None:
        settled: tuple[Settled, ...] | None = None
        tries = 0
        while settled is None:
            try:
                if tries < DECIDE_AGAIN:
                    changes = [
                        await self._with_suppression(stages, claimed, settlement, now)
                        for claimed, settlement in zip(claims, settlements, strict=True)
                    ]
                else:
                    changes = list(settlements)  # better no entry than one that rests on nothing
                self.settled()  # before the write: what claims the calls joins its transaction
                recording()
                size = sum(map(_size, changes))
                settled = await self.store.write_together(settle.settle_all, (changes, now), size=size)
            except Stale:
                tries += 1
            except StoreError as exc:
                # What the next hop accepted must not be forgotten while the lease lets us say so.
                if self.clock.now() >= claims[0].lease_expires:
                    log.error("attempt not recorded submission=%s: %s", claims[0].message.submission_id, exc)
                    return
                log.warning("store away, attempt will be recorded later: %s", exc)
                await trio.sleep(SETTLE_AGAIN_AFTER)
        await self.store.content.unlink(file for one in settled for file in one.files)
        for claimed, settlement, one in zip(claims, settlements, settled, strict=True):
            message = claimed.message
            if not one.applied:
                log.warning(
                    "submission=%s message=%d: the lease was lost, its result came too late",
                    message.submission_id,
                    message.id,
                )
                continue
            assert settlement.event is not None
            self.count(settlement.event.name)
            log.info(
                "%s submission=%s message=%d recipient=%s attempt=%d transport=%s%s duration=%.3f%s",
                settlement.event.name,
                message.submission_id,
                message.id,
                message.recipient,
                message.attempts,
                settlement.transport or "-",
                server_for_log(settlement.outcome),
                settlement.duration,
                (" suppressing" if one.suppressing else "")
                + (f" error={settlement.event.error[:500]!r}" if settlement.event.error else ""),
            )

    async def _with_notice(
        self, stages: Stages, claimed: Claimed, settlement: Settlement, route: Route | None, now: datetime
    ) -> Settlement:
        """With what the sender's mailbox is told, if anything."""
        assert settlement.event is not None
        news = News(
            event=settlement.event.name,
            outcome=settlement.outcome,
            error=settlement.event.error,
            next_attempt=settlement.then.next_attempt if isinstance(settlement.then, Reschedule) else None,
            route=route,
        )
        content = self.store.content.open(claimed.content)
        notice = await self.notices.about(stages, claimed, content, news, now)
        return settlement if notice is None else replace(settlement, notice=notice)

    async def _with_suppression(
        self, stages: Stages, claimed: Claimed, settlement: Settlement, now: datetime
    ) -> Settlement:
        """With the entry that a failure for good adds to the account's suppression list, if any."""
        if settlement.event is None or settlement.event.name != "failed":
            return settlement
        entry = await suppression.after_failure(
            stages, self.store, claimed.message, settlement.outcome, "queue", now
        )
        return replace(settlement, suppress=entry)


def configured_routes(settings: Settings, account: str, sender_domain: str) -> tuple[RouteRule, ...]:
    """What `route` is given: the account's routes, then the domain's, then the gateway's."""
    of_account = settings.accounts.get(account)
    of_domain = settings.domains.get(sender_domain)
    return tuple(
        route.rule
        for level in (of_account, of_domain, settings)
        if level is not None
        for route in level.routes
    )


def _not_tried(error: str) -> Outcome:
    return Outcome(result=Result.TEMPORARY, error=error, about_recipient=False)


def _dsn(sent: Sequence[Claimed]) -> tuple[DsnRequest, ...]:
    """What the sender asked for, which is mostly nothing."""
    if not any(claimed.dsn_ret or claimed.dsn_notify or claimed.dsn_orcpt for claimed in sent):
        return ()
    return tuple(
        DsnRequest(
            ret="FULL" if claimed.dsn_ret == "FULL" else "HDRS" if claimed.dsn_ret == "HDRS" else "",
            notify=tuple(word for word in claimed.dsn_notify.split(",") if word),
            orcpt=claimed.dsn_orcpt,
        )
        for claimed in sent
    )


def _nobody_serves(outcome: Outcome | None) -> bool:
    """It was tried, and nobody said anything, or that the server stops too (421).

    A dialogue that was broken off is told as ever: the message may have been taken.
    """
    if outcome is None or outcome.result is not Result.TEMPORARY or not outcome.counts:
        return False
    # Lines of a transcript that begin with "<" are replies (gateway.smtp.transcript).
    replied = any(line.startswith("<") for line in outcome.transcript.splitlines())
    return outcome.code == 421 or not (outcome.code or replied)


def server_for_log(outcome: Outcome) -> str:
    """Who was talked to, in a line of the log; "" for nobody."""
    if not outcome.remote_mta:
        return ""
    who = outcome.remote_mta + (f"[{outcome.remote_ip}]" if outcome.remote_ip else "")
    return f" server={who if who.isprintable() else ascii(who)}"


def _size(change: Settlement) -> int:
    """Bytes that a settlement brings to the store, about."""
    return MESSAGE_BYTES + (change.notice.content.size if change.notice is not None else 0)
