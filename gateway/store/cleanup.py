"""Removes what has been kept long enough, at most 500 rows a step: call each until it removed fewer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from gateway.store.changes import STEP
from gateway.store.content import release_content
from gateway.store.idempotency import KEPT
from gateway.store.limits import hour_of
from gateway.store.pages import in_state
from gateway.store.tables import (
    attempt,
    event,
    idempotency,
    message,
    sent_hour,
    suppression,
    tls_result,
    webhook_attempt,
    webhook_call,
)
from gateway.store.tls_results import KEPT_DAYS, day_of


@dataclass(frozen=True, slots=True)
class Removed:
    """`files` may be unlinked once the step is committed."""

    count: int
    files: tuple[str, ...] = ()

    @property
    def more(self) -> bool:
        return self.count == STEP


def messages(conn: sa.Connection, now: datetime) -> Removed:
    """Retired messages, with their attempts and kept content."""
    rows = conn.execute(
        sa.select(message.c.id, message.c.content_id).where(message.c.keep_until <= now).limit(STEP)
    ).all()
    if not rows:
        return Removed(0)
    ids = [row.id for row in rows]
    conn.execute(sa.delete(attempt).where(attempt.c.message_id.in_(ids)))
    conn.execute(sa.delete(message).where(message.c.id.in_(ids)))
    files = release_content(conn, [row.content_id for row in rows if row.content_id is not None])
    return Removed(len(rows), tuple(files))


def webhook_calls(conn: sa.Connection, now: datetime) -> Removed:
    """Retired calls, with their attempts."""
    ids = conn.scalars(sa.select(webhook_call.c.id).where(webhook_call.c.keep_until <= now).limit(STEP)).all()
    if ids:
        conn.execute(sa.delete(webhook_attempt).where(webhook_attempt.c.call_id.in_(ids)))
        conn.execute(sa.delete(webhook_call).where(webhook_call.c.id.in_(ids)))
    return Removed(len(ids))


def events(conn: sa.Connection, now: datetime) -> Removed:
    """Events that no call waits to be made from."""
    needed = sa.exists().where(in_state(webhook_call, "queued"), webhook_call.c.event_id == event.c.id)
    ids = conn.scalars(sa.select(event.c.id).where(event.c.keep_until <= now, ~needed).limit(STEP)).all()
    if ids:
        conn.execute(sa.delete(event).where(event.c.id.in_(ids)))
    return Removed(len(ids))


def suppressions(conn: sa.Connection, now: datetime) -> Removed:
    """Entries of suppression lists that have expired."""
    old = sa.select(suppression.c.id).where(suppression.c.expires <= now).limit(STEP)
    return Removed(conn.execute(sa.delete(suppression).where(suppression.c.id.in_(old))).rowcount)


def counters(conn: sa.Connection, now: datetime) -> Removed:
    """Hourly counters that no limit looks at any more."""
    old = (
        sa.select(sent_hour.c.account, sent_hour.c.hour)
        .where(sent_hour.c.hour < hour_of(now) - 24)
        .limit(STEP)
    )
    key = sa.tuple_(sent_hour.c.account, sent_hour.c.hour)
    return Removed(conn.execute(sa.delete(sent_hour).where(key.in_(old))).rowcount)


def idempotency_results(conn: sa.Connection, now: datetime) -> Removed:
    """Answers that were kept for their 24 hours."""
    old = (
        sa.select(idempotency.c.account, idempotency.c.key)
        .where(idempotency.c.created <= now - KEPT)
        .limit(STEP)
    )
    key = sa.tuple_(idempotency.c.account, idempotency.c.key)
    return Removed(conn.execute(sa.delete(idempotency).where(key.in_(old))).rowcount)


def tls_results(conn: sa.Connection, now: datetime) -> Removed:
    """Results of days of which no report is made any more."""
    columns = tuple(tls_result.primary_key.columns)
    old = sa.select(*columns).where(tls_result.c.day < day_of(now) - KEPT_DAYS).limit(STEP)
    return Removed(conn.execute(sa.delete(tls_result).where(sa.tuple_(*columns).in_(old))).rowcount)
