"""Looking into the queue and its history: filters, stable pages, single messages, counts."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from gateway.mail.address import AddressError, parse_domain
from gateway.model import QueuedMessage
from gateway.store.changes import ContentRef
from gateway.store.pages import State, read_page
from gateway.store.rows import queued_message, read_contents
from gateway.store.statements import Statement
from gateway.store.tables import AnyRow, attempt, message

MAX_IDS = 10_000  # in one filter: databases limit the parameters of a statement

# Said in queries so that the partial indexes are used.
_NOT_EMPTY = {name: message.c[name] != sa.literal_column("''") for name in ("from_id", "env_id")}

# An attempt that does not count leaves its number to the next one.
_LAST_OF_NUMBER = (
    sa.select(sa.func.max(attempt.c.id))
    .where(
        attempt.c.message_id == sa.bindparam("message"),
        attempt.c.number >= sa.bindparam("first"),
        attempt.c.number < sa.bindparam("before"),
    )
    .group_by(attempt.c.number)
)
_RESULTS = Statement(
    sa.select(sa.func.count())
    .select_from(attempt)
    .where(attempt.c.id.in_(_LAST_OF_NUMBER), attempt.c.state == "done")
)

Sort = Literal["next_attempt", "queued"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """All conditions given must match.

    `from_` and `to` are substrings of the address. Case is ignored, of localparts that of ASCII; domains may
    be in Unicode or in A-labels.
    """

    ids: tuple[int, ...] | None = None
    account: str = ""
    from_: str = ""
    to: str = ""
    sender_domain: str = ""
    recipient_domain: str = ""
    hold: bool | None = None
    submitted_before: datetime | None = None
    submitted_after: datetime | None = None
    next_attempt_before: datetime | None = None
    next_attempt_after: datetime | None = None
    last_activity_before: datetime | None = None
    last_activity_after: datetime | None = None
    transport: str | None = None
    message_id: str = ""
    from_id: str = ""
    state: State | None = None  # None: both
    success: bool | None = None
    maximum: int | None = None  # of an action: it changes no more, and those queued first; a page has its own

    def __post_init__(self) -> None:
        if self.ids is not None and len(self.ids) > MAX_IDS:
            raise ValueError(f"a filter takes at most {MAX_IDS} IDs, not {len(self.ids)}")
        if self.maximum is not None and self.maximum < 1:
            raise ValueError(f"a filter's maximum is 1 or more, not {self.maximum}")

    @property
    def empty(self) -> bool:
        """Whether it matches everything, whatever the account and state."""
        return all(
            getattr(self, field.name) in (None, "")
            for field in fields(self)
            if field.name not in ("account", "state", "maximum")
        )


@dataclass(frozen=True, slots=True)
class Item:
    """A message in a list. `state` and what follows it say how it left the queue, if it did."""

    message: QueuedMessage
    state: str
    leased: bool  # an attempt is under way
    future_release: str
    dsn_ret: str
    dsn_notify: str
    dsn_orcpt: str
    is_report: str  # dmarc, tls
    dialed_ips: Mapping[str, Sequence[str]]  # by host
    retired_as: str
    success: bool | None
    last_activity: datetime | None
    keep_until: datetime | None
    content_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    id: int
    number: int  # from 1; 0 for what was no attempt of ours
    state: str  # delivering, done, interrupted, late
    start: datetime
    duration: float  # seconds
    success: bool | None
    code: int
    enhanced: str
    error: str
    transport: str
    remote_mta: str
    remote_ip: str
    tls: str
    transcript: str


@dataclass(frozen=True, slots=True)
class Page:
    items: tuple[Item, ...]
    cursor: str  # for the next page; empty at the end


def page(
    conn: sa.Connection,
    wanted: Filter,
    *,
    sort: Sort = "queued",
    ascending: bool = True,
    cursor: str = "",
    maximum: int = 100,
) -> Page:
    """The messages that match, by (value, ID): what comes and goes meanwhile moves nobody to another page.

    Raises ValueError for a cursor that no page answered, or a page over 1000.
    """
    rows, following = read_page(
        conn,
        message,
        message.c[sort],
        conditions(wanted),
        (wanted.state,) if wanted.state else ("queued", "retired"),
        ascending=ascending,
        cursor=cursor,
        maximum=maximum,
        few=wanted.ids is not None or bool(wanted.message_id or wanted.from_id),
    )
    return Page(tuple(item_from_row(row) for row in rows), following)


def get(conn: sa.Connection, message_id: int, account: str = "") -> tuple[Item, tuple[Attempt, ...]] | None:
    """A message with its attempts, oldest first; None if there is none, or it is not the given account's."""
    wanted = Filter(ids=(message_id,), account=account)
    row = conn.execute(sa.select(message).where(*conditions(wanted))).first()
    if row is None:
        return None
    attempts = conn.execute(
        sa.select(attempt).where(attempt.c.message_id == message_id).order_by(attempt.c.id)
    )
    return item_from_row(row), tuple(
        Attempt(
            **{
                name: value
                for name, value in row._mapping.items()
                if name not in ("message_id", "lease_token")
            }
        )
        for row in attempts
    )


def any_has_result(conn: sa.Connection, message_id: int, first: int, before: int) -> bool:
    """Whether one of the attempts from number `first` to below `before` has a result that counts."""
    return bool(_RESULTS.scalar(conn, {"message": message_id, "first": first, "before": before}))


def content_of(conn: sa.Connection, message_id: int) -> ContentRef | None:
    """A message's content, as long as it is kept."""
    content_id = conn.scalar(sa.select(message.c.content_id).where(message.c.id == message_id))
    return None if content_id is None else read_contents(conn, [content_id])[content_id]


def find(
    conn: sa.Connection,
    *,
    from_id: str = "",
    env_id: str = "",
    message_id: str = "",
    account: str = "",
    maximum: int = 100,
) -> tuple[Item, ...]:
    """Messages by an identifier that a report brought back, queued or retired, the newest first."""
    given: list[sa.ColumnElement[bool]] = []
    if from_id:
        given += [message.c.from_id == from_id, _NOT_EMPTY["from_id"]]
    if env_id:
        given += [message.c.env_id == env_id, _NOT_EMPTY["env_id"]]
    if message_id:
        given.append(message.c.message_id == message_id)
    if not given:
        return ()
    if account:
        given.append(message.c.account == account)
    statement = sa.select(message).where(*given).order_by(message.c.id.desc()).limit(maximum)
    return tuple(item_from_row(row) for row in conn.execute(statement))


def count_held(conn: sa.Connection) -> int:
    """How many messages are on hold; what is retired is not."""
    return conn.execute(sa.select(sa.func.count()).select_from(message).where(sa.text("hold"))).scalar_one()


def counts(conn: sa.Connection) -> dict[str, int]:
    """Messages by state; walks an index over all of them, so for people and slow gauges only."""
    states = conn.execute(sa.select(message.c.state, sa.func.count()).group_by(message.c.state)).all()
    return {"queued": 0, "retired": 0} | {row[0]: row[1] for row in states}


# --- What the actions use as well -----------------------------------------------------------------


def conditions(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    """The filter's conditions but for the state."""
    c = message.c
    found: list[sa.ColumnElement[bool]] = []
    if wanted.ids is not None:
        found.append(c.id.in_(wanted.ids))
    for column, text in (
        (c.account, wanted.account),
        (c.sender_domain, wanted.sender_domain),
        (c.recipient_domain, wanted.recipient_domain),
        (c.message_id, wanted.message_id),
    ):
        if text:
            found.append(column == text)
    if wanted.from_id:
        found += [c.from_id == wanted.from_id, _NOT_EMPTY["from_id"]]
    for localpart, domain, text in (
        (c.sender_localpart, c.sender_domain, wanted.from_),
        (c.recipient_localpart, c.recipient_domain, wanted.to),
    ):
        if text:
            address = localpart + "@" + domain
            found.append(sa.or_(*(address.icontains(one, autoescape=True) for one in _spellings(text))))
    for column, before, after in (
        (c.queued, wanted.submitted_before, wanted.submitted_after),
        (c.next_attempt, wanted.next_attempt_before, wanted.next_attempt_after),
        (c.last_activity, wanted.last_activity_before, wanted.last_activity_after),
    ):
        if before is not None:
            found.append(column < before)
        if after is not None:
            found.append(column > after)
    if wanted.hold is not None:
        found.append(c.hold == wanted.hold)
    if wanted.transport is not None:
        found.append(c.transport == wanted.transport)
    if wanted.success is not None:
        found.append(c.success == wanted.success)
    return found


def _spellings(text: str) -> list[str]:
    """What a part of an address may stand for: SQLite ignores the case of ASCII only, and domains are stored
    in lower case and in Unicode.

    Without an @ it may be of a localpart, whose case is kept, so that it is looked for as it is, too.
    """
    before, at, after = unicodedata.normalize("NFC", text).rpartition("@")
    domain = ".".join(_label(label) for label in after.split("."))
    found = (before + at + after, (before + at + after).lower(), before + at + domain)
    # Those that the database takes for the same are looked for once.
    return list(dict.fromkeys(one.lower() if one.isascii() else one for one in found))


def _label(text: str) -> str:
    """A label of a domain, or a part of one, as domains are stored."""
    try:
        return parse_domain(text)
    except AddressError:
        return text.lower()


def item_from_row(row: AnyRow) -> Item:
    return Item(
        message=queued_message(row),
        state=row.state,
        leased=row.lease_owner is not None,
        future_release=row.future_release,
        dsn_ret=row.dsn_ret,
        dsn_notify=row.dsn_notify,
        dsn_orcpt=row.dsn_orcpt,
        is_report=row.is_report,
        dialed_ips=row.dialed_ips,
        retired_as=row.retired_as,
        success=row.success,
        last_activity=row.last_activity,
        keep_until=row.keep_until,
        content_id=row.content_id,
    )


def last_errors(conn: sa.Connection, ids: Collection[int]) -> dict[int, str]:
    """The errors of the last attempts at messages, of those that had one."""
    latest = sa.select(sa.func.max(attempt.c.id)).where(attempt.c.message_id.in_(ids), attempt.c.error != "")
    rows = conn.execute(
        sa.select(attempt.c.message_id, attempt.c.error).where(
            attempt.c.id.in_(latest.group_by(attempt.c.message_id))
        )
    )
    return {row.message_id: row.error for row in rows}
