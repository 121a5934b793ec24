"""What is written for many at once is what it would be one by one, whatever it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import sqlalchemy as sa
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from gateway.errors import OverQuota, Stale
from gateway.model import Outcome, Result
from gateway.store import reports, settle, tables, webhook_calls
from gateway.store.changes import (
    CallDraft,
    Claimed,
    EventDraft,
    IncomingDraft,
    NewCopy,
    NewReceived,
    Report,
    Reschedule,
    Retire,
    Settlement,
    Suppress,
)
from gateway.store.content import StoredBytes
from gateway.store.events import NewEvent
from gateway.store.reports import Arrival
from gateway.store.writer import driver_connection
from tests.store.sample import HOOK, KEEP, add, at, claim, database, delayed, settle_one, settlement

Together = Callable[[sa.Connection, Sequence[Any]], Sequence[Any]]

MANY = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
ADDRESSES = ("a@example.net", "b@example.net", "o'b?@example.net")
TEXTS = st.sampled_from(("", "no", 'it\'s ? (WHERE "x") VALUES (1)', "ü\0\U0001f600", "long" * 2000))
CALLS = st.lists(
    st.builds(
        CallDraft,
        url=st.sampled_from((HOOK, HOOK + "?q='WHERE")),
        supersede=st.booleans(),
        superseded_keep_until=st.sampled_from((KEEP, None)),
    ),
    max_size=3,
).map(tuple)
NAMES = st.sampled_from(("delivered", "failed", "delayed", "complained", "unrecognized"))
EVENTS = st.none() | st.builds(EventDraft, name=NAMES, keep_until=st.just(KEEP), error=TEXTS, calls=CALLS)
ENDINGS = st.builds(
    Retire,
    retired_as=st.sampled_from(("delivered", "failed")),
    success=st.booleans(),
    keep_until=st.sampled_from((KEEP, None)),
    keep_content=st.sampled_from((False, False, True)),
)
AGAIN = st.builds(
    Reschedule,
    next_attempt=st.integers(50, 99).map(at),
    counted=st.booleans(),
    dialed_ips=st.sampled_from((None, {"mx": ["192.0.2.1"]})),
)
SUPPRESS = st.none() | st.builds(
    Suppress,
    base_address=st.sampled_from(ADDRESSES),
    original_address=TEXTS,
    reason=TEXTS,
    history=st.sampled_from((None, None, ())),
)


def copies(incoming: st.SearchStrategy[IncomingDraft | None]) -> st.SearchStrategy[NewReceived]:
    copy = st.builds(
        NewCopy,
        account=st.sampled_from(("shop", "n'ews")),
        mailbox=st.sampled_from(("Inbox", "B?")),
        subject=TEXTS,
        quota=st.sampled_from((0, 200)),
        event=incoming,
    )
    content = st.sampled_from((1, 60)).map(lambda size: StoredBytes(size, data=b"\0'?" * size))
    return st.builds(NewReceived, content=content, copies=st.lists(copy, min_size=1, max_size=3).map(tuple))


def rows(conn: sa.Connection) -> dict[str, list[Any]]:
    return {
        table.name: sorted(map(repr, conn.execute(sa.select(table))))
        for table in tables.metadata.sorted_tables
    }


@contextmanager
def copied(conn: sa.Connection) -> Iterator[sa.Connection]:
    with database() as copy:
        copy.exec_driver_sql("ROLLBACK")
        driver_connection(conn).backup(driver_connection(copy))
        yield copy


def tried(conn: sa.Connection, together: Together, items: Sequence[Any]) -> Sequence[Any] | None:
    """The answers; None, and nothing is done, if it raises what a caller expects."""
    conn.exec_driver_sql("SAVEPOINT tried")
    try:
        answers = together(conn, items)
    except (Stale, OverQuota):
        conn.exec_driver_sql("ROLLBACK TO tried")
        answers = None
    conn.exec_driver_sql("RELEASE tried")
    return answers


def check(conn: sa.Connection, together: Together, items: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The answers, of both ways."""
    with copied(conn) as one, copied(conn) as other:
        at_once = tried(one, together, items)
        one_by_one = [answer for item in items for answer in tried(other, together, [item]) or [None]]
        event(f"raises: {at_once is None}")
        if at_once is None:  # the writer goes the other way then
            return one_by_one, one_by_one
        assert rows(one) == rows(other)
        return list(at_once), one_by_one


def claimed_twice(conn: sa.Connection, data: st.DataObject) -> list[Claimed]:
    """Leases of which some are lost, with calls of earlier attempts."""
    for number in range(data.draw(st.integers(1, 6))):
        to = data.draw(st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=20 if number == 0 else 2))
        add(conn, *to, content=StoredBytes(9, file=f"f{number}") if number else StoredBytes(1, data=b"x"))
    first = claim(conn, max_recipients=100)
    for claimed in first:
        if data.draw(st.booleans()):
            settle_one(conn, delayed(claimed, at(1)), at(1))
    return [*first, *claim(conn, at(2), max_recipients=100)]


def result(claimed: Claimed, data: st.DataObject) -> Settlement:
    outcome = Outcome(result=data.draw(st.sampled_from(Result)), error=data.draw(TEXTS))
    then = data.draw(ENDINGS | ENDINGS | AGAIN)
    change = settlement(claimed, outcome, then, cast(EventDraft, data.draw(EVENTS)))
    notice = data.draw(st.none() | copies(st.none()))
    if notice is not None:
        notice = replace(notice, copies=tuple(replace(copy, quota=0) for copy in notice.copies))
    return replace(change, suppress=data.draw(SUPPRESS), notice=notice)


@MANY
@given(st.data())
def test_results(data: st.DataObject) -> None:
    with database() as conn:
        leases = claimed_twice(conn, data)
        # Once each: of one that comes twice, as after a lost answer, it does not matter which is kept.
        order = iter(data.draw(st.permutations(leases)))
        transactions = []
        for number in range(data.draw(st.integers(1, 6))):
            taken = list(itertools.islice(order, data.draw(st.integers(1, 20))))
            transactions.append(([result(claimed, data) for claimed in taken], at(10 + number)))
        conn.exec_driver_sql("COMMIT")
        answers, expected = check(conn, settle.settle_all, transactions)

    def without_files(answers: list[Any]) -> list[Any]:
        return [answer and [replace(one, files=()) for one in answer] for answer in answers]

    def files(answers: list[Any]) -> list[str]:
        return sorted(file for answer in answers for one in answer or () for file in one.files)

    assert without_files(answers) == without_files(expected)
    assert files(answers) == files(expected)


@MANY
@given(
    st.lists(
        st.tuples(
            st.builds(
                NewEvent,
                time=st.integers(0, 9).map(at),
                account=st.just("shop"),
                name=NAMES,
                keep_until=st.just(KEEP),
                queue_msg_id=st.integers(0, 2),
                received_id=st.just(0),
                data=st.builds(lambda text: {"error": text}, TEXTS),
            ),
            CALLS,
        ),
        max_size=40,
    ),
    st.integers(0, 40),
)
def test_webhook_calls(told: list[webhook_calls.Told], before: int) -> None:
    with database() as conn:
        webhook_calls.tell(conn, told[:before])
        conn.exec_driver_sql("COMMIT")
        answers, expected = check(conn, webhook_calls.tell, told[before:])
    assert answers == expected


@MANY
@given(st.data())
def test_mail_that_comes_in(data: st.DataObject) -> None:
    """Reports have no calls here: of several messages, these would come in another order."""
    with database() as conn:
        message_ids = add(conn, *ADDRESSES)
        claim(conn, room=1)
        reported = st.builds(
            Report,
            message_id=st.sampled_from(message_ids),
            success=st.sampled_from((None, False, True)),
            trusted=st.booleans(),
            error=TEXTS,
            retire=st.none() | ENDINGS,
            suppress=SUPPRESS,
        )
        incoming = st.none() | st.builds(IncomingDraft, keep_until=st.just(KEEP), calls=CALLS)
        arrived = []
        for number in range(data.draw(st.integers(1, 8))):
            new = data.draw(copies(incoming))
            found = [data.draw(st.just([]) | st.lists(reported, max_size=2)) for _ in new.copies]
            arrived.append(Arrival(new, found, at(number)))
        conn.exec_driver_sql("COMMIT")
        answers, expected = check(conn, reports.add, arrived)
    assert answers == expected
