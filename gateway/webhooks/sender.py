"""The scheduler of webhook calls: claims what is due, makes the calls, records what came of them.

One loop talks to the store. Each of its turns is one transaction that records the calls that ended since the
last and claims new ones in their places; the calls themselves run beside it, each in a task of its own, so
that a slow receiver holds up no other URL's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from urllib.parse import urlsplit

import trio

from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.errors import StoreError
from gateway.events import parse_incoming
from gateway.model import Event, IncomingEvent, WebhookBody
from gateway.offload import Offload, OffloadError
from gateway.outbound.places import Place, Places
from gateway.outbound.settle import keep_webhooks_until
from gateway.store.changes import Call, CallResult, ClaimCalls, Health
from gateway.store.store import Store
from gateway.wakeup import Wakeup
from gateway.webhooks import schedule
from gateway.webhooks.calling import Caller, NoPayload, unsent
from gateway.webhooks.client import Answer
from gateway.webhooks.notice import disabled_notice
from gateway.webhooks.turn import Due, Policy, Turn, take_turn

log = logging.getLogger(__name__)

STORE_AGAIN_AFTER = 1.0  # seconds
FORMAT_TIME = 60.0  # seconds that a lease has beyond the call's own, for plugins and the store
RECORD_WITHIN = 0.005  # seconds for a result, when no call waits for its place
GONE = 410  # HTTP: the receiver wants no more of them
RECORD_TIME = 5.0  # seconds for the last results, once everything else was cancelled


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
        count: Callable[[str], None] = lambda _result: None,
        *,
        crowded: Callable[[], None] | None = None,
    ) -> None:
        """`count` is called for each request that was made, with "success" or "failure". `crowded` as of
        QueueScheduler."""
        self._count = count
        self._shared, self._tell_others = crowded is not None, crowded or (lambda: None)
        self._told = False
        self._owner, self._settings, self._limits = owner, settings, settings.webhooks
        self._caller, self._store = caller, store
        self._clock, self._queued, self._offload = clock, queued, offload
        self._lease = settings.webhooks.timeout + FORMAT_TIME
        self._places = Places(
            most=settings.webhooks.max_calls,
            most_slow=settings.webhooks.max_slow_calls,
            for_proven=settings.webhooks.max_calls // 5,  # these are fewer, and have a URL each
        )
        self._paused: dict[str, datetime] = {}  # URL -> until when its receiver wants no calls
        self._policy = Policy(self._keep_until, partial(disabled_notice, settings))
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
                        place = self._places.take(due.call.url, trio.current_time())
                        nursery.start_soon(self._run, due, place)
                    if stopping.is_set() and not self._places and not self._results:
                        break
                    if turn.wait:
                        await self._queued.wait(turn.wait)
            finally:
                await self._record_rest()
            nursery.cancel_scope.cancel()

    async def _wake_at(self, stopping: trio.Event) -> None:
        await stopping.wait()
        self._queued.set()

    def look(self) -> None:
        """Another worker has no place for what is due, or makes no calls."""
        self._told = True
        self._queued.set()

    # --- The store

    async def _turn(self, may_claim: bool) -> Turn:
        """Record the calls that ended, and claim what there is room for. Raises StoreError."""
        room = self._places.room(trio.current_time()) if may_claim else 0
        told, self._told = self._told, False
        results, self._results = self._results, []
        now = self._clock.now()
        wanted = ClaimCalls(
            owner=self._owner,
            now=now,
            lease_seconds=self._lease,
            room=room,
            per_url=self._limits.max_calls_per_url,
            busy=self._busy(now),
            shared=self._shared,
            standing=self._places.standing(trio.current_time()),
            position=self._position,
        )
        try:
            turn = await self._store.write(
                partial(take_turn, results=results, wanted=wanted, policy=self._policy)
            )
        except BaseException:
            # Nothing was written, whatever the reason.
            self._results = results + self._results
            raise
        self._position, self._crowded = turn.position, turn.crowded
        if turn.crowded and self._results:
            self._queued.set()  # calls that ended meanwhile left places
        if turn.crowded and not told:
            self._tell_others()
        for state in turn.disabled:
            log.warning(
                "webhooks of account=%s to %s are disabled: %s", state.account, state.url, state.error
            )
        if turn.crowded:  # a call that takes long makes room without ending
            return replace(turn, wait=min(turn.wait, self._places.until_room(trio.current_time())))
        return turn

    def _busy(self, now: datetime) -> dict[str, int]:
        """For each URL how many of its places are not to be had."""
        self._paused = {url: until for url, until in self._paused.items() if until > now}
        return self._places.busy() | dict.fromkeys(self._paused, self._limits.max_calls_per_url)

    def _keep_until(self, account: str, now: datetime) -> datetime | None:
        return keep_webhooks_until(self._settings.accounts.get(account), now)

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

    async def _run(self, due: Due, place: Place) -> None:
        success = False
        # A little less than the lease, which began with the claim, so that the result is written under it.
        claimed = due.call.last_activity or self._clock.now()
        left = self._lease - RECORD_TIME - (self._clock.now() - claimed).total_seconds()
        try:
            if left <= 0:  # the process was stopped for so long; another one may make the call by now
                log.warning("webhook call=%d is not made, its lease ran out before", due.call.id)
                return
            result = await self._call(due, left)
            success = result.success is not False
            if result.success is not None:
                self._count("success" if success else "failure")
            self._results.append(result)  # to the list as it is now: each turn takes it and leaves another
        finally:
            self._places.leave(place, trio.current_time(), delivered=success)
            # Nobody waits for the result itself; a turn only for it would be in the next event's way.
            (self._queued if self._crowded else self._ended).set()

    async def _record_in_time(self) -> None:
        while True:
            await self._ended.wait(math.inf)
            await trio.sleep(RECORD_WITHIN)
            if self._results:
                self._queued.set()

    async def _call(self, due: Due, left: float) -> CallResult:
        """Format if it is the first time, send, and say what came of it, in the seconds that are left."""
        call = due.call
        start, started = self._clock.now(), trio.current_time()
        body: WebhookBody | None = WebhookBody(call.payload or b"", call.content_type)
        answer = unsent("the call took longer than its lease")
        over = False
        with trio.move_on_after(left):
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
        gone = answer.code == GONE
        again = None
        if not (answer.success or over or gone or body is None):
            wait = schedule.wanted_wait(answer.retry_after, now)
            again = schedule.next_attempt(call.attempts, now, schedule.random_spread(), wait)
            if pause := schedule.pause(answer.code, wait):
                self._paused[call.url] = now + timedelta(seconds=pause)
        level = logging.DEBUG if answer.success else logging.INFO
        if log.isEnabledFor(level):
            _log(level, call, answer, duration, "retired" if again is None else "waits")
        return CallResult(
            call_id=call.id,
            account=call.account,
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
            keep_until=self._keep_until(call.account, now) if again is None else None,
            health=_health(answer),
        )

    async def _event(self, due: Due) -> Event | IncomingEvent:
        event = due.event
        if isinstance(event, Event):
            return event
        assert event is not None  # it was looked at before
        assert due.received is not None
        try:
            return await parse_incoming(self._store, self._offload, event, due.received)
        except (StoreError, OffloadError) as exc:
            raise NoPayload(f"the message cannot be read: {exc}") from None


def _log(level: int, call: Call, answer: Answer, duration: float, then: str) -> None:
    log.log(
        level,
        "webhook call=%d account=%s event=%s message=%d host=%s attempt=%d code=%d duration=%.3f%s",
        call.id,
        call.account,
        call.event_name,
        call.queue_msg_id,
        urlsplit(call.url).hostname,
        call.attempts,
        answer.code,
        duration,
        "" if answer.success else f" error={answer.error[:500]!r} {then}",
    )


def _health(answer: Answer) -> Health:
    """What the answer says of the URL."""
    if not answer.sent:
        return ""
    return "good" if answer.success else "gone" if answer.code == GONE else "bad"
