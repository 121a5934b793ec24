"""Messages in the queue that wait because a plugin failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from gateway.store.changes import STEP
from gateway.store.tables import MESSAGE_WAITING, message


def plugins(conn: sa.Connection) -> Sequence[str]:
    """Those that any message waits for."""
    return conn.scalars(sa.select(message.c.waits_for).where(sa.text(MESSAGE_WAITING)).distinct()).all()


def waiting(
    conn: sa.Connection, plugin: str, now: datetime, *, after: int = 0, most: int = STEP
) -> Sequence[int]:
    """The IDs of those that wait for a plugin, from the one behind `after` on."""
    found = (
        sa.select(message.c.id)
        .where(sa.text(MESSAGE_WAITING), message.c.waits_for == plugin, *_waits(now), message.c.id > after)
        .order_by(message.c.id)
        .limit(most)
    )
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
