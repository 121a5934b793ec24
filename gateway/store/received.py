"""Mail in mailboxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, cast

import sqlalchemy as sa

from gateway.errors import OverQuota
from gateway.mail import flags
from gateway.model import ReceivedMessage
from gateway.store import usage, webhook_calls
from gateway.store.changes import ContentRef, NewCopy, NewReceived, Received
from gateway.store.content import insert_contents, release_content
from gateway.store.events import NewEvent
from gateway.store.statements import Statement
from gateway.store.tables import AnyRow, content, mailbox, received

# Every account has these; they get their row when they are first used. So do those of its own that are
# configured; others begin with mail for them.
INBOX, SENT = "Inbox", "Sent"
STANDARD = frozenset({INBOX, SENT, "Archive", "Trash", "Drafts", "Junk"})

_MAILBOX = Statement(
    sa.select(mailbox.c.id).where(
        mailbox.c.account == sa.bindparam("account"), mailbox.c.name == sa.bindparam("name")
    )
)
_NEW_MAILBOX = sa.text(
    "INSERT INTO mailbox (account, name) VALUES (:account, :name) ON CONFLICT (account, name) DO NOTHING"
)
_INSERT = Statement(sa.insert(received))

_BY_ID = Statement(
    sa.select(
        received,
        mailbox.c.name.label("mailbox"),
        content.c.data,
        content.c.file,
        content.c.size.label("bytes"),
    )
    .join(mailbox, mailbox.c.id == received.c.mailbox_id)
    .join(content, content.c.id == received.c.content_id)
    .where(received.c.id == sa.bindparam("row"), received.c.account == sa.bindparam("account"))
)


def add(conn: sa.Connection, new: NewReceived, now: datetime) -> tuple[int, ...]:
    """Stores the content once and a row for each copy, with its event and calls; the IDs, in order.

    Raises OverQuota if no copy's account has room. Where one has, all are stored: a refusal would be of all,
    and a full account would keep the others from their mail.
    """
    return add_all(conn, [(new, now)])[0]


def add_all(conn: sa.Connection, messages: Sequence[tuple[NewReceived, datetime]]) -> list[tuple[int, ...]]:
    """`add` for each, with its time. Raises OverQuota for all of them."""
    _check_room(conn, [new for new, _ in messages])
    content_ids = insert_contents(conn, [(new.content, now) for new, now in messages])
    copies = [
        (copy, content_id, new.content.size, now)
        for (new, now), content_id in zip(messages, content_ids, strict=True)
        for copy in new.copies
    ]
    mailboxes = {
        key: _mailbox(conn, *key)
        for key in dict.fromkeys((copy.account, copy.mailbox) for copy, *_ in copies)
    }
    row_ids = _INSERT.insert_each(
        conn,
        [
            _new_row(copy, mailboxes[copy.account, copy.mailbox], content_id, size, now)
            for copy, content_id, size, now in copies
        ],
    )
    usage.added(conn, [(copy.account, size) for copy, _, size, _ in copies])
    webhook_calls.tell(
        conn,
        [
            (
                NewEvent(now, copy.account, "incoming", copy.event.keep_until, received_id=row_id),
                copy.event.calls,
            )
            for (copy, _, _, now), row_id in zip(copies, row_ids, strict=True)
            if copy.event is not None
        ],
    )
    ids = iter(row_ids)
    return [tuple(islice(ids, len(new.copies))) for new, _ in messages]


def _check_room(conn: sa.Connection, messages: Sequence[NewReceived]) -> None:
    coming: Counter[str] = Counter()  # bytes, of those before
    for new in messages:
        if not new.copies:
            raise ValueError("a received message needs a mailbox to go to")
        size = new.content.size
        if not any(
            usage.has_room(conn, copy.account, coming[copy.account] + size, copy.quota) for copy in new.copies
        ):
            accounts = ", ".join(sorted({copy.account for copy in new.copies}))
            raise OverQuota(f"no room for {size} bytes in {accounts}")
        for copy in new.copies:
            coming[copy.account] += size


def _new_row(copy: NewCopy, mailbox_id: int, content_id: int, size: int, now: datetime) -> dict[str, Any]:
    return {
        "account": copy.account,
        "mailbox_id": mailbox_id,
        "content_id": content_id,
        "received": now,
        "size": size,
        "flags": list(copy.flags),
        "mail_from": copy.mail_from,
        "mail_from_validated": copy.mail_from_validated,
        "rcpt_to": copy.rcpt_to,
        "msg_from": copy.msg_from,
        "msg_from_validated": copy.msg_from_validated,
        "dkim_verified_domains": list(copy.dkim_verified_domains),
        "remote_ip": copy.remote_ip,
        "dsn": copy.dsn,
        "automated": copy.automated,
        "message_id": copy.message_id,
        "subject": copy.subject,
    }


def _mailbox(conn: sa.Connection, account: str, name: str) -> int:
    key = {"account": account, "name": name}
    found = _MAILBOX.scalar(conn, key)
    if found is None:
        conn.execute(_NEW_MAILBOX, key)
        found = _MAILBOX.scalar(conn, key)
    return cast(int, found)


def get(conn: sa.Connection, account: str, message_id: int) -> Received | None:
    """None if there is none of that ID, or it is another account's."""
    row = _BY_ID.first(conn, {"row": message_id, "account": account})
    if row is None:
        return None
    return Received(
        message_from_row(row), ContentRef(id=row.content_id, size=row.bytes, data=row.data, file=row.file)
    )


def message_from_row(row: AnyRow) -> ReceivedMessage:
    return ReceivedMessage(
        id=row.id,
        account=row.account,
        mailbox=row.mailbox,
        received=row.received,
        size=row.size,
        flags=tuple(row.flags),
        mail_from=row.mail_from,
        mail_from_validated=row.mail_from_validated,
        rcpt_to=row.rcpt_to,
        msg_from=row.msg_from,
        msg_from_validated=row.msg_from_validated,
        dkim_verified_domains=tuple(row.dkim_verified_domains),
        remote_ip=row.remote_ip,
        dsn=row.dsn,
        automated=row.automated,
    )


def find_mailbox(
    conn: sa.Connection, account: str, name: str, standing: Collection[str] = STANDARD
) -> int | None:
    """The mailbox's ID; 0 for one of `standing` that was not used yet, None if there is none."""
    found = _MAILBOX.scalar(conn, {"account": account, "name": name})
    return cast("int | None", found) or (0 if name in standing else None)


def mailboxes(conn: sa.Connection, account: str) -> tuple[str, ...]:
    return tuple(
        conn.scalars(sa.select(mailbox.c.name).where(mailbox.c.account == account).order_by(mailbox.c.name))
    )


def change_flags(
    conn: sa.Connection, account: str, message_id: int, *, add: frozenset[str], remove: frozenset[str]
) -> bool:
    """False if the account has no such message. Flags come in their canonical form. Raises FlagError."""
    mine = _mine(account, message_id)
    before = conn.scalar(sa.select(received.c.flags).where(mine).with_for_update())
    if before is None:
        return False
    after = list(flags.changed(before, add, remove))
    if after != before:
        conn.execute(sa.update(received).where(mine).values(flags=after))
    return True


def move(
    conn: sa.Connection,
    account: str,
    message_id: int,
    mailbox_name: str,
    standing: Collection[str] = STANDARD,
) -> bool | None:
    """False if the account has no such message, else None if it has no such mailbox: see `find_mailbox`."""
    mine = _mine(account, message_id)
    if conn.scalar(sa.select(received.c.id).where(mine).with_for_update()) is None:
        return False
    mailbox_id = find_mailbox(conn, account, mailbox_name, standing)
    if mailbox_id is None:
        return None
    if not mailbox_id:
        mailbox_id = _mailbox(conn, account, mailbox_name)
    conn.execute(sa.update(received).where(mine).values(mailbox_id=mailbox_id))
    return True


def delete(conn: sa.Connection, account: str, message_id: int) -> list[str] | None:
    """The files to unlink once this is committed; None if the account has no such message."""
    gone = conn.execute(
        sa.delete(received)
        .where(_mine(account, message_id))
        .returning(received.c.content_id, received.c.size)
    ).first()
    if gone is None:
        return None
    usage.removed(conn, account, gone.size)
    return release_content(conn, [gone.content_id])


def _mine(account: str, message_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(received.c.id == message_id, received.c.account == account)
