"""How much is in an account's mailboxes: counted in the transactions that change it, so asking is cheap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

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


def added(conn: sa.Connection, messages: Iterable[tuple[str, int]]) -> None:
    """Messages came into mailboxes: each one's account, and its bytes."""
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    for account, size in messages:
        sizes[account].append(size)
    _COUNT.run_each(
        conn,
        [{"account": account, "messages": len(some), "bytes": sum(some)} for account, some in sizes.items()],
    )


def removed(conn: sa.Connection, account: str, size: int) -> None:
    _COUNT.run(conn, {"account": account, "messages": -1, "bytes": -size})


def used(conn: sa.Connection, account: str) -> int:
    """Bytes of all messages in the account's mailboxes; each counts, also where several share content."""
    return int(_BYTES.scalar(conn, {"account": account}) or 0)


def has_room(conn: sa.Connection, account: str, size: int, quota: int) -> bool:
    """Whether so many bytes more stay within a quota; 0 is none."""
    return not quota or used(conn, account) + size <= quota
