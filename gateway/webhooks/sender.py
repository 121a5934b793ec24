"""The scheduler of webhook calls: claims what is due, makes the calls, records what came of them.

One loop talks to the store. Each of its turns is one transaction that records the calls that ended since the
last and claims new ones in their places; the calls themselves run beside it, each in a task of its own, so
that a slow receiver holds up no other URL's.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from urllib.parse import urlsplit

import sqlalchemy as sa
import trio

from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.errors import StoreError
from gateway.events import parse_incoming
from gateway.model import Event, IncomingEvent, WebhookBody
from gateway.offload import Offload, OffloadError
from gateway.store import events, received, webhook_calls
from gateway.store.changes import Call, CallResult, ClaimCalls, Received
from gateway.store.events import IncomingReference
from gateway.store.store import Store
from gateway.wakeup import Wakeup
from gateway.webhooks import schedule
from gateway.webhooks.calling import Caller, NoPayload, unsent

log = logging.getLogger(__name__)

POLL = 5.0  # seconds: the longest that a missed hint, or another process's event, waits
STORE_AGAIN_AFTER = 1.0  # seconds
FORMAT_TIME = 60.0  # seconds that a lease has beyond the call's own, for plugins and the store
RECORD_WITHIN = 0.005  # seconds for a result, when no call waits for its place
RECORD_TIME = 5.0  # seconds for the last results, once everything else was cancelled


@dataclass(frozen=True, slots=True)
class _Due:
    """A claimed call and what it is about: None if the call has its payload, or if that has been removed.

    `received` is the message of an incoming event, whose calls end with it even if they have their payload.
    """

    call: Call
    event: Event | IncomingReference | None = None
    received: Received | None = None

    @property
    def removed(self) -> bool:
        if isinstance(self.event, IncomingReference):
            return self.received is None
        return self.event is None and not self.call.payload


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one transaction came to."""

    due: tuple[_Due, ...]
    position: str
    wait: float  # seconds until there may be more
    crowded: bool = False  # what is due waits for a place


class WebhookSender:
    """Makes webhook calls, as many at a time as the settings say in all and for each URL.

    `queued` is set whenever a call may have become due.
    """

    def __init__(
        self,
        owner: str,
        settings: Settings,
        caller: Caller,
        store: Store,
        clock: Clock,
        queued: Wakeup,
        offload: Offload,
    ) -> None:
        self._owner, self._settings, self._limits = owner, settings, settings.webhooks
        self._caller, self._store = caller, store
        self._clock, self._queued, self._offload = clock, queued, offload
        self._lease = settings.webhooks.timeout + FORMAT_TIME
        self._busy: Counter[str] = Counter()  # URL -> calls under way
        self._results: list[CallResult] = []  # of calls that ended, not yet recorded
        self._position = ""
        self._crowded = False
        self._ended = Wakeup()

    async def serve(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Make calls until `stopping`; returns when those under way have ended and are recorded.

        Cancelling it cuts calls off; they are due again when their leases are taken back.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wake_at, stopping)
            nursery.start_soon(self._record_in_time)
            task_status.started()
            try:
                while True:
                    try:
                        turn = await self._turn(may_claim=not stopping.is_set())
                    except StoreError as exc:
                        log.warning("webhooks wait for the store: %s", exc)
                        await trio.sleep(STORE_AGAIN_AFTER)
                        continue
                    for due in turn.due:
                        self._busy[due.call.url] += 1
                        nursery.start_soon(self._run, due)
                    if stopping.is_set() and not self._busy and not self._results:
                        break
                    if turn.wait:
                        await self._queued.wait(turn.wait)
            finally:
                await self._record_rest()
            nursery.cancel_scope.cancel()

    async def _wake_at(self, stopping: trio.Event) -> None:
        await stopping.wait()
        self._queued.set()

    # --- The store

    async def _turn(self, may_claim: bool) -> _Turn:
        """Record the calls that ended, and claim what there is room for. Raises StoreError."""
        self._crowded = True  # until we know better: a call that ends meanwhile leaves a place
        room = self._limits.max_calls - self._busy.total() if may_claim else 0
        results, self._results = self._results, []
        now = self._clock.now()
        wanted = ClaimCalls(
            owner=self._owner,
            now=now,
            lease_seconds=self._lease,
            room=room,
            per_url=self._limits.max_calls_per_url,
            busy=dict(self._busy),
            position=self._position,
        )
        try:
            turn = await self._store.write(partial(_apply, results=results, wanted=wanted))
        except BaseException:
            # Nothing was written, whatever the reason.
            self._results = results + self._results
            raise
        self._position, self._crowded = turn.position, turn.crowded
        return turn

    async def _record_rest(self) -> None:
        """What receivers have taken must not be sent again only because we were told to end."""
        if not self._results:
            return
        with trio.CancelScope(shield=True), trio.move_on_after(RECORD_TIME):
            try:
                await self._turn(may_claim=False)
            except StoreError as exc:
                log.warning("results of %d webhook calls are lost: %s", len(self._results), exc)

    # --- A call

    async def _run(self, due: _Due) -> None:
        call = due.call
        try:
            result = await self._call(due)
            self._results.append(result)  # to the list as it is now: each turn takes it and leaves another
        finally:
            self._busy[call.url] -= 1
            if not self._busy[call.url]:
                del self._busy[call.url]
            # Nobody waits for the result itself; a turn only for it would be in the next event's way.
            (self._queued if self._crowded else self._ended).set()

    async def _record_in_time(self) -> None:
        while True:
            await self._ended.wait(math.inf)
            await trio.sleep(RECORD_WITHIN)
            if self._results:
                self._queued.set()

    async def _call(self, due: _Due) -> CallResult:
        """Format if it is the first time, send, and say what came of it."""
        call = due.call
        start, started = self._clock.now(), trio.current_time()
        body: WebhookBody | None = WebhookBody(call.payload or b"", call.content_type)
        answer = unsent("the call took longer than its lease")
        over = False
        # A little less than the lease, so that the result is written under it.
        with trio.move_on_after(self._lease - RECORD_TIME):
            try:
                if due.removed:
                    raise NoPayload("what the webhook is about has been removed", forever=True)
                if not call.payload:
                    body = await self._caller.format(await self._event(due), call.format)
                if body is None:
                    answer = unsent(
                        f"the format {call.format!r} has nothing for the event {call.event_name!r}"
                    )
                else:
                    request = self._caller.request(call, body.body, start)
                    answer = await self._caller.post(request, body.content_type, call.authorization)
            except NoPayload as exc:
                answer, over = unsent(str(exc)), exc.forever
            except Exception:
                log.exception("webhook call %d failed by a fault of ours", call.id)
                answer = unsent("a fault of the gateway; its log says more")
        now, duration = self._clock.now(), trio.current_time() - started
        again = (
            None
            if answer.success or over or body is None
            else schedule.next_attempt(call.attempts, now, schedule.random_spread())
        )
        account = self._settings.accounts.get(call.account)
        keep = timedelta(days=account.keep_webhooks_days if account else 0)
        log.log(
            logging.DEBUG if answer.success else logging.INFO,
            "webhook call=%d account=%s event=%s message=%d host=%s attempt=%d code=%d duration=%.3f%s",
            call.id,
            call.account,
            call.event_name,
            call.queue_msg_id,
            urlsplit(call.url).hostname,
            call.attempts,
            answer.code,
            duration,
            ""
            if answer.success
            else f" error={answer.error[:500]!r} {'retired' if again is None else 'waits'}",
        )
        return CallResult(
            call_id=call.id,
            token=call.token,
            start=start,
            duration=duration,
            url=call.url,
            success=None if body is None else answer.success,
            payload=body.body if body else b"",
            content_type=body.content_type if body else "",
            code=answer.code,
            error=answer.error,
            response=answer.response,
            next_attempt=again,
            keep_until=now + keep if keep and again is None else None,
        )

    async def _event(self, due: _Due) -> Event | IncomingEvent:
        event = due.event
        if isinstance(event, Event):
            return event
        assert event is not None  # it was looked at before
        assert due.received is not None
        try:
            return await parse_incoming(self._store, self._offload, event, due.received)
        except (StoreError, OffloadError) as exc:
            raise NoPayload(f"the message cannot be read: {exc}") from None


# --- In the transaction --------------------------------------------------------------------------


def _apply(conn: sa.Connection, results: Sequence[CallResult], wanted: ClaimCalls) -> _Turn:
    for result in results:
        webhook_calls.finish(conn, result, wanted.now)
    if wanted.room <= 0:
        return _Turn((), wanted.position, POLL, crowded=True)
    claims = webhook_calls.claim(conn, wanted, _fallback)
    calls = tuple(_due(conn, call) for call in claims.calls)
    if claims.more:
        return _Turn(calls, claims.position, 0.0)
    due = webhook_calls.next_due(conn)
    seconds = (due - wanted.now).total_seconds() if due is not None else POLL
    crowded = seconds <= 0  # due already, yet not claimed: its URL is busy
    return _Turn(calls, claims.position, POLL if crowded else min(seconds, POLL), crowded)


def _due(conn: sa.Connection, call: Call) -> _Due:
    """Reads here what the call is about, as the rows are at hand; a read of its own would cost more."""
    if call.payload and call.event_name != "incoming":
        return _Due(call)
    event = events.get(conn, call.event_id)
    if isinstance(event, IncomingReference):
        return _Due(call, event, received.get(conn, event.account, event.received_id))
    return _Due(call, event)


def _fallback(attempts: int, now: datetime) -> datetime:
    """When a call is due again that is cut off, or whose result is never written."""
    return schedule.next_attempt(attempts, now, 0.0) or now + timedelta(seconds=schedule.INTERVALS[-1])
