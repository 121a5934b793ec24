"""The table `fact`: single values by name."""

from __future__ import annotations

from typing import cast

import sqlalchemy as sa

from gateway.store import tables
from gateway.store.statements import Statement

_BY_NAME = sa.select(tables.fact.c.value).where(tables.fact.c.name == sa.bindparam("name"))
_GET = Statement(_BY_NAME)
_GET_LOCKED = {
    exclusive: Statement(_BY_NAME.with_for_update(read=not exclusive)) for exclusive in (True, False)
}
_SET = sa.text(
    "INSERT INTO fact (name, value) VALUES (:name, :value)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_ENSURE = sa.text("INSERT INTO fact (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING")


def read(conn: sa.Connection, name: str) -> str | None:
    return cast("str | None", _GET.scalar(conn, {"name": name}))


def write(conn: sa.Connection, name: str, value: str) -> None:
    conn.execute(_SET, {"name": name, "value": value})


def read_locked(conn: sa.Connection, name: str, default: str, *, exclusive: bool) -> str:
    """The value, which no other transaction changes before this one ends.

    A missing fact is written as `default` first, for there has to be a row to lock. SQLite has one writer and
    ignores the lock.
    """
    locked = _GET_LOCKED[exclusive]
    value = locked.scalar(conn, {"name": name})
    if value is None:
        conn.execute(_ENSURE, {"name": name, "value": default})
        value = locked.scalar(conn, {"name": name})
    return cast(str, value)
