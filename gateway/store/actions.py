"""What people and the API do to queued messages by filter, in steps that each end soon.

A step looks at the next 500 queued messages, whether they match or not, so that none holds the writer for
long. Messages that are queued meanwhile may come under it too, unless the filter has `submitted_before`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from gateway.errors import Stale
from gateway.store import settle, webhook_calls
from gateway.store.changes import STEP, Ending, EventDraft, Report, Retire, Step
from gateway.store.listing import Filter, Item, conditions, item_from_row
from gateway.store.pages import found_in_state, next_window, position_after
from gateway.store.tables import UtcTime, message

_ENDING_STEP = 100  # each makes an event and calls: about 0.2 ms
# Said of what is ended all the same.
UNDER_WAY = "; an attempt was under way and may still deliver it"
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)  # a next attempt later than a datetime can say could not be read


def hold(conn: sa.Connection, wanted: Filter, position: str = "") -> Step:
    return _update(conn, wanted, position, {"hold": True}, ~message.c.hold)


def release(conn: sa.Connection, wanted: Filter, position: str = "") -> Step:
    return _update(conn, wanted, position, {"hold": False}, message.c.hold)


def schedule(
    conn: sa.Connection,
    wanted: Filter,
    position: str = "",
    *,
    at: datetime | None = None,
    plus: timedelta | None = None,
) -> Step:
    """Sets the next attempt, or moves it. One that is under way is left alone: its result will set it."""
    if (at is None) == (plus is None):
        raise ValueError("give either a time or a duration")
    value: Any = at
    if plus is not None:
        moved = sa.type_coerce(message.c.next_attempt, sa.BigInteger()) + plus // timedelta(microseconds=1)
        last = sa.literal(_LATEST, UtcTime())
        value = sa.case((sa.type_coerce(moved, UtcTime()) < last, moved), else_=last)
    return _update(conn, wanted, position, {"next_attempt": value}, message.c.lease_owner.is_(None))


def set_transport(conn: sa.Connection, wanted: Filter, transport: str, position: str = "") -> Step:
    """From the next attempt on; empty: routes decide."""
    return _update(conn, wanted, position, {"transport": transport}, message.c.transport != transport)


def set_require_tls(
    conn: sa.Connection, wanted: Filter, require_tls: bool | None, position: str = ""
) -> Step:
    differs = message.c.require_tls.is_distinct_from(require_tls)
    return _update(conn, wanted, position, {"require_tls": require_tls}, differs)


def cancel(
    conn: sa.Connection,
    wanted: Filter,
    ending: Callable[[str], Ending],
    error: str,
    now: datetime,
    position: str = "",
) -> Step:
    """Retires messages with the event "canceled". `ending(account)` is what the configuration says.

    One whose attempt is under way is retired as well, its result will be late; the event's error says so.
    """
    ids, following = _walk(conn, wanted, position, _ENDING_STEP)
    files: list[str] = []
    for message_id in ids:
        row = settle.load(conn, message_id)
        if row is None or row.state != "queued":
            continue
        terms = ending(row.account)
        why = error
        if row.lease_owner is not None:
            why += UNDER_WAY
        settle.record(conn, row.id, now, Report(message_id=row.id, error=why))
        ended = Retire(retired_as="canceled", success=False, keep_until=terms.keep_until)
        files += settle.retire(conn, [(row, ended, now)])
        draft = EventDraft(name="canceled", error=why, keep_until=terms.event_keep_until, calls=terms.calls)
        webhook_calls.tell(conn, [(settle.event_of(row, draft, False, now), draft.calls)])
    return Step(len(ids), following, tuple(files))


def matching(conn: sa.Connection, wanted: Filter, position: str = "") -> tuple[tuple[Item, ...], str | None]:
    """For a decision about each that is made outside: the next that match, and where to go on."""
    ids, following = _walk(conn, wanted, position, _ENDING_STEP, lock=False)
    rows = conn.execute(sa.select(message).where(message.c.id.in_(ids)).order_by(message.c.id))
    return tuple(item_from_row(row) for row in rows), following


def end(conn: sa.Connection, reports: Sequence[Report], now: datetime) -> Step:
    """Ends messages, each as its report says. What has left the queue meanwhile stays as it is."""
    affected = 0
    files: list[str] = []
    for change in reports:
        try:
            done = settle.report(conn, change, now)
        except Stale:  # raised before anything of this report was written
            continue
        affected += done.applied
        files += done.files
    return Step(affected, None, tuple(files))


def _update(
    conn: sa.Connection,
    wanted: Filter,
    position: str,
    values: dict[str, Any],
    unless_done: sa.ColumnElement[bool],
) -> Step:
    ids, following = _walk(conn, wanted, position, STEP, unless_done)
    if ids:
        conn.execute(sa.update(message).where(message.c.id.in_(ids)).values(values))
    return Step(len(ids), following)


def _walk(
    conn: sa.Connection,
    wanted: Filter,
    position: str,
    limit: int,
    *further: sa.ColumnElement[bool],
    lock: bool = True,
) -> tuple[list[int], str | None]:
    """The matching messages among the next `limit`, or the filter's maximum of them, and where to go on."""
    if wanted.state == "retired":
        return [], None
    mine = [message.c.account == wanted.account] if wanted.account else []
    window, following = next_window(conn, message, message.c.queued, wanted.ids, mine, position, limit)
    if not window:
        return [], None
    found = (
        sa.select(message.c.id, message.c.queued)
        .where(message.c.id.in_(window), found_in_state(message, "queued"))
        .where(*conditions(replace(wanted, ids=None)), *further)
    )
    if wanted.maximum is not None:  # in the order of the windows
        order = (message.c.id,) if wanted.ids is not None else (message.c.queued, message.c.id)
        found = found.order_by(*order).limit(wanted.maximum)
    rows = conn.execute(found.with_for_update() if lock else found).all()
    if wanted.maximum is not None and len(rows) == wanted.maximum:
        following = position_after(wanted.ids, rows[-1].queued, rows[-1].id)
    return [row.id for row in rows], following
