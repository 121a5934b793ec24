"""Walking messages or webhook calls along (value, ID): pages for people, steps for actions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from gateway.store.tables import AnyRow, UtcTime

MAX_PAGE = 1000
State = Literal["queued", "retired"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def read_page(
    conn: sa.Connection,
    table: sa.Table,
    column: sa.Column[Any],
    conditions: Sequence[sa.ColumnElement[bool]],
    states: Sequence[State],
    *,
    ascending: bool,
    cursor: str,
    maximum: int,
    columns: Sequence[sa.Column[Any]] | None = None,
    few: bool = False,
) -> tuple[list[AnyRow], str]:
    """The page's rows, of these columns (None: all), and the next one's cursor, empty at the end.

    `few`: the conditions find few rows by an index of their own, so that nothing is walked in the order.

    Raises ValueError for a cursor that no page ended with, or a page over 1000.
    """
    if not 1 <= maximum <= MAX_PAGE:
        raise ValueError(f"a page has 1 to {MAX_PAGE} entries, not {maximum}")
    key = table.c.id
    order = (column, key) if ascending else (column.desc(), key.desc())
    after = parse_cursor(cursor) if cursor else None
    rows: list[AnyRow] = []
    # One state at a time, so that the indexes give the order.
    for state in states:
        state_is = found_in_state(table, state) if few else in_state(table, state)
        statement = sa.select(*(columns or table.c)).where(state_is, *conditions).order_by(*order)
        if after is not None:
            statement = statement.where(beyond(column, key, after, ascending))
        rows += conn.execute(statement.limit(maximum + 1))
    rows.sort(key=lambda row: (row._mapping[column], row.id), reverse=not ascending)
    shown = rows[:maximum]
    if len(rows) <= maximum:
        return shown, ""
    return shown, make_cursor(shown[-1]._mapping[column], shown[-1].id)


def next_window(
    conn: sa.Connection,
    table: sa.Table,
    column: sa.Column[Any],
    ids: Sequence[int] | None,
    conditions: Sequence[sa.ColumnElement[bool]],
    position: str,
    limit: int,
    state: State = "queued",
) -> tuple[list[int], str | None]:
    """IDs of the next `limit` rows in a state after `position`, and the position after them, None at the end.

    With `ids`, the next of these, whatever their state.
    """
    after = parse_cursor(position) if position else (_EPOCH, 0)
    if ids is not None:
        window = sorted({row_id for row_id in ids if row_id > after[1]})[:limit]
        last = _EPOCH
    else:
        rows = conn.execute(
            sa.select(table.c.id, column)
            .where(in_state(table, state), beyond(column, table.c.id, after, True), *conditions)
            .order_by(column, table.c.id)
            .limit(limit)
        ).all()
        window = [row[0] for row in rows]
        last = rows[-1][1] if rows else _EPOCH
    return window, position_after(ids, last, window[-1]) if len(window) == limit else None


def position_after(ids: Sequence[int] | None, value: datetime, row_id: int) -> str:
    """Where `next_window` goes on after a row."""
    return make_cursor(value if ids is None else _EPOCH, row_id)


def in_state(table: sa.FromClause, state: State) -> sa.ColumnElement[bool]:
    # A literal, not a parameter: partial indexes are chosen by it.
    return table.c.state == sa.literal_column(f"'{state}'")


def found_in_state(table: sa.Table, state: State) -> sa.ColumnElement[bool]:
    """As `in_state`, where other conditions find the rows (IDs, mostly).

    SQLite prefers an index by the state to more than a few IDs, and walks the whole queue along it.
    """
    return table.c.state.concat("") == state


def beyond(
    column: sa.ColumnElement[Any],
    id_column: sa.ColumnElement[Any],
    after: tuple[datetime, int],
    ascending: bool,
) -> sa.ColumnElement[bool]:
    """Whether (column, ID) comes after the given pair. Row values, so that an index is entered there."""
    here = sa.tuple_(column, id_column)
    there = sa.tuple_(sa.literal(after[0], UtcTime()), sa.literal(after[1]))
    return here > there if ascending else here < there


def make_cursor(value: datetime, row_id: int) -> str:
    microseconds = (value - _EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{microseconds}.{row_id}".encode()).decode().rstrip("=")


def parse_cursor(text: str) -> tuple[datetime, int]:
    try:
        if len(text) > 100:
            raise ValueError("it is too long")
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        microseconds, _, row_id = raw.decode("ascii").partition(".")
        if not row_id.isdigit() or int(row_id) >= 1 << 63:
            raise ValueError("it has no ID")
        return _EPOCH + timedelta(microseconds=int(microseconds)), int(row_id)
    except (ValueError, OverflowError, binascii.Error):
        raise ValueError(f"cursor {text[:100]!a} is none that a page ended with") from None
