"""Lists of an account's messages, the newest first."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from gateway.model import ReceivedMessage
from gateway.store.pages import MAX_PAGE, beyond, make_cursor, parse_cursor
from gateway.store.received import STANDARD, find_mailbox, message_from_row
from gateway.store.tables import mailbox, received

EXAMINED = 5_000  # messages looked at for one page: a page may be short, or empty, and yet have a next one
SEARCHED = 1_000  # characters of a text that are searched

_c = received.c


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFilter:
    """Which messages are wanted: those that everything set here holds for."""

    mailbox: str = ""
    flags: frozenset[str] = frozenset()  # canonical; all of them are set
    not_flags: frozenset[str] = frozenset()  # none of them is
    from_: str = ""  # within the address in From, whatever the case of ASCII letters; so are the next two
    to: str = ""  # within the recipient's address
    subject: str = ""
    since: datetime | None = None  # when the message came: then, or later
    before: datetime | None = None  # earlier

    @property
    def searching(self) -> bool:
        """Whether messages have to be looked at that are then not wanted."""
        return bool(self.flags or self.not_flags or self.from_ or self.to or self.subject)


@dataclass(frozen=True, slots=True)
class ListedMessage:
    message: ReceivedMessage
    message_id: str
    subject: str


def page(
    conn: sa.Connection,
    account: str,
    wanted: MessageFilter,
    *,
    cursor: str = "",
    maximum: int = 100,
    standing: Collection[str] = STANDARD,
) -> tuple[tuple[ListedMessage, ...], str] | None:
    """The account's messages that match, and the next page's cursor, empty at the end.

    None if there is no such mailbox, and it is none of `standing`. Raises ValueError for a cursor that no
    page ended with, or a page over 1000.
    """
    if not 1 <= maximum <= MAX_PAGE:
        raise ValueError(f"a page has 1 to {MAX_PAGE} messages, not {maximum}")
    places = [_c.account == account]
    if wanted.mailbox:
        found = find_mailbox(conn, account, wanted.mailbox, standing)
        if found is None:
            return None
        places.append(_c.mailbox_id == found)
    if wanted.since is not None:
        places.append(_c.received >= wanted.since)
    ends = [parse_cursor(cursor)] if cursor else []
    if wanted.before is not None:
        ends.append((wanted.before, 0))  # no ID is under 1
    if ends:
        # One bound: of two, SQLite may walk all that is between them.
        places.append(beyond(_c.received, _c.id, min(ends), ascending=False))

    order = (_c.received.desc(), _c.id.desc())
    searching = wanted.searching
    examined = sa.select(received).where(*places).order_by(*order)
    examined = examined.limit(EXAMINED if searching else maximum + 1)
    rows = conn.execute(_matching(examined.subquery(), wanted).limit(maximum + 1)).all()
    shown = tuple(ListedMessage(message_from_row(row), row.message_id, row.subject) for row in rows[:maximum])
    if len(rows) > maximum:
        return shown, make_cursor(rows[maximum - 1].received, rows[maximum - 1].id)
    if not searching:
        return shown, ""
    last = conn.execute(
        sa.select(_c.received, _c.id).where(*places).order_by(*order).offset(EXAMINED - 1).limit(1)
    ).first()
    return shown, "" if last is None else make_cursor(last.received, last.id)


def _matching(examined: sa.Subquery, wanted: MessageFilter) -> sa.Select[tuple[Any, ...]]:
    c = examined.c
    flags = sa.cast(c.flags, sa.String)  # JSON, in which quotes stand around each flag and nowhere else
    conditions = [flags.contains(json.dumps(flag), autoescape=True) for flag in sorted(wanted.flags)]
    conditions += [~flags.contains(json.dumps(flag), autoescape=True) for flag in sorted(wanted.not_flags)]
    for column, text in ((c.msg_from, wanted.from_), (c.rcpt_to, wanted.to), (c.subject, wanted.subject)):
        if text:
            searched = sa.func.substr(column, 1, SEARCHED, type_=sa.String)
            conditions.append(searched.icontains(text, autoescape=True))
    # No join: it might begin with everybody's mailboxes.
    name = sa.select(mailbox.c.name).where(mailbox.c.id == c.mailbox_id).scalar_subquery().label("mailbox")
    return sa.select(examined, name).where(*conditions).order_by(c.received.desc(), c.id.desc())
