"""MTA-STS policies (RFC 8461) that were fetched, until they expire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime

import sqlalchemy as sa

from gateway.store.changes import STEP
from gateway.store.tables import AnyRow, mta_sts_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """See `tables.MtaStsPolicyRow`."""

    domain: str
    record_id: str
    text: bytes
    fetched: datetime
    expires: datetime
    used: datetime


_COLUMNS = tuple(mta_sts_policy.c[field.name] for field in fields(StoredPolicy))


def get(conn: sa.Connection, domain: str, now: datetime) -> StoredPolicy | None:
    """The domain's policy, if it has not expired."""
    row = conn.execute(
        sa.select(*_COLUMNS).where(mta_sts_policy.c.domain == domain, mta_sts_policy.c.expires > now)
    ).first()
    return None if row is None else _stored(row)


def put(conn: sa.Connection, new: StoredPolicy) -> None:
    """Replaces what the domain had."""
    conn.execute(sa.delete(mta_sts_policy).where(mta_sts_policy.c.domain == new.domain))
    conn.execute(sa.insert(mta_sts_policy), asdict(new))


def mark_used(conn: sa.Connection, domain: str, now: datetime) -> None:
    conn.execute(sa.update(mta_sts_policy).where(mta_sts_policy.c.domain == domain).values(used=now))


def to_refresh(
    conn: sa.Connection, *, fetched_before: datetime, used_since: datetime, now: datetime, limit: int
) -> Sequence[StoredPolicy]:
    """Policies that are in use and were fetched long ago, the oldest first."""
    rows = conn.execute(
        sa.select(*_COLUMNS)
        .where(
            mta_sts_policy.c.fetched <= fetched_before,
            mta_sts_policy.c.used >= used_since,
            mta_sts_policy.c.expires > now,
        )
        .order_by(mta_sts_policy.c.fetched)
        .limit(limit)
    )
    return [_stored(row) for row in rows]


def remove_expired(conn: sa.Connection, now: datetime) -> int:
    """At most 500 at a time; answers how many."""
    old = sa.select(mta_sts_policy.c.domain).where(mta_sts_policy.c.expires <= now).limit(STEP)
    return conn.execute(sa.delete(mta_sts_policy).where(mta_sts_policy.c.domain.in_(old))).rowcount


def _stored(row: AnyRow) -> StoredPolicy:
    return StoredPolicy(**row._asdict())
