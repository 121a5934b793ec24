from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from gateway.store import cleanup, events, idempotency, limits, settle, tables, webhook_calls
from gateway.store.changes import CallDraft, Retire
from gateway.store.content import StoredBytes
from tests.store.sample import (
    HOOK,
    KEEP,
    NOW,
    add,
    at,
    claim,
    count,
    database,
    delayed,
    delivered,
    settle_one,
)


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as conn:
        yield conn


def test_retired_messages_go_in_steps(conn: sa.Connection) -> None:
    add(conn, *(f"u{i}@x.example" for i in range(520)), content=StoredBytes(9, file="f1"))
    (waiting,) = add(conn, now=at(1))
    keep = Retire(retired_as="delivered", success=True, keep_until=KEEP, keep_content=True)
    settled = [delivered(c, then=keep, event=None) for c in claim(conn, room=600, per_destination=600)]
    settle.settle_all(conn, [(settled, NOW)])
    assert cleanup.messages(conn, KEEP - timedelta(microseconds=1)).count == 0
    first = cleanup.messages(conn, KEEP)
    assert (first.count, first.files, first.more) == (500, (), True)
    second = cleanup.messages(conn, KEEP)
    assert (second.count, second.files, second.more) == (20, ("f1",), False)
    assert list(conn.scalars(sa.select(tables.message.c.id))) == [waiting]
    assert count(conn, tables.attempt) == 0
    assert count(conn, tables.content) == 1


def test_events_stay_as_long_as_a_call_needs_them(conn: sa.Connection) -> None:
    add(conn)
    settle_one(conn, delayed(claim(conn)[0], at(1)), NOW)
    for claimed in claim(conn, at(1)):
        settle_one(conn, delivered(claimed), NOW)
    assert cleanup.events(conn, KEEP).count == 1  # the delayed one's call is superseded
    assert cleanup.webhook_calls(conn, KEEP).count == 1
    conn.execute(sa.update(tables.webhook_call).values(state="retired", keep_until=KEEP))
    assert cleanup.events(conn, KEEP).count == 1
    assert count(conn, tables.webhook_call) == 1
    assert cleanup.webhook_calls(conn, KEEP).count == 1


def test_calls_go_with_their_attempts(conn: sa.Connection) -> None:
    drafts = [CallDraft(url=f"{HOOK}/{i}") for i in range(501)]
    webhook_calls.tell(conn, [(events.NewEvent(NOW, "shop", "delivered", KEEP), drafts)])
    conn.execute(
        sa.insert(tables.webhook_attempt),
        [{"call_id": i, "start": NOW, "duration": 0, "url": "", "success": True, "code": 200, "error": "",
          "response": ""} for i in range(1, 502)],
    )  # fmt: skip
    conn.execute(sa.update(tables.webhook_call).values(state="retired", keep_until=KEEP))
    assert cleanup.webhook_calls(conn, at(0)).count == 0
    assert cleanup.webhook_calls(conn, KEEP).more
    assert count(conn, tables.webhook_attempt) == 1
    assert cleanup.webhook_calls(conn, KEEP).count == 1
    assert count(conn, tables.webhook_attempt) == 0


def test_old_counters_and_answers(conn: sa.Connection) -> None:
    add(conn)
    assert cleanup.counters(conn, at(24 * 3600)).count == 0
    assert limits.sums(conn, "shop", at(24 * 3600)) == (1, 1)
    assert cleanup.counters(conn, at(25 * 3600)).count == 1
    idempotency.put(conn, "shop", "k", idempotency.Kept(b"", {}), NOW)
    assert cleanup.idempotency_results(conn, at(86399)).count == 0
    assert cleanup.idempotency_results(conn, at(86400)).count == 1
