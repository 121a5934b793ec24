"""Answers that are kept for 24 hours, so that a Send that is repeated with its Idempotency-Key sends once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from gateway.errors import KeyUsed
from gateway.store.tables import idempotency

KEPT = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Kept:
    digest: bytes  # of the request as parsed
    result: Mapping[str, Any]


def get(conn: sa.Connection, account: str, key: str, now: datetime) -> Kept | None:
    row = conn.execute(
        sa.select(idempotency.c.digest, idempotency.c.result).where(
            idempotency.c.account == account,
            idempotency.c.key == key,
            idempotency.c.created > now - KEPT,
        )
    ).first()
    return None if row is None else Kept(row.digest, row.result)


def put(conn: sa.Connection, account: str, key: str, kept: Kept, now: datetime) -> None:
    """In the transaction that queues the messages. Raises KeyUsed if it was used meanwhile."""
    conn.execute(
        sa.delete(idempotency).where(
            idempotency.c.account == account,
            idempotency.c.key == key,
            idempotency.c.created <= now - KEPT,
        )
    )
    try:
        conn.execute(
            sa.insert(idempotency),
            {
                "account": account,
                "key": key,
                "created": now,
                "digest": kept.digest,
                "result": dict(kept.result),
            },
        )
    except sa.exc.IntegrityError as exc:
        raise KeyUsed(f"Idempotency-Key {key!a} was used by another request meanwhile") from exc
