"""What became of webhook calls: their results, and their end. The way in is `webhook_calls`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from gateway.store.changes import CallResult
from gateway.store.pages import in_state
from gateway.store.statements import Statement
from gateway.store.tables import AnyRow, webhook_attempt, webhook_call

_c = webhook_call.c
OTHER = webhook_call.alias("other")


def first_of_others(column: Any, *conditions: Any) -> Any:
    """The column of the first of the calls of the same message to the same URL. None for those of incoming
    events: they have no order, and the message 0 all of them."""
    first = (
        sa.select(column)
        .where(
            in_state(OTHER, "queued"),
            OTHER.c.queue_msg_id == _c.queue_msg_id,
            OTHER.c.url == _c.url,
            *conditions,
        )
        .order_by(OTHER.c.id)
        .limit(1)
        .correlate(webhook_call)
        .scalar_subquery()
    )
    return sa.case((_c.queue_msg_id != 0, first))


_FINISHED = Statement(
    sa.select(
        _c.id,
        _c.state,
        _c.lease_owner,
        _c.lease_token,
        _c.queue_msg_id,
        _c.superseded_by,
        first_of_others(OTHER.c.id, OTHER.c.id != _c.id).label("next"),
    )
    .where(_c.id.in_(sa.bindparam("ids", expanding=True)))
    .with_for_update(of=webhook_call)
)
_RESCHEDULE = Statement(
    sa.update(webhook_call)
    .where(_c.id == sa.bindparam("row"))
    .values(
        lease_owner=None,
        lease_expires=None,
        next_attempt=sa.bindparam("due"),
        payload=sa.bindparam("new_payload"),
        content_type=sa.bindparam("new_content_type"),
        error=sa.bindparam("new_error"),
    )
)


INSERT_ATTEMPT = Statement(sa.insert(webhook_attempt))
_NEXT = Statement(
    sa.update(webhook_call)
    .where(
        _c.id
        == sa.select(sa.func.min(_c.id))
        .where(
            in_state(webhook_call, "queued"),
            _c.queue_msg_id == sa.bindparam("message"),
            _c.url == sa.bindparam("to"),
        )
        .scalar_subquery(),
        _c.attempts == 0,
        _c.next_attempt > sa.bindparam("now"),
    )
    .values(next_attempt=sa.bindparam("now"))
)


_ENDING: dict[str, Any] = {
    "state": "retired",
    "lease_owner": None,
    "lease_expires": None,
    "last_activity": sa.bindparam("now"),
    "keep_until": sa.bindparam("keep"),
    "success": sa.bindparam("new_success"),
    "superseded_by": sa.bindparam("new_superseded_by"),
    "error": sa.bindparam("new_error"),
}
_TAKEN = Statement(
    sa.update(webhook_call)
    .where(_c.id == sa.bindparam("row"))
    .values(success=True, payload=sa.bindparam("new_payload"), content_type=sa.bindparam("new_content_type"))
)
_BY_ID = sa.update(webhook_call).where(_c.id == sa.bindparam("row"))
_RETIRE = Statement(_BY_ID.values(_ENDING))
_RETIRE_WITH_PAYLOAD = Statement(
    _BY_ID.values(
        {**_ENDING, "payload": sa.bindparam("new_payload"), "content_type": sa.bindparam("new_content_type")}
    )
)


def finish(conn: sa.Connection, results: Sequence[CallResult], now: datetime) -> list[bool]:
    """Writes calls' results, and their payloads for further attempts.

    False: the lease was lost, or the call is over (superseded, canceled): then only its history grows, if it
    is still there. One that was superseded while the receiver took it is a success nevertheless.
    """
    if not results:
        return []
    rows = {row.id: row for row in _FINISHED.all(conn, {"ids": [result.call_id for result in results]})}
    there = [result for result in results if result.call_id in rows]
    INSERT_ATTEMPT.run_each(conn, [_attempt_of(result) for result in there if result.success is not None])
    mine = [result for result in there if _is_leased(rows[result.call_id], result)]
    over = [result for result in mine if result.next_attempt is None]
    _RESCHEDULE.run_each(
        conn,
        [
            {"row": result.call_id, "due": result.next_attempt, "new_error": result.error, **_body_of(result)}
            for result in mine
            if result.next_attempt is not None
        ],
    )
    _RETIRE_WITH_PAYLOAD.run_each(
        conn,
        [
            {
                **_ended(result.call_id, result.keep_until, now, result.success, result.error),
                **_body_of(result),
            }
            for result in over
            if result.keep_until is not None
        ],
    )
    for result in over:
        row = rows[result.call_id]
        if result.keep_until is None:
            _remove(conn, result.call_id)
        if row.next is not None:
            wake_next(conn, row.queue_msg_id, result.url, now)
    for result in there:
        row = rows[result.call_id]
        if row.superseded_by and result.success and row.lease_token == result.token:
            _TAKEN.run(conn, {"row": result.call_id, **_body_of(result)})
    return [result in mine for result in results]


def _is_leased(row: AnyRow, result: CallResult) -> bool:
    return row.state == "queued" and row.lease_owner is not None and row.lease_token == result.token


def _attempt_of(result: CallResult) -> dict[str, Any]:
    return new_attempt(
        result.call_id,
        start=result.start,
        url=result.url,
        duration=result.duration,
        success=result.success or False,
        code=result.code,
        error=result.error,
        response=result.response,
    )


def _body_of(result: CallResult) -> dict[str, Any]:
    return {"new_payload": result.payload, "new_content_type": result.content_type}


def new_attempt(
    call_id: int,
    *,
    start: datetime,
    url: str,
    duration: float = 0.0,
    success: bool = False,
    code: int = 0,
    error: str = "",
    response: str = "",
) -> dict[str, Any]:
    """The columns of a line of a call's history."""
    return {
        "call_id": call_id,
        "start": start,
        "duration": duration,
        "url": url,
        "success": success,
        "code": code,
        "error": error,
        "response": response,
    }


def retire(
    conn: sa.Connection,
    call_id: int,
    keep_until: datetime | None,
    now: datetime,
    *,
    success: bool | None = None,
    superseded_by: int = 0,
    error: str = "",
) -> None:
    """Ends a call, its lease with it."""
    if keep_until is None:
        _remove(conn, call_id)
    else:
        _RETIRE.run(conn, _ended(call_id, keep_until, now, success, error, superseded_by))


def _ended(
    call_id: int,
    keep_until: datetime | None,
    now: datetime,
    success: bool | None,
    error: str,
    superseded_by: int = 0,
) -> dict[str, Any]:
    return {
        "row": call_id,
        "now": now,
        "keep": keep_until,
        "new_success": success,
        "new_superseded_by": superseded_by,
        "new_error": error,
    }


def _remove(conn: sa.Connection, call_id: int) -> None:
    conn.execute(sa.delete(webhook_attempt).where(webhook_attempt.c.call_id == call_id))
    conn.execute(sa.delete(webhook_call).where(_c.id == call_id))


def wake_next(conn: sa.Connection, queue_msg_id: int, url: str, now: datetime) -> None:
    """The oldest call that waited for its turn is due now; one that waits for its retry is left."""
    _NEXT.run(conn, {"message": queue_msg_id, "to": url, "now": now})
