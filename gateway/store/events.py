"""Events: written in commit order, read by whoever keeps a cursor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from gateway.model import Event
from gateway.store import facts
from gateway.store.statements import Statement
from gateway.store.tables import AnyRow, event

EXAMINED = 5_000  # events looked at for one page of a few names

_INSERT = Statement(sa.insert(event))
_BY_ID = Statement(sa.select(event).where(event.c.id.in_(sa.bindparam("ids", expanding=True))))
_ORDER_LOCK = sa.text("SELECT pg_advisory_xact_lock(7236842)")  # any number, the same everywhere


@dataclass(frozen=True, slots=True)
class IncomingReference:
    """The event "incoming": the message itself is `received.get(account, received_id)`, if still there."""

    id: int
    time: datetime
    account: str
    received_id: int


class NewEvent(NamedTuple):
    """A row of the table `event`, but for its ID."""

    time: datetime
    account: str
    name: str
    keep_until: datetime
    queue_msg_id: int = 0
    received_id: int = 0
    data: Mapping[str, Any] = {}


def insert(conn: sa.Connection, new: Sequence[NewEvent]) -> list[int]:
    """Their IDs."""
    if new and conn.dialect.name == "postgresql":
        # IDs are given out before the commit: without this, a reader could see 8 before 7 and miss 7.
        conn.execute(_ORDER_LOCK)
    return _INSERT.insert_each(conn, [one._asdict() for one in new])


def after(
    conn: sa.Connection,
    cursor: int,
    limit: int,
    *,
    account: str = "",
    names: Sequence[str] = (),
) -> tuple[Event | IncomingReference, ...]:
    """The events whose ID is over `cursor`, in order: of all accounts and names, unless given."""
    statement = sa.select(event).where(event.c.id > cursor).order_by(event.c.id).limit(limit)
    if account:
        statement = statement.where(event.c.account == account)
    if names:
        statement = statement.where(event.c.name.in_(names))
    return tuple(_event(row) for row in conn.execute(statement))


def window(
    conn: sa.Connection, account: str, cursor: int, limit: int, names: Sequence[str] = ()
) -> tuple[tuple[Event | IncomingReference, ...], int, bool]:
    """An account's next events after `cursor`, of these names if any are given; where to go on; whether there
    may be more already. At most 5,000 are looked at."""
    mine = sa.select(event).where(event.c.account == account, event.c.id > cursor).order_by(event.c.id)
    if not names:
        rows = conn.execute(mine.limit(limit + 1)).all()
    else:
        examined = mine.limit(EXAMINED).subquery()
        rows = conn.execute(
            sa.select(examined).where(examined.c.name.in_(names)).order_by(examined.c.id).limit(limit + 1)
        ).all()
    found = tuple(_event(row) for row in rows[:limit])
    if len(rows) > limit:
        return found, found[-1].id, True
    if names:  # what was looked at and not wanted need not be looked at again
        examined = mine.limit(EXAMINED).subquery()
        last, count = conn.execute(
            sa.select(sa.func.max(examined.c.id), sa.func.count()).select_from(examined)
        ).one()
        return found, last or cursor, count == EXAMINED
    return found, found[-1].id if found else cursor, False


def get(conn: sa.Connection, event_id: int) -> Event | IncomingReference | None:
    return get_all(conn, (event_id,)).get(event_id)


def get_all(conn: sa.Connection, event_ids: Collection[int]) -> dict[int, Event | IncomingReference]:
    """Those that are there, by ID; for a few hundred at most."""
    if not event_ids:
        return {}
    return {row.id: _event(row) for row in _BY_ID.all(conn, {"ids": list(event_ids)})}


def of_message(conn: sa.Connection, queue_msg_id: int, limit: int = 1000) -> tuple[Event, ...]:
    """A message's events, oldest first."""
    rows = conn.execute(
        sa.select(event).where(event.c.queue_msg_id == queue_msg_id).order_by(event.c.id).limit(limit)
    )
    return tuple(found for row in rows if isinstance(found := _event(row), Event))


def cursor(conn: sa.Connection, name: str) -> int | None:
    """How far the reader `name` has come; None for one that there never was."""
    found = facts.read(conn, f"cursor:{name}")
    return None if found is None else int(found)


def set_cursor(conn: sa.Connection, name: str, event_id: int) -> None:
    facts.write(conn, f"cursor:{name}", str(event_id))


def newest(conn: sa.Connection) -> int:
    """The newest event's ID, 0 if there is none: where a reader starts who wants only what comes."""
    return conn.scalar(sa.select(sa.func.max(event.c.id))) or 0


def _event(row: AnyRow) -> Event | IncomingReference:
    if row.name == "incoming":
        return IncomingReference(row.id, row.time, row.account, row.received_id)
    return Event(
        id=row.id,
        time=row.time,
        account=row.account,
        name=row.name,
        queue_msg_id=row.queue_msg_id,
        **row.data,
    )
