"""Looking into webhook calls, and acting on them by filter: `listing` and `actions` for calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from gateway.store.changes import STEP, Call, Step
from gateway.store.pages import State, found_in_state, next_window, read_page
from gateway.store.statements import Statement
from gateway.store.tables import AnyRow, webhook_attempt, webhook_call
from gateway.store.webhook_calls import call_from_row
from gateway.store.webhook_results import retire, wake_next

_c = webhook_call.c

_LISTED = [column for column in _c if column.name != "payload"]  # a page of them may be a gigabyte

CallSort = Literal["next_attempt", "submitted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFilter:
    """All conditions given must match."""

    ids: tuple[int, ...] | None = None
    account: str = ""
    url: str = ""
    event_name: str = ""
    submitted_before: datetime | None = None
    submitted_after: datetime | None = None
    next_attempt_before: datetime | None = None
    next_attempt_after: datetime | None = None
    state: State | None = None  # None: both
    success: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAttempt:
    id: int
    start: datetime
    duration: float  # seconds
    url: str
    success: bool
    code: int
    error: str
    response: str


def page(
    conn: sa.Connection,
    wanted: CallFilter,
    *,
    sort: CallSort = "submitted",
    ascending: bool = True,
    cursor: str = "",
    maximum: int = 100,
) -> tuple[tuple[Call, ...], str]:
    """The calls that match, without payloads, and the cursor of the next page.

    Raises ValueError as `listing.page`.
    """
    rows, following = read_page(
        conn,
        webhook_call,
        _c[sort],
        _conditions(wanted),
        (wanted.state,) if wanted.state else ("queued", "retired"),
        ascending=ascending,
        cursor=cursor,
        maximum=maximum,
        columns=_LISTED,
        few=wanted.ids is not None,
    )
    return tuple(call_from_row(row, payload=None) for row in rows), following


def get(conn: sa.Connection, call_id: int, account: str = "") -> tuple[Call, tuple[CallAttempt, ...]] | None:
    """A call with its attempts, oldest first; None if there is none, or it is not the given account's."""
    row = conn.execute(
        sa.select(webhook_call).where(*_conditions(CallFilter(ids=(call_id,), account=account)))
    ).first()
    if row is None:
        return None
    attempts = conn.execute(
        sa.select(webhook_attempt).where(webhook_attempt.c.call_id == call_id).order_by(webhook_attempt.c.id)
    )
    return call_from_row(row), tuple(
        CallAttempt(**{name: value for name, value in attempt._mapping.items() if name != "call_id"})
        for attempt in attempts
    )


def cancel(
    conn: sa.Connection,
    wanted: CallFilter,
    keep_until: Callable[[str], datetime | None],
    now: datetime,
    position: str = "",
    error: str = "canceled by admin",
) -> Step:
    """Retires calls that match, those under way as well. `keep_until(account)`; None removes them."""
    rows, following = _walk(conn, wanted, position)
    for row in rows:
        retire(conn, row.id, keep_until(row.account), now, success=False, error=error)
        if row.queue_msg_id:
            wake_next(conn, row.queue_msg_id, row.url, now)
    return Step(len(rows), following)


def schedule(conn: sa.Connection, wanted: CallFilter, at: datetime, position: str = "") -> Step:
    """Sets the next attempt of calls that are not under way."""
    rows, following = _walk(conn, wanted, position)
    ids = [row.id for row in rows if row.lease_owner is None]
    if ids:
        conn.execute(sa.update(webhook_call).where(_c.id.in_(ids)).values(next_attempt=at))
    return Step(len(ids), following)


def replay(
    conn: sa.Connection,
    wanted: CallFilter,
    authorization: Callable[[str, str, str], str | None],
    now: datetime,
    position: str = "",
) -> Step:
    """Queues calls again that are over, with their IDs and payloads; their attempts begin anew.

    Those that were superseded are left out unless they are named by ID. `authorization(account, event, url)`
    is the header's value as it is configured now; None keeps the call's own.
    """
    along = replace(wanted, ids=None, url="", event_name="", success=None)  # what the index has
    within = _conditions(along)
    window, following = next_window(
        conn, webhook_call, _c.submitted, wanted.ids, within, position, STEP, "retired"
    )
    if not window:
        return Step(0, None)
    also = [] if wanted.ids is not None else [_c.superseded_by == 0]
    rows = conn.execute(
        sa.select(_c.id, _c.account, _c.event_name, _c.url, _c.authorization)
        .where(_c.id.in_(window), found_in_state(webhook_call, "retired"))
        .where(*_conditions(wanted, ids=False), *also)
        .with_for_update()
    ).all()
    again = []
    for row in rows:
        current = authorization(row.account, row.event_name, row.url)
        again.append({"row": row.id, "due": now, "auth": row.authorization if current is None else current})
    _REPLAY.run_each(conn, again)
    return Step(len(again), following)


_REPLAY = Statement(
    sa.update(webhook_call)
    .where(_c.id == sa.bindparam("row"))
    .values(
        state="queued",
        attempts=0,
        next_attempt=sa.bindparam("due"),
        authorization=sa.bindparam("auth"),
        success=None,
        superseded_by=0,
        error="",
        keep_until=None,
    )
)


def _walk(conn: sa.Connection, wanted: CallFilter, position: str) -> tuple[Sequence[AnyRow], str | None]:
    if wanted.state == "retired":
        return [], None
    mine = [_c.account == wanted.account] if wanted.account else []
    window, following = next_window(conn, webhook_call, _c.submitted, wanted.ids, mine, position, STEP)
    if not window:
        return [], None
    rows = conn.execute(
        sa.select(_c.id, _c.account, _c.queue_msg_id, _c.url, _c.lease_owner)
        .where(_c.id.in_(window), found_in_state(webhook_call, "queued"), *_conditions(wanted, ids=False))
        .with_for_update()
    ).all()
    return rows, following


def _conditions(wanted: CallFilter, *, ids: bool = True) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if ids and wanted.ids is not None:
        found.append(_c.id.in_(wanted.ids))
    for column, text in (
        (_c.account, wanted.account),
        (_c.url, wanted.url),
        (_c.event_name, wanted.event_name),
    ):
        if text:
            found.append(column == text)
    if wanted.success is not None:
        found.append(_c.success.is_(wanted.success))
    for column, before, after in (
        (_c.submitted, wanted.submitted_before, wanted.submitted_after),
        (_c.next_attempt, wanted.next_attempt_before, wanted.next_attempt_after),
    ):
        if before is not None:
            found.append(column < before)
        if after is not None:
            found.append(column > after)
    return found
