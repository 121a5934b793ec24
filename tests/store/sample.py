"""What the tests of the store's queries share: a database of its own, and drafts with defaults."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa

from gateway.mail.address import Address
from gateway.model import Outcome, ReceivedMessage, Result
from gateway.store import mailbox_listing, queue, settle, tables
from gateway.store.changes import (
    CallDraft,
    Claim,
    Claimed,
    EventDraft,
    NewMessages,
    NewRecipient,
    Reschedule,
    Retire,
    Settled,
    Settlement,
)
from gateway.store.content import StoredBytes
from gateway.store.mailbox_listing import MessageFilter

NOW = datetime(2030, 5, 1, 12, 0, tzinfo=UTC)
KEEP = NOW + timedelta(days=7)
HOOK = "https://app.example.org/hook"
CALLS = (CallDraft(url=HOOK, superseded_keep_until=KEEP),)
DATA = b"Subject: hi\r\n\r\nhello\r\n"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def later(attempts: int, now: datetime) -> datetime:
    return now + timedelta(seconds=450 * 2 ** min(attempts - 1, 10))


@contextmanager
def database() -> Iterator[sa.Connection]:
    """A connection in a transaction, on an empty database in memory."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"isolation_level": None})
    tables.metadata.create_all(engine)
    try:
        with engine.connect() as conn:
            conn.exec_driver_sql("BEGIN")
            yield conn
    finally:
        engine.dispose()


def recipient(address: str = "jo@example.net", **fields: Any) -> NewRecipient:
    parsed = Address.parse(address)
    return replace(NewRecipient(address=parsed, destination=parsed.domain), **fields)


def submission(*recipients: NewRecipient | str, **fields: Any) -> NewMessages:
    given = tuple(r if isinstance(r, NewRecipient) else recipient(r) for r in recipients) or (recipient(),)
    defaults: dict[str, Any] = {
        "account": "shop",
        "submission_id": "sub1",
        "sender": Address("shop", "example.org"),
        "recipients": given,
        "content": StoredBytes(len(DATA), data=DATA),
        "message_id": "<m1@example.org>",
        "subject": "hi",
        "hold_generation": 0,
    }
    return NewMessages(**(defaults | fields))


def add(conn: sa.Connection, *recipients: NewRecipient | str, **fields: Any) -> tuple[int, ...]:
    now = fields.pop("now", NOW)
    return queue.add(conn, submission(*recipients, **fields), now)


def claim(conn: sa.Connection, now: datetime = NOW, **fields: Any) -> tuple[Claimed, ...]:
    """Each message in a transaction of its own, unless `max_recipients` says otherwise."""
    return tuple(claimed for together in claim_transactions(conn, now, **fields) for claimed in together)


def claim_transactions(
    conn: sa.Connection, now: datetime = NOW, **fields: Any
) -> tuple[tuple[Claimed, ...], ...]:
    defaults: dict[str, Any] = {
        "owner": "me",
        "lease_seconds": 60,
        "room": 100,
        "per_destination": 100,
        "max_recipients": 1,
    }
    return queue.claim(conn, Claim(now=now, **(defaults | fields)), later).transactions


def settle_one(conn: sa.Connection, change: Settlement, now: datetime) -> Settled:
    """One recipient's attempt, by itself."""
    return settle.settle_all(conn, [((change,), now)])[0][0]


def delivered(claimed: Claimed, **fields: Any) -> Settlement:
    draft = settlement(
        claimed,
        Outcome(result=Result.DELIVERED, code=250, remote_mta="mx.example.net"),
        Retire(retired_as="delivered", success=True, keep_until=KEEP),
        EventDraft(name="delivered", keep_until=KEEP, calls=CALLS),
    )
    return replace(draft, **fields)


def failed(claimed: Claimed, **fields: Any) -> Settlement:
    draft = settlement(
        claimed,
        Outcome.permanent("no such user", code=550, enhanced="5.1.1"),
        Retire(retired_as="failed", success=False, keep_until=KEEP),
        EventDraft(
            name="failed",
            code=550,
            enhanced="5.1.1",
            error="no such user",
            keep_until=KEEP,
            calls=CALLS,
        ),
    )
    return replace(draft, **fields)


def delayed(claimed: Claimed, due: datetime, **fields: Any) -> Settlement:
    draft = settlement(
        claimed,
        Outcome.temporary("try later", code=451, enhanced="4.7.1"),
        Reschedule(next_attempt=due),
        EventDraft(
            name="delayed",
            code=451,
            enhanced="4.7.1",
            error="try later",
            keep_until=KEEP,
            calls=CALLS,
        ),
    )
    return replace(draft, **fields)


def settlement(
    claimed: Claimed, outcome: Outcome, then: Reschedule | Retire, event: EventDraft
) -> Settlement:
    return Settlement(
        message_id=claimed.message.id,
        token=claimed.token,
        attempt_id=claimed.attempt_id,
        outcome=outcome,
        duration=1.5,
        transport="direct",
        then=then,
        event=event,
    )


def messages_in(conn: sa.Connection, account: str, mailbox: str) -> list[ReceivedMessage]:
    """The newest first."""
    found = mailbox_listing.page(conn, account, MessageFilter(mailbox=mailbox))
    return [listed.message for listed in found[0]] if found is not None else []


def count(conn: sa.Connection, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    return conn.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one()


def statements(conn: sa.Connection, work: Callable[[], object]) -> list[str]:
    """What `work` has SQLite run, with its parameters filled in."""
    raw = cast(sqlite3.Connection, conn.connection.dbapi_connection)
    seen: list[str] = []
    raw.set_trace_callback(seen.append)
    try:
        work()
    finally:
        raw.set_trace_callback(None)
    assert seen
    return seen


def plans(conn: sa.Connection, work: Callable[[], object]) -> str:
    """The query plans of what `work` runs, inserts left out."""
    raw = cast(sqlite3.Connection, conn.connection.dbapi_connection)
    explained = ("SELECT", "WITH", "UPDATE", "DELETE")
    planned = [sql for sql in statements(conn, work) if sql.lstrip().startswith(explained)]
    return "\n".join(row[3] for sql in planned for row in raw.execute(f"EXPLAIN QUERY PLAN {sql}"))
