"""One turn of the scheduler of webhook calls, in one transaction: records what ended, claims what is due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from gateway.config.accounts import INCOMING
from gateway.model import Event
from gateway.store import events, received, webhook_calls, webhook_results, webhook_urls
from gateway.store.changes import Call, CallResult, ClaimCalls, NewReceived, Received
from gateway.store.events import IncomingReference
from gateway.store.webhook_urls import UrlState
from gateway.webhooks import schedule
from gateway.webhooks.health import after_failure

POLL = 5.0  # seconds: the longest that a missed hint, or another process's event, waits


@dataclass(frozen=True, slots=True)
class Due:
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
class Turn:
    """What one transaction came to."""

    due: tuple[Due, ...]
    position: str
    wait: float  # seconds until there may be more
    crowded: bool = False  # what is due waits for a place
    disabled: tuple[UrlState, ...] = ()  # URLs, just now


@dataclass(frozen=True, slots=True)
class Policy:
    """What the configuration says of accounts."""

    keep_until: Callable[[str, datetime], datetime | None]  # of calls that are over; None: not kept
    notice: Callable[[UrlState, datetime], NewReceived | None]  # that a URL was disabled


def take_turn(conn: sa.Connection, results: Sequence[CallResult], wanted: ClaimCalls, policy: Policy) -> Turn:
    webhook_results.finish(conn, results, wanted.now)
    disabled = _note_health(conn, results, wanted.now, policy)
    if wanted.room <= 0:
        return Turn((), wanted.position, POLL, crowded=True, disabled=disabled)
    claims = webhook_calls.claim(
        conn, wanted, _fallback, lambda account: policy.keep_until(account, wanted.now)
    )
    calls = _due(conn, claims.calls)
    if claims.more:
        return Turn(calls, claims.position, 0.0, disabled=disabled)
    due = webhook_calls.next_due(conn)
    seconds = (due - wanted.now).total_seconds() if due is not None else POLL
    crowded = seconds <= 0  # due already, yet not claimed: its URL is busy
    return Turn(calls, claims.position, POLL if crowded else min(seconds, POLL), crowded, disabled)


def _note_health(
    conn: sa.Connection, results: Sequence[CallResult], now: datetime, policy: Policy
) -> tuple[UrlState, ...]:
    """Those of the URLs that are disabled by these results; their accounts are told by mail."""
    disabled = []
    latest: dict[tuple[str, str], str] = {}
    for result in results:
        key = (result.account, result.url)
        if result.health == "good" and latest.get(key) != "good":
            webhook_urls.worked(conn, *key)
        elif result.health in ("bad", "gone"):
            known = webhook_urls.get(conn, *key)
            state = after_failure(known, *key, now, result.error, gone=result.health == "gone")
            webhook_urls.put(conn, state, known=known is not None)
            if state.disabled and not (known and known.disabled):
                disabled.append(state)
                if (notice := policy.notice(state, now)) is not None:
                    received.add(conn, notice, now)
        latest[key] = result.health
    return tuple(disabled)


def _due(conn: sa.Connection, calls: Sequence[Call]) -> tuple[Due, ...]:
    """Reads here what the calls are about, as the rows are at hand; a read of its own would cost more."""
    wanted = {call.event_id for call in calls if not call.payload or call.event_name == INCOMING}
    found = events.get_all(conn, wanted)
    due = []
    for call in calls:
        event = found.get(call.event_id)
        message = None
        if isinstance(event, IncomingReference):
            message = received.get(conn, event.account, event.received_id)
        due.append(Due(call, event, message))
    return tuple(due)


def _fallback(attempts: int, now: datetime) -> datetime:
    """When a call is due again that is cut off, or whose result is never written."""
    return schedule.next_attempt(attempts, now, 0.0) or now + timedelta(seconds=schedule.INTERVALS[-1])
