"""Statements mean the same, whether SQLAlchemy executes them or we do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.store import tables
from gateway.store.statements import LONG_TEXT, MANY_ROWS, MOST_ROWS, Statement
from gateway.store.store import make_engine
from gateway.store.writer import driver_connection

NOW = datetime(2026, 2, 1, 12, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sa.Connection]:
    engine = make_engine(tmp_path / "test.db")
    with engine.connect() as conn:
        tables.metadata.create_all(conn)
        yield conn


def _message(**changed: Any) -> dict[str, Any]:
    return {
        "submission_id": "s",
        "account": "a",
        "queued": NOW,
        "recipient_localpart": "user",
        "recipient_domain": "example.org",
        "destination": "example.org",
        "message_id": "<m@x>",
        "size": 1,
        "extra": {"Key": "välue"},
        "next_attempt": NOW,
    } | changed


_INSERT = sa.insert(tables.message).returning(tables.message.c.id)
_BY_ID = sa.select(tables.message).where(
    tables.message.c.id.in_(sa.bindparam("ids", expanding=True)), tables.message.c.state == "queued"
)


def test_insert_with_defaults_and_read_back(conn: sa.Connection) -> None:
    key = Statement(_INSERT).scalar(conn, _message(hold=True))
    by_sqlalchemy = conn.execute(_BY_ID, {"ids": [key]}).one()
    by_us = Statement(_BY_ID).first(conn, {"ids": [key]})
    assert by_us is not None
    assert by_us._asdict() == dict(by_sqlalchemy._mapping)
    assert (by_us.queued, by_us.hold, by_us.extra) == (NOW, True, {"Key": "välue"})
    assert (by_us.base_id, by_us.dialed_ips, by_us.lease_owner) == (0, {}, None)  # defaults


def test_insert_tells_the_id(conn: sa.Connection) -> None:
    insert = Statement(sa.insert(tables.message))
    keys = [insert.insert(conn, _message(subject=str(n))) for n in range(3)]
    assert len(set(keys)) == 3
    rows = conn.execute(sa.select(tables.message.c.id, tables.message.c.subject)).all()
    assert {(row.id, row.subject) for row in rows} == set(zip(keys, "012", strict=True))


def test_lists_of_every_length(conn: sa.Connection) -> None:
    insert, by_id = Statement(_INSERT), Statement(_BY_ID)
    keys = [insert.scalar(conn, _message(subject=str(n))) for n in range(5)]
    for length in range(6):
        assert [row.id for row in by_id.all(conn, {"ids": keys[:length]})] == keys[:length]
        assert [row.id for row in by_id.all(conn, {"ids": keys[:length]})] == keys[:length]
    assert by_id.first(conn, {"ids": [99]}) is None
    assert by_id.scalar(conn, {"ids": [99]}) is None


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 40])
def test_values_of_many_as_one_by_one(conn: sa.Connection, count: int) -> None:
    insert = Statement(sa.insert(tables.content))
    contents = [None if n % 3 == 0 else bytes([0, n, 255]) * n for n in range(count)]
    keys = [insert.insert(conn, {"size": 1, "data": data, "file": None, "created": NOW}) for data in contents]
    of_key = Statement(sa.select(tables.content.c.data).where(tables.content.c.id == sa.bindparam("key")))
    asked = [{"key": key} for key in reversed([*keys, 99])]  # which is nobody's
    with _counted(conn) as seen:
        assert of_key.scalar_each(conn, asked) == [None, *reversed(contents)]
    assert len(seen) == math.ceil((count + 1) / MOST_ROWS)
    times = Statement(sa.select(tables.content.c.created).where(tables.content.c.id == sa.bindparam("key")))
    assert times.scalar_each(conn, asked) == [None] + [NOW] * count


AWKWARD = (
    "",
    "\0",
    "a\0b",
    '"\\',
    "\x1f\x7f",
    "é漢\U0001f600",
    "\u2028",
    "[1, null]",
    "null",
    "0x10",
    "1e400",
)


def test_rows_that_come_in_one_step_are_as_they_were_stored(conn: sa.Connection) -> None:
    insert, by_id = Statement(sa.insert(tables.message)), Statement(_BY_ID)
    rows = [
        _message(subject=text, extra={text: [text, None, 1.5, True]}, size=2**62 - n, hold=n % 2 == 1)
        for n, text in enumerate(AWKWARD)
    ]
    keys = insert.insert_each(conn, rows)
    with _counted(conn) as seen:
        row_by_row, found = by_id.all(conn, {"ids": keys}), by_id.all(conn, {"ids": keys})
    assert ["json_group_array" in sql for sql in seen] == [False, True]
    by_sqlalchemy = conn.execute(_BY_ID, {"ids": keys}).all()
    assert found == row_by_row
    assert [row._asdict() for row in found] == [dict(row._mapping) for row in by_sqlalchemy]
    assert [row.subject for row in found] == list(AWKWARD)


def test_few_rows_come_one_by_one(conn: sa.Connection) -> None:
    insert, by_id = Statement(sa.insert(tables.message)), Statement(_BY_ID)
    keys = insert.insert_each(conn, [_message() for _ in range(MANY_ROWS)])
    few, many = keys[1:], keys
    with _counted(conn) as seen:
        found = [len(by_id.all(conn, {"ids": ids})) for ids in (few, few, many, few, few, [], many, many)]
    assert found == [3, 3, 4, 3, 3, 0, 4, 4]
    ways = ["json_group_array" in sql for sql in seen]
    assert ways == [False, False, False, True, False, False, False, True]


def test_after_a_long_text_rows_come_one_by_one(conn: sa.Connection) -> None:
    insert, by_id = Statement(sa.insert(tables.message)), Statement(_BY_ID)
    keys = insert.insert_each(conn, [_message(subject="x" * LONG_TEXT) for _ in range(MANY_ROWS)])
    with _counted(conn) as seen:
        assert [len(by_id.all(conn, {"ids": keys})) for _ in range(3)] == [MANY_ROWS] * 3
    assert ["json_group_array" in sql for sql in seen] == [False, True, False]


def test_rows_come_one_by_one_after_a_failure(conn: sa.Connection) -> None:
    insert, by_id = Statement(sa.insert(tables.message)), Statement(_BY_ID)
    keys = insert.insert_each(conn, [_message() for _ in range(MANY_ROWS)])
    assert len(by_id.all(conn, {"ids": keys})) == MANY_ROWS
    conn.exec_driver_sql("UPDATE message SET subject = x'ff'")  # which JSON cannot have
    with pytest.raises(sa.exc.OperationalError):
        by_id.all(conn, {"ids": keys})
    assert [row.subject for row in by_id.all(conn, {"ids": keys})] == [b"\xff"] * MANY_ROWS


def test_what_would_be_rounded_or_is_no_text_comes_row_by_row(conn: sa.Connection) -> None:
    number = 0.1 + 0.2
    one = sa.select(sa.literal(number, sa.Float()).label("duration"))
    numbers = Statement(sa.union_all(*[one] * MANY_ROWS))
    assert numbers.all(conn) == numbers.all(conn) == [(number,)] * MANY_ROWS
    key = Statement(sa.insert(tables.content)).insert(
        conn, {"size": 1, "data": b"\xff\0", "file": None, "created": NOW}
    )
    contents = Statement(
        sa.union_all(*[sa.select(tables.content).where(tables.content.c.id == key)] * MANY_ROWS)
    )
    assert [row.data for row in contents.all(conn) + contents.all(conn)] == [b"\xff\0"] * 2 * MANY_ROWS
    untyped = Statement(sa.text(" UNION ALL ".join(["SELECT 0.1 + 0.2, x'ff'"] * MANY_ROWS)))
    assert untyped.all(conn) == untyped.all(conn) == [(number, b"\xff")] * MANY_ROWS


def test_updates_count_and_constants(conn: sa.Connection) -> None:
    insert = Statement(_INSERT)
    keys = [insert.scalar(conn, _message()) for _ in range(3)]
    update = Statement(
        sa.update(tables.message)
        .where(tables.message.c.id == sa.bindparam("row"))
        .values(subject=sa.bindparam("new"), transport="fixed", last_attempt=sa.bindparam("at"))
    )
    assert update.run(conn, {"row": keys[0], "new": "one", "at": NOW}) == 1
    assert update.run(conn, {"row": 99, "new": "none", "at": None}) == 0
    update.run_each(conn, [{"row": key, "new": f"each {key}", "at": None} for key in keys[1:]])
    update.run_each(conn, [])
    rows = conn.execute(
        sa.select(tables.message.c.subject, tables.message.c.transport, tables.message.c.last_attempt)
    ).all()
    assert [tuple(row) for row in rows] == [
        ("one", "fixed", NOW),
        ("each 2", "fixed", None),
        ("each 3", "fixed", None),
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 200])
def test_many_rows_as_one_by_one(conn: sa.Connection, count: int) -> None:
    insert = Statement(sa.insert(tables.message))
    rows = [_message(subject=f"? {n} ('", last_attempt=NOW if n % 2 else None) for n in range(count)]
    with _counted(conn) as seen:
        keys = insert.insert_each(conn, rows)
    assert len(seen) == math.ceil(count / MOST_ROWS)
    found = conn.execute(sa.select(tables.message).order_by(tables.message.c.id)).all()
    assert [row.id for row in found] == keys
    assert [(row.subject, row.last_attempt, row.state) for row in found] == [
        (row["subject"], row["last_attempt"], "queued") for row in rows
    ]

    update = Statement(
        sa.update(tables.message)
        .where(tables.message.c.id == sa.bindparam("row"), tables.message.c.state != "done")
        .values(
            attempts=tables.message.c.attempts + sa.bindparam("more"),
            last_attempt=sa.bindparam("at"),
            transport="a 'quoted' ? WHERE",
            extra=sa.bindparam("further"),
        )
    )
    changes = [
        {"row": key, "more": n, "at": None if n % 2 else NOW, "further": {"n": str(n)}}
        for n, key in enumerate(keys)
    ]
    with _counted(conn) as seen:
        update.run_each(conn, changes[1:])
    assert len(seen) == math.ceil((count - 1) / MOST_ROWS)
    found = conn.execute(sa.select(tables.message).order_by(tables.message.c.id)).all()
    assert found[0].attempts == 0
    assert found[0].transport == ""
    assert [(row.attempts, row.last_attempt, row.transport, row.extra) for row in found[1:]] == [
        (change["more"], change["at"], "a 'quoted' ? WHERE", change["further"]) for change in changes[1:]
    ]
    assert insert.insert_each(conn, []) == []


def test_ids_of_many_rows_after_others_were_deleted(conn: sa.Connection) -> None:
    insert = Statement(sa.insert(tables.message))
    before = insert.insert_each(conn, [_message() for _ in range(5)])
    conn.execute(sa.delete(tables.message))
    after = insert.insert_each(conn, [_message(subject=str(n)) for n in range(3)])
    assert min(after) > max(before)
    rows = conn.execute(sa.select(tables.message.c.id, tables.message.c.subject)).all()
    assert [(row.id, row.subject) for row in rows] == list(zip(after, "012", strict=True))


def test_many_rows_of_a_text(conn: sa.Connection) -> None:
    put = Statement(
        sa.text(
            "INSERT INTO fact (name, value) VALUES (:name, 'fixed') ON CONFLICT (name) DO UPDATE"
            " SET value = fact.value || ' (again)'"
        )
    )
    put.run_each(conn, [{"name": name} for name in ("a", "b", "a")])
    rows = conn.execute(sa.select(tables.fact.c.name, tables.fact.c.value).order_by(tables.fact.c.name)).all()
    assert [tuple(row) for row in rows] == [("a", "fixed (again)"), ("b", "fixed")]


def test_one_bad_row_of_many_undoes_all(conn: sa.Connection) -> None:
    insert = Statement(sa.insert(tables.message))
    with pytest.raises(sa.exc.IntegrityError):
        insert.insert_each(conn, [_message(from_id=from_id) for from_id in ("a", "b", "a", "c")])
    assert conn.scalar(sa.select(sa.func.count()).select_from(tables.message)) == 0


@contextmanager
def _counted(conn: sa.Connection) -> Iterator[list[str]]:
    """The statements that are run."""
    seen: list[str] = []
    driver = driver_connection(conn)
    driver.set_trace_callback(seen.append)
    yield seen
    driver.set_trace_callback(None)


def test_text_with_typed_columns(conn: sa.Connection) -> None:
    Statement(_INSERT).scalar(conn, _message())
    text = Statement(
        sa.text("SELECT next_attempt FROM message WHERE next_attempt <= :now")
        .bindparams(sa.bindparam("now", type_=tables.UtcTime()))
        .columns(next_attempt=tables.UtcTime())
    )
    assert text.scalar(conn, {"now": NOW}) == NOW
    assert text.all(conn, {"now": datetime(2020, 1, 1, tzinfo=UTC)}) == []


def test_errors_are_those_of_sqlalchemy(conn: sa.Connection) -> None:
    insert = Statement(_INSERT)
    insert.scalar(conn, _message(from_id="unique"))
    with pytest.raises(sa.exc.IntegrityError):
        insert.scalar(conn, _message(from_id="unique"))
    with pytest.raises(sa.exc.OperationalError):
        Statement(sa.text("SELECT * FROM nowhere")).run(conn)
    with pytest.raises(KeyError):
        Statement(_BY_ID).all(conn, {})
