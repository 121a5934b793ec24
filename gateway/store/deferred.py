"""Messages in the queue that wait because a plugin failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from gateway.store.changes import STEP
from gateway.store.tables import attempt, message

MAX_PROBE_ATTEMPTS = 3  # of a message that is used to see whether a plugin answers again


def waiting(
    conn: sa.Connection, prefix: str, now: datetime, *, after: int = 0, probe: bool = False
) -> Sequence[int]:
    """The IDs of at most 500 messages, from the one behind `after` on, whose last attempt ended with an error
    that begins with `prefix`. `probe`: only one, with few attempts."""
    earlier = attempt.alias()
    last = (
        sa.select(sa.func.max(earlier.c.id))
        .where(earlier.c.message_id == message.c.id)
        .correlate(message)
        .scalar_subquery()
    )
    found = (
        sa.select(message.c.id)
        .join(attempt, attempt.c.message_id == message.c.id)
        .where(*_waits(now), message.c.id > after)
        .where(attempt.c.id == last, attempt.c.error.startswith(prefix, autoescape=True))
        .order_by(message.c.id)
        .limit(1 if probe else STEP)
    )
    if probe:
        found = found.where(message.c.attempts <= MAX_PROBE_ATTEMPTS)
    return conn.scalars(found).all()


def make_due(conn: sa.Connection, ids: Sequence[int], now: datetime) -> int:
    """Those of the messages that still wait are due now; how many."""
    update = sa.update(message).where(message.c.id.in_(list(ids)), *_waits(now)).values(next_attempt=now)
    return conn.execute(update).rowcount


def _waits(now: datetime) -> Sequence[sa.ColumnElement[bool]]:
    return (
        message.c.state == "queued",
        ~message.c.hold,
        message.c.lease_owner.is_(None),
        message.c.next_attempt > now,
    )
