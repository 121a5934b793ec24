from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import pytest
import sqlalchemy as sa

from gateway.errors import Stale
from gateway.store import call_listing, events, listing, received, reports, settle, tables
from gateway.store.changes import EventDraft, NewCopy, NewReceived, Report, Settled
from gateway.store.content import StoredBytes
from gateway.store.reports import Arrival
from tests.store.sample import (
    CALLS,
    KEEP,
    NOW,
    add,
    at,
    claim,
    count,
    database,
    delayed,
    delivered,
    recipient,
    settle_one,
)


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as conn:
        yield conn


def copies(number: int = 1) -> NewReceived:
    return NewReceived(
        content=StoredBytes(4, data=b"mail"), copies=(NewCopy(account="app", mailbox="Inbox"),) * number
    )


def store(
    conn: sa.Connection, new: NewReceived, found: Sequence[Sequence[Report]], now: datetime
) -> tuple[tuple[int, ...], tuple[Settled, ...]]:
    (stored,) = reports.add(conn, [Arrival(new, found, now)])
    return stored


def report(message_id: int, error: str = "gone") -> Report:
    event = EventDraft(
        name="failed", keep_until=KEEP, error=error, calls=CALLS, dsn=True, matched_by="fromid"
    )
    return Report(message_id=message_id, code=550, error=error, success=False, event=event)


def success(conn: sa.Connection, message_id: int) -> bool | None:
    found = listing.get(conn, message_id)
    assert found is not None
    return found[0].success


def test_the_message_and_what_it_says_in_one_go(conn: sa.Connection) -> None:
    (message_id,) = add(conn, recipient())
    (row_id,), (settled,) = store(conn, copies(), [[report(message_id)]], NOW)
    assert settled.applied
    assert received.get(conn, "app", row_id) is not None
    found = listing.get(conn, message_id)
    assert found is not None
    [line] = found[1]
    assert (line.number, line.code, line.error) == (0, 550, f"gone (message {row_id} in Inbox)")
    [event] = events.of_message(conn, message_id)
    assert (event.name, event.error, event.dsn, event.matched_by) == ("failed", "gone", True, "fromid")


def test_of_two_copies_about_one_message_the_first_counts(conn: sa.Connection) -> None:
    one, other = add(conn, recipient(), recipient("x@example.net"))
    found = [[report(one, "first"), report(other)], [report(one, "second")], []]
    ids, settled = store(conn, copies(3), found, NOW)
    assert (len(ids), len(settled)) == (3, 2)
    assert [event.error for event in events.of_message(conn, one)] == ["first"]


def test_what_comes_at_the_same_time_is_stored_together(conn: sa.Connection) -> None:
    one, two = add(conn, recipient("one@example.net"), recipient("two@example.net"))
    stored = reports.add(
        conn,
        [
            Arrival(copies(), [[]], NOW),
            Arrival(copies(2), [[report(one)], [report(two), report(one, "again")]], at(1)),
            Arrival(copies(), [[report(two, "also")]], at(2)),
        ],
    )
    assert [len(ids) for ids, _ in stored] == [1, 2, 1]
    row_ids = [row_id for ids, _ in stored for row_id in ids]
    assert row_ids == sorted(set(row_ids))
    times = [row.message.received for row_id in row_ids if (row := received.get(conn, "app", row_id))]
    assert times == [NOW, at(1), at(1), at(2)]
    assert [len(settled) for _, settled in stored] == [0, 2, 1]
    found = listing.get(conn, two)
    assert found is not None
    assert [line.error for line in found[1]] == [
        f"gone (message {row_ids[2]} in Inbox)",
        f"also (message {row_ids[3]} in Inbox)",
    ]
    with pytest.raises(Stale):
        reports.add(conn, [Arrival(copies(), [[]], NOW), Arrival(copies(), [[report(99)]], NOW)])


def test_a_message_that_is_gone_is_decided_again(conn: sa.Connection) -> None:
    with pytest.raises(Stale, match="message 99 is gone"), conn.begin_nested():
        store(conn, copies(), [[report(99)]], NOW)
    assert count(conn, tables.received) == 0


def test_a_report_may_be_faster_than_the_answer_to_the_attempt(conn: sa.Connection) -> None:
    (message_id,) = add(conn, recipient())
    (claimed,) = claim(conn)
    _, (reported,) = store(conn, copies(), [[report(message_id)]], NOW)
    settled = settle_one(conn, delivered(claimed), at(1))
    assert settled.applied
    assert success(conn, message_id) is False
    assert [event.name for event in events.of_message(conn, message_id)] == ["failed", "delivered"]
    # Only the newest of a message is told, and that is what the report said, whichever came first.
    assert settled.call_ids == ()
    (call_id,) = reported.call_ids
    found = call_listing.get(conn, call_id)
    assert found is not None
    assert found[0].state == "queued"


def test_a_report_says_nothing_of_a_later_attempt(conn: sa.Connection) -> None:
    (message_id,) = add(conn, recipient())
    (claimed,) = claim(conn)
    store(conn, copies(), [[report(message_id)]], NOW)
    settle_one(conn, delayed(claimed, at(60)), at(1))
    assert success(conn, message_id) is None
    (claimed,) = claim(conn, at(60))
    assert len(settle_one(conn, delivered(claimed), at(61)).call_ids) == 1
    assert success(conn, message_id) is True


def test_who_is_told_of_everything_hears_of_the_delivery_too(conn: sa.Connection) -> None:
    (message_id,) = add(conn, recipient())
    (claimed,) = claim(conn)
    store(conn, copies(), [[report(message_id)]], NOW)
    change = delivered(claimed)
    assert change.event is not None
    calls = tuple(replace(call, supersede=False) for call in CALLS)
    settled = settle_one(conn, replace(change, event=replace(change.event, calls=calls)), at(1))
    assert len(settled.call_ids) == 1
    assert success(conn, message_id) is False


@pytest.mark.parametrize("trusted", [True, False])
def test_only_what_cannot_be_forged_counts_as_an_earlier_failure(conn: sa.Connection, trusted: bool) -> None:
    (message_id,) = add(conn, recipient("jo@example.net"))
    (claimed,) = claim(conn)
    settle_one(conn, delivered(claimed), at(1))
    store(conn, copies(), [[replace(report(message_id), trusted=trusted)]], at(2))
    assert success(conn, message_id) is False
    [earlier] = settle.latest_retired(conn, "shop", claimed.message.recipient, excluding=0)
    assert (earlier.id, earlier.success) == (message_id, not trusted)
