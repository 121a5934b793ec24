"""How much is in an account's mailboxes: counted in the transactions that change it, so asking is cheap."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store.statements import Statement
from gateway.store.tables import mailbox_usage

_COUNT = Statement(
    sa.text(
        "INSERT INTO mailbox_usage (account, messages, bytes) VALUES (:account, :messages, :bytes)"
        " ON CONFLICT (account) DO UPDATE SET messages = mailbox_usage.messages + excluded.messages,"
        " bytes = mailbox_usage.bytes + excluded.bytes"
    )
)
_BYTES = Statement(sa.select(mailbox_usage.c.bytes).where(mailbox_usage.c.account == sa.bindparam("account")))


def added(conn: sa.Connection, account: str, size: int) -> None:
    """A message of so many bytes came into a mailbox."""
    _COUNT.run(conn, {"account": account, "messages": 1, "bytes": size})


def removed(conn: sa.Connection, account: str, size: int) -> None:
    _COUNT.run(conn, {"account": account, "messages": -1, "bytes": -size})


def used(conn: sa.Connection, account: str) -> int:
    """Bytes of all messages in the account's mailboxes; each counts, also where several share content."""
    return int(_BYTES.scalar(conn, {"account": account}) or 0)


def has_room(conn: sa.Connection, account: str, size: int, quota: int) -> bool:
    """Whether so many bytes more stay within a quota; 0 is none."""
    return not quota or used(conn, account) + size <= quota
