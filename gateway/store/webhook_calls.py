"""Webhook calls: one event on its way to one URL. Leased, retried and retired as messages are.

Here is their way in, and their leases; what becomes of them is `webhook_results`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import sqlalchemy as sa

from gateway.store import events, webhook_urls
from gateway.store.changes import STEP, Call, CallClaims, CallDraft, ClaimCalls
from gateway.store.due import Due
from gateway.store.events import NewEvent
from gateway.store.pages import found_in_state, in_state
from gateway.store.statements import Statement
from gateway.store.tables import CALL_READY, AnyRow, webhook_call
from gateway.store.webhook_results import INSERT_ATTEMPT, OTHER, first_of_others, new_attempt, retire
from gateway.store.webhook_urls import UrlState

INTERRUPTED_PAUSE = timedelta(seconds=30)  # after the start of a call that a crash cut off
_BLOCKED_PAUSE = timedelta(seconds=1)

Told = tuple[NewEvent, Sequence[CallDraft]]  # an event, and the calls that tell of it

_c = webhook_call.c
_queued = in_state(webhook_call, "queued")

# --- Adding ---------------------------------------------------------------------------------------

_INSERT = Statement(sa.insert(webhook_call))
_NEWER = webhook_call.alias("newer")
_OLDER = Statement(
    sa.select(_NEWER.c.id.label("new"), _c.id, _c.event_name)
    .select_from(_NEWER)
    .join(
        webhook_call,
        sa.and_(
            _queued, _c.queue_msg_id == _NEWER.c.queue_msg_id, _c.url == _NEWER.c.url, _c.id < _NEWER.c.id
        ),
    )
    .where(_NEWER.c.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(_NEWER.c.id, _c.id)
)
_BAD_NEWS = ("failed", "suppressed", "complained")


def tell(conn: sa.Connection, told: Sequence[Told]) -> list[tuple[int, tuple[int, ...]]]:
    """Writes events and queues their calls; the IDs, by event. Retires older calls that these supersede.

    A superseded call under way is not interrupted, but it is not tried again, and its result goes to its
    history only. `unrecognized` (an out-of-office reply, say) and `delivered` (of an attempt that a report
    was faster than) supersede no failed, suppressed or complained.
    """
    event_ids = events.insert(conn, [event for event, _ in told])
    new = [
        (event_id, event, draft)
        for event_id, (event, drafts) in zip(event_ids, told, strict=True)
        for draft in drafts
    ]
    ids = _INSERT.insert_each(conn, [_new_row(*one) for one in new])
    superseding = {
        call_id: (event, draft)
        for call_id, (_, event, draft) in zip(ids, new, strict=True)
        if draft.supersede and event.queue_msg_id
    }
    if superseding:
        _supersede(conn, superseding)
    calls = iter(ids)
    return [
        (event_id, tuple(islice(calls, len(drafts))))
        for event_id, (_, drafts) in zip(event_ids, told, strict=True)
    ]


def _new_row(event_id: int, event: NewEvent, draft: CallDraft) -> dict[str, Any]:
    return {
        "account": event.account,
        "event_id": event_id,
        "event_name": event.name,
        "queue_msg_id": event.queue_msg_id,
        "url": draft.url,
        "authorization": draft.authorization,
        "format": draft.format,
        "state": "queued",
        "submitted": event.time,
        "content_type": "",
        "attempts": 0,
        "next_attempt": event.time,
        "lease_token": 0,
        "superseded_by": 0,
        "error": "",
    }


def _supersede(conn: sa.Connection, by: Mapping[int, tuple[NewEvent, CallDraft]]) -> None:
    over: set[int] = set()
    for old in _OLDER.all(conn, {"ids": list(by)}):
        event, draft = by[old.new]
        if old.id in over or (event.name in ("unrecognized", "delivered") and old.event_name in _BAD_NEWS):
            continue
        over.add(old.id)
        retire(
            conn,
            old.id,
            draft.superseded_keep_until,
            event.time,
            superseded_by=old.new,
            error="superseded by a newer event",
        )


# --- Claiming -------------------------------------------------------------------------------------

_DUE = Due("webhook_call", "url", CALL_READY)

_LOAD = Statement(
    sa.select(webhook_call, first_of_others(OTHER.c.next_attempt, OTHER.c.id < _c.id).label("earlier"))
    .where(_c.id.in_(sa.bindparam("ids", expanding=True)), found_in_state(webhook_call, "queued"))
    .where(_c.lease_owner.is_(None))
    .with_for_update(skip_locked=True, of=webhook_call)
)
_POSTPONE = Statement(
    sa.update(webhook_call).where(_c.id == sa.bindparam("row")).values(next_attempt=sa.bindparam("due"))
)
_LEASE = Statement(
    sa.update(webhook_call)
    .where(_c.id == sa.bindparam("row"))
    .values(
        lease_owner=sa.bindparam("owner"),
        lease_token=sa.bindparam("token"),
        lease_expires=sa.bindparam("expires"),
        attempts=sa.bindparam("number"),
        last_activity=sa.bindparam("now"),
        next_attempt=sa.bindparam("fallback"),
    )
)


def next_due(conn: sa.Connection) -> datetime | None:
    """When the earliest call that waits is due; in the past, if its URL has no room."""
    return _DUE.next(conn)


def claim(
    conn: sa.Connection,
    wanted: ClaimCalls,
    fallback: Callable[[int, datetime], datetime],
    keep_until: Callable[[str], datetime | None],
) -> CallClaims:
    """Takes leases on calls that are due. `fallback` as for `queue.claim`; `keep_until(account)`: how long a
    call is kept that is over, None if not at all.

    A call whose message has an older one that still waits for the same URL (superseding is off) waits until
    that one is over: events of a message come in order. Those to a URL that is disabled are over, as failed.
    """
    now = wanted.now
    busy = _DUE.with_others(conn, wanted.busy, wanted.owner) if wanted.shared else wanted.busy
    picked = _DUE.pick(conn, now, wanted.room, wanted.per_url, busy, wanted.position, wanted.standing)
    if not picked.ids:
        return CallClaims((), picked.position, picked.more)
    found = {row.id: row for row in _LOAD.all(conn, {"ids": picked.ids})}
    off = webhook_urls.disabled(conn, {row.url for row in found.values()})
    retired = [_retire_waiting(conn, state, keep_until, now) for state in off.values()]
    calls: list[Call] = []
    leases: list[dict[str, Any]] = []
    blocked: list[dict[str, Any]] = []
    expires = now + timedelta(seconds=wanted.lease_seconds)
    for row in (found[row_id] for row_id in picked.ids if row_id in found):
        if (row.account, row.url) in off:
            continue
        if row.earlier is not None:
            # It comes back then, or as soon as the older one is over.
            blocked.append({"row": row.id, "due": max(row.earlier, now + _BLOCKED_PAUSE)})
            continue
        number, token, next_attempt = row.attempts + 1, row.lease_token + 1, fallback(row.attempts + 1, now)
        leases.append(
            {
                "row": row.id,
                "owner": wanted.owner,
                "token": token,
                "expires": expires,
                "number": number,
                "now": now,
                "fallback": next_attempt,
            }
        )
        calls.append(
            call_from_row(
                row,
                attempts=number,
                leased=True,
                token=token,
                next_attempt=next_attempt,
                last_activity=now,
            )
        )
    _POSTPONE.run_each(conn, blocked)
    _LEASE.run_each(conn, leases)
    return CallClaims(tuple(calls), picked.position, picked.more or bool(blocked) or any(retired))


def _retire_waiting(
    conn: sa.Connection, url: UrlState, keep_until: Callable[[str], datetime | None], now: datetime
) -> int:
    """Ends what waits for a disabled URL, at most 500 calls; how many."""
    waiting = conn.scalars(
        sa.select(_c.id)
        .where(sa.text(CALL_READY), _c.url == url.url, _c.account == url.account)
        .order_by(_c.next_attempt, _c.id)
        .limit(STEP)
        .with_for_update(skip_locked=True)
    ).all()
    keep, error = keep_until(url.account), f"the URL is disabled: {url.error}"
    for call_id in waiting:
        retire(conn, call_id, keep, now, success=False, error=error)
    return len(waiting)


# --- After a crash --------------------------------------------------------------------------------


def recover(conn: sa.Connection, dead: Collection[str], now: datetime) -> int:
    """Ends the leases of `dead` owners and those that expired, at most 500; how many. As `queue.recover`."""
    lost = conn.execute(
        sa.select(_c.id, _c.url, _c.lease_owner, _c.last_activity)
        .where(
            _c.lease_owner.is_not(None),
            sa.or_(_c.lease_expires <= now, _c.lease_owner.in_(list(dead))),
        )
        .limit(STEP)
        .with_for_update(skip_locked=True)
    ).all()
    for row in lost:
        stopped = row.lease_owner in dead
        error = "the gateway stopped during this call" if stopped else "the lease of this call ran out"
        INSERT_ATTEMPT.run(conn, new_attempt(row.id, start=row.last_activity, url=row.url, error=error))
        conn.execute(
            sa.update(webhook_call)
            .where(_c.id == row.id)
            .values(lease_owner=None, lease_expires=None, next_attempt=row.last_activity + INTERRUPTED_PAUSE)
        )
    return len(lost)


def call_from_row(row: AnyRow, **changed: Any) -> Call:
    fields = {name: getattr(row, name) for name in _AS_IN_THE_ROW if name not in changed}
    return Call(**{**fields, "token": row.lease_token, "leased": row.lease_owner is not None, **changed})


_AS_IN_THE_ROW = [field.name for field in dataclasses.fields(Call) if field.name not in ("token", "leased")]
