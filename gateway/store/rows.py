"""Rows as the frozen data that leaves the store."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from gateway.mail.address import Address
from gateway.model import QueuedMessage
from gateway.store.changes import ContentRef
from gateway.store.statements import Statement
from gateway.store.tables import AnyRow, content

_CONTENT = Statement(
    sa.select(content.c.id, content.c.size, content.c.file).where(
        content.c.id.in_(sa.bindparam("ids", expanding=True))
    )
)
_DATA = Statement(sa.select(content.c.data).where(content.c.id == sa.bindparam("row")))


def new_attempt(
    message_id: int, number: int, state: str, token: int, start: datetime, transport: str
) -> dict[str, Any]:
    """A row of the table `attempt`, without a result."""
    return {
        "message_id": message_id,
        "number": number,
        "state": state,
        "lease_token": token,
        "start": start,
        "duration": 0.0,
        "success": None,
        "code": 0,
        "enhanced": "",
        "error": "",
        "transport": transport,
        "remote_mta": "",
        "remote_ip": "",
        "tls": "",
        "transcript": "",
    }


def read_contents(conn: sa.Connection, ids: Collection[int]) -> dict[int, ContentRef]:
    rows = _CONTENT.all(conn, {"ids": list(ids)})
    in_row = [row.id for row in rows if row.file is None]
    data = dict(zip(in_row, _DATA.scalar_each(conn, [{"row": row_id} for row_id in in_row]), strict=True))
    return {
        row.id: ContentRef(id=row.id, size=row.size, data=data.get(row.id), file=row.file) for row in rows
    }


def queued_message(row: AnyRow, **changed: Any) -> QueuedMessage:
    """A row of the table `message` as what leaves the store, with `changed` fields."""
    fields = {
        "id": row.id,
        "base_id": row.base_id,
        "submission_id": row.submission_id,
        "account": row.account,
        "sender": Address(row.sender_localpart, row.sender_domain) if row.sender_domain else None,
        "recipient": Address(row.recipient_localpart, row.recipient_domain),
        "queued": row.queued,
        "hold": row.hold,
        "attempts": row.attempts,
        "max_attempts": row.max_attempts,
        "next_attempt": row.next_attempt,
        "last_attempt": row.last_attempt,
        "message_id": row.message_id,
        "subject": row.subject,
        "size": row.size,
        "has_8bit": row.has_8bit,
        "smtputf8": row.smtputf8,
        "require_tls": row.require_tls,
        "transport": row.transport,
        "from_id": row.from_id,
        "env_id": row.env_id,
        "env_id_origin": row.env_id_origin,
        "message_id_secret": row.message_id_secret,
        "from_id_secret": row.from_id_secret,
        "extra": row.extra,
        "base_address": row.base_address,
    }
    return QueuedMessage(**(fields | changed))
