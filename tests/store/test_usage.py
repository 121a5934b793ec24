"""What is in mailboxes is counted as it changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic import command

from gateway.errors import OverQuota
from gateway.store import migrations, received, tables, usage
from gateway.store.changes import NewCopy, NewReceived
from gateway.store.content import StoredBytes
from tests.store.sample import NOW, count, database, plans


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as conn:
        yield conn


def new(size: int, **quotas: int) -> NewReceived:
    """A message to these accounts."""
    copies = tuple(NewCopy(account=name, mailbox="Inbox", quota=quota) for name, quota in quotas.items())
    return NewReceived(content=StoredBytes(size, data=b"x" * size), copies=copies)


def add(conn: sa.Connection, size: int, **quotas: int) -> tuple[int, ...]:
    return received.add(conn, new(size, **quotas), NOW)


def test_counted(conn: sa.Connection) -> None:
    assert usage.used(conn, "shop") == 0
    one, two = add(conn, 10, shop=0, news=0)
    (three,) = add(conn, 5, shop=0)
    assert (usage.used(conn, "shop"), usage.used(conn, "news")) == (15, 10)
    received.move(conn, "shop", one, "Trash")
    received.delete(conn, "shop", one)
    received.delete(conn, "shop", one)
    received.delete(conn, "shop", two)
    assert (usage.used(conn, "shop"), usage.used(conn, "news")) == (5, 10)
    received.delete(conn, "shop", three)
    row = conn.execute(sa.select(tables.mailbox_usage).where(tables.mailbox_usage.c.account == "shop")).one()
    assert (row.messages, row.bytes) == (0, 0)


def test_up_to_the_quota(conn: sa.Connection) -> None:
    add(conn, 60, shop=100)
    add(conn, 40, shop=100)
    with pytest.raises(OverQuota, match="no room for 1 bytes in shop"):
        add(conn, 1, shop=100)
    assert (usage.used(conn, "shop"), count(conn, tables.received), count(conn, tables.content)) == (
        100,
        2,
        2,
    )
    add(conn, 1, shop=0)  # a copy in Sent
    assert not usage.has_room(conn, "shop", 1, 100)
    assert usage.has_room(conn, "shop", 1, 0)


def test_one_with_room_is_enough(conn: sa.Connection) -> None:
    add(conn, 100, shop=100, full=100)
    with pytest.raises(OverQuota, match="in full, shop"):
        add(conn, 1, shop=100, full=100)
    add(conn, 1, shop=100, news=100)
    assert (usage.used(conn, "shop"), usage.used(conn, "news")) == (101, 1)


def test_what_comes_together_counts_together(conn: sa.Connection) -> None:
    fits = [(new(50, shop=100, news=0), NOW), (new(50, shop=100), NOW)]
    with pytest.raises(OverQuota, match="no room for 1 bytes in shop"):
        received.add_all(conn, [*fits, (new(1, shop=100), NOW)])
    assert count(conn, tables.received) == 0
    assert [len(ids) for ids in received.add_all(conn, fits)] == [2, 1]
    assert (usage.used(conn, "shop"), usage.used(conn, "news")) == (100, 50)


def test_it_costs_one_row(conn: sa.Connection) -> None:
    plan = plans(conn, lambda: usage.used(conn, "shop"))
    assert "SEARCH mailbox_usage USING INDEX sqlite_autoindex_mailbox_usage_1 (account=?)" in plan
    assert "SCAN" not in plan


def test_what_there_was_before_is_counted() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as conn:
        command.upgrade(migrations.alembic_config(conn), "0004")
        conn.exec_driver_sql("INSERT INTO mailbox (account, name) VALUES ('shop', 'Inbox')")
        for account, size in (("shop", 3), ("shop", 4), ("news", 5)):
            values = {
                "account": account,
                "mailbox_id": 1,
                "content_id": 1,
                "received": NOW,
                "size": size,
                "flags": [],
            }
            conn.execute(sa.insert(tables.received).values(values))
        migrations.upgrade(conn)
        rows = conn.execute(sa.select(tables.mailbox_usage).order_by(tables.mailbox_usage.c.account)).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [("news", 1, 5), ("shop", 2, 7)]
