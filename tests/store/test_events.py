from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from gateway.errors import Stale
from gateway.model import Event
from gateway.store import credentials, events, idempotency
from gateway.store.credentials import Credential
from gateway.store.events import NewEvent
from tests.store.sample import KEEP, NOW, add, at, claim, database, delayed, delivered, settle_one, statements


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as conn:
        yield conn


def test_readers_keep_a_cursor(conn: sa.Connection) -> None:
    assert events.newest(conn) == 0
    add(conn)
    settle_one(conn, delayed(claim(conn)[0], at(9)), at(1))
    add(conn, account="news")
    for claimed in claim(conn, at(9)):
        settle_one(conn, delivered(claimed), at(10))
    first, *rest = events.after(conn, 0, 10)
    assert isinstance(first, Event)
    assert (first.name, first.code, first.enhanced, first.error) == ("delayed", 451, "4.7.1", "try later")
    assert (first.time, first.account, first.subject) == (at(1), "shop", "hi")
    assert events.after(conn, first.id, 10) == tuple(rest)
    assert len(events.after(conn, 0, 2)) == 2
    assert [e.account for e in events.after(conn, 0, 9, account="news")] == ["news"]
    assert events.after(conn, 0, 9, names=("delayed",)) == (first,)
    assert events.get(conn, first.id) == first
    assert events.get(conn, 99) is None
    assert events.newest(conn) == rest[-1].id
    assert not events.cursor(conn, "log")
    events.set_cursor(conn, "log", first.id)
    events.set_cursor(conn, "log", rest[-1].id)
    assert events.cursor(conn, "log") == rest[-1].id
    assert not events.cursor(conn, "other")


def test_ids_are_in_commit_order_on_postgresql(conn: sa.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, whoever writes events takes turns: the lock comes before the ID."""
    monkeypatch.setattr(conn.dialect, "name", "postgresql")
    monkeypatch.setattr(events, "_ORDER_LOCK", sa.text("SELECT 'lock'"))
    seen = statements(conn, lambda: events.insert(conn, [NewEvent(NOW, "a", "delivered", KEEP)]))
    assert [sql[:13] for sql in seen] == ["SELECT 'lock'", "INSERT INTO e"]


def test_credentials_are_replaced(conn: sa.Connection) -> None:
    first = Credential(
        account="shop",
        argon2="$argon2id$...",
        scram_salt=b"s",
        scram_iterations=4096,
        scram_stored_key=b"k",
        scram_server_key=b"v",
    )
    second = Credential(
        account="shop",
        argon2="$argon2id$2",
        scram_salt=b"t",
        scram_iterations=4096,
        scram_stored_key=b"l",
        scram_server_key=b"w",
    )
    assert credentials.get(conn, "shop") is None
    credentials.put(conn, first, NOW)
    assert credentials.get(conn, "shop") == first
    credentials.put(conn, second, NOW)
    assert credentials.get(conn, "shop") == second
    assert "argon2" not in repr(second)
    assert credentials.remove(conn, "shop")
    assert not credentials.remove(conn, "shop")


def test_idempotency_results_last_a_day(conn: sa.Connection) -> None:
    kept = idempotency.Kept(b"digest", {"MessageID": "<x>"})
    assert idempotency.get(conn, "shop", "k", NOW) is None
    idempotency.put(conn, "shop", "k", kept, NOW)
    assert idempotency.get(conn, "shop", "k", at(86399)) == kept
    assert idempotency.get(conn, "news", "k", NOW) is None
    conn.exec_driver_sql("SAVEPOINT attempt")
    with pytest.raises(Stale, match="'k'"):
        idempotency.put(conn, "shop", "k", kept, at(86399))
    conn.exec_driver_sql("ROLLBACK TO attempt")
    assert idempotency.get(conn, "shop", "k", at(86400)) is None
    idempotency.put(conn, "shop", "k", kept, at(86400))


DATA = {
    "from_id": "",
    "message_id": "<m@b.example>",
    "subject": "hi",
    "recipient": "a@b.example",
    "attempt": 1,
}


def test_windows_of_one_account(conn: sa.Connection) -> None:
    def happened(name: str, account: str = "shop") -> int:
        return events.insert(conn, [NewEvent(NOW, account, name, KEEP, data=DATA)])[0]

    ids = [happened(name) for name in ("delivered", "failed", "delivered", "delayed")]
    happened("delivered", "news")

    def window(cursor: int, limit: int, *names: str) -> tuple[list[int], int, bool]:
        found, last, more = events.window(conn, "shop", cursor, limit, names)
        return [event.id for event in found], last, more

    assert window(0, 10) == (ids, ids[-1], False)
    assert window(0, 2) == (ids[:2], ids[1], True)
    assert window(ids[1], 2) == (ids[2:], ids[3], False)
    assert window(ids[3], 2) == ([], ids[3], False)
    assert window(0, 1, "delivered") == ([ids[0]], ids[0], True)
    assert window(ids[0], 5, "delivered") == ([ids[2]], ids[3], False)
    assert window(0, 5, "expanded") == ([], ids[3], False)


def test_a_window_of_rare_events_is_found_in_steps(
    conn: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "EXAMINED", 3)
    for name in ("delivered",) * 5 + ("failed",):
        events.insert(conn, [NewEvent(NOW, "shop", name, KEEP, data=DATA)])
    found, last, more = events.window(conn, "shop", 0, 10, ["failed"])
    assert (found, more) == ((), True)
    found, last, more = events.window(conn, "shop", last, 10, ["failed"])
    assert ([e.id for e in found], more) == ([last], True)
    assert events.window(conn, "shop", last, 10, ["failed"]) == ((), last, False)
