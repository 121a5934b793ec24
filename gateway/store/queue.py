"""The queue's way in, and the leases under which its messages are attempted. The way out is `settle`.

Each function is one step inside the caller's transaction; it may be run again after a rollback.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import Any

import sqlalchemy as sa

from gateway.errors import SubmissionRefused
from gateway.mail.address import Address
from gateway.model import Suppression
from gateway.store import holds, limits, suppressions
from gateway.store.changes import STEP, Claim, Claimed, Claims, ContentRef, NewMessages
from gateway.store.content import insert_content
from gateway.store.due import Due
from gateway.store.pages import found_in_state
from gateway.store.rows import new_attempt, queued_message, read_contents
from gateway.store.statements import Statement
from gateway.store.tables import MESSAGE_READY, AnyRow, UtcTime, attempt, message, webhook_call

INTERRUPTED_PAUSE = timedelta(seconds=30)  # after the start of an attempt that a crash cut off

# --- Adding ---------------------------------------------------------------------------------------

_INSERT = Statement(sa.insert(message))
_FROM_IDS = Statement(
    sa.select(message.c.from_id).where(
        message.c.from_id.in_(sa.bindparam("from_ids", expanding=True)), sa.text("from_id <> ''")
    )
)


def add(conn: sa.Connection, new: NewMessages, now: datetime) -> tuple[int, ...]:
    """Queues one message for each recipient, all or none; the IDs, in the order of the recipients.

    Raises Stale (hold rules changed) and SubmissionRefused (a limit is reached, a FromID is in use).
    """
    admit(conn, (new,), now)
    return add_admitted(conn, new, now)


def admit(conn: sa.Connection, together: Sequence[NewMessages], now: datetime) -> None:
    """What comes before `add_admitted`, for some submissions at once. Raises as `add`, for all of them."""
    if not all(new.recipients for new in together):
        raise ValueError("a submission needs a recipient")
    for generation in {new.hold_generation for new in together}:
        holds.check_generation(conn, generation)
    _check_from_ids(conn, [one.from_id for new in together for one in new.recipients if one.from_id])
    for (account, max_messages, max_first_time), alike in groupby(together, _limits):
        addresses = [recipient.address for new in alike for recipient in new.recipients]
        limits.count(conn, account, addresses, now, max_messages=max_messages, max_first_time=max_first_time)


def _limits(new: NewMessages) -> tuple[str, int | None, int | None]:
    return new.account, new.max_messages, new.max_first_time


def add_admitted(conn: sa.Connection, new: NewMessages, now: datetime) -> tuple[int, ...]:
    """`add` after `admit`."""
    content_id = insert_content(conn, new.content, now)
    rows = _new_rows(new, content_id, now)
    try:
        ids = [_INSERT.insert(conn, rows[0])]
        if len(rows) > 1:
            base_id = ids[0]
            conn.execute(sa.update(message).where(message.c.id == base_id).values(base_id=base_id))
            ids += _INSERT.insert_each(conn, [row | {"base_id": base_id} for row in rows[1:]])
    except sa.exc.IntegrityError as exc:
        # Another machine's transaction took the FromID after the check.
        raise SubmissionRefused("user", "a FromID of this submission is in use already") from exc
    return tuple(ids)


def _check_from_ids(conn: sa.Connection, from_ids: list[str]) -> None:
    for from_id, count in Counter(from_ids).items():
        if count > 1:
            raise SubmissionRefused("user", f"FromID {from_id!r} is used for two recipients")
    for start in range(0, len(from_ids), STEP):
        for (from_id,) in _FROM_IDS.all(conn, {"from_ids": from_ids[start : start + STEP]}):
            raise SubmissionRefused("user", f"FromID {from_id!r} is in use already")


def _new_rows(new: NewMessages, content_id: int, now: datetime) -> list[dict[str, Any]]:
    common: dict[str, Any] = {
        "base_id": 0,
        "submission_id": new.submission_id,
        "state": "queued",
        "account": new.account,
        "queued": now,
        "message_id": new.message_id,
        "message_id_secret": new.message_id_secret,
        "subject": new.subject,
        "size": new.content.size,
        "has_8bit": new.has_8bit,
        "smtputf8": new.smtputf8,
        "require_tls": new.require_tls,
        "transport": new.transport,
        "future_release": new.future_release,
        "dsn_ret": new.dsn_ret,
        "is_report": new.is_report,
        "extra": dict(new.extra),
        "content_id": content_id,
        "attempts": 0,
        "max_attempts": new.max_attempts,
        "dialed_ips": {},
        "next_attempt": now if new.not_before is None else max(now, new.not_before),
        "lease_token": 0,
        "retired_as": "",
        "list_name": new.list_name,
    }
    return [
        common
        | {
            "hold": recipient.hold,
            "recipient_localpart": recipient.address.localpart,
            "recipient_domain": recipient.address.domain,
            "base_address": recipient.base_address or str(recipient.address),
            "destination": recipient.destination,
            **_sender(recipient.sender or new.sender),
            "from_id": recipient.from_id,
            "from_id_secret": recipient.from_id_secret,
            "env_id": recipient.env_id,
            "env_id_origin": recipient.env_id_origin,
            "dsn_notify": recipient.dsn_notify,
            "dsn_orcpt": recipient.dsn_orcpt,
        }
        for recipient in new.recipients
    ]


def _sender(sender: Address | None) -> dict[str, str]:
    if sender is None:
        return {"sender_localpart": "", "sender_domain": ""}
    return {"sender_localpart": sender.localpart, "sender_domain": sender.domain}


# --- Claiming -------------------------------------------------------------------------------------

_DUE = Due(
    "message", "destination", MESSAGE_READY, one="CASE base_id WHEN 0 THEN -id ELSE base_id END"
)  # of one submission, most go together
_LOAD = Statement(
    sa.select(message, suppressions.ENTRY_OF_MESSAGE)
    .where(
        message.c.id.in_(sa.bindparam("ids", expanding=True)),
        found_in_state(message, "queued"),
        ~message.c.hold,
        message.c.lease_owner.is_(None),
    )
    # PostgreSQL: another machine may be claiming them.
    .with_for_update(skip_locked=True)
)
# What messages of one submission must have in common to share an SMTP transaction. One with a FromID has a
# reverse-path that no other has.
_SHARED = (
    "base_id", "destination", "recipient_domain", "sender_localpart", "sender_domain", "env_id", "dsn_ret",
    "smtputf8", "require_tls", "transport", "attempts",
)  # fmt: skip
_SIBLING_IDS = (
    f"SELECT id FROM {{}} WHERE base_id = :base AND base_id <> 0 AND {MESSAGE_READY}"  # noqa: S608 - a constant
    " AND destination = :destination AND next_attempt <= :now ORDER BY next_attempt, id LIMIT :most"
)


def _siblings(table: str) -> Statement:
    return Statement(sa.text(_SIBLING_IDS.format(table)).bindparams(sa.bindparam("now", type_=UtcTime())))


# As in `Due`: SQLite has to be told the index.
_SIBLINGS = {
    "sqlite": _siblings("message INDEXED BY message_siblings"),
    "postgresql": _siblings("message"),
}
_LEASE = Statement(
    sa.update(message)
    .where(message.c.id == sa.bindparam("row"))
    .values(
        lease_owner=sa.bindparam("owner"),
        lease_token=sa.bindparam("token"),
        lease_expires=sa.bindparam("expires"),
        attempts=sa.bindparam("number"),
        last_attempt=sa.bindparam("now"),
        next_attempt=sa.bindparam("fallback"),
    )
)
_ATTEMPT = Statement(sa.insert(attempt))
_HOLD = Statement(sa.update(message).where(message.c.id == sa.bindparam("row")).values(hold=True))


def next_due(conn: sa.Connection) -> datetime | None:
    """When the earliest message that is neither held nor leased is due.

    In the past, if its destination has no room.
    """
    return _DUE.next(conn)


def claim(conn: sa.Connection, wanted: Claim, fallback: Callable[[int, datetime], datetime]) -> Claims:
    """Takes leases on what is due, and records their attempts.

    `fallback(attempts, now)` is the next attempt's time should this one's result bring no other; it must be
    quick and must not raise.
    """
    busy = _DUE.with_others(conn, wanted.busy, wanted.owner) if wanted.shared else wanted.busy
    picked = _DUE.pick(
        conn, wanted.now, wanted.room, wanted.per_destination, busy, wanted.position, wanted.standing
    )
    groups, more = _transactions(conn, picked.ids, wanted)
    more = more or picked.more
    rows = [row for group in groups for row in group]
    contents = read_contents(conn, {row.content_id for row in rows})
    listed = [row.suppression_id for row in rows if row.suppression_id is not None]
    claimed = iter(_lease(conn, rows, wanted, fallback, contents, suppressions.by_id(conn, listed)))
    transactions = tuple(tuple(islice(claimed, len(group))) for group in groups)
    return Claims(transactions, picked.position, more, None if more else next_due(conn))


def _transactions(conn: sa.Connection, ids: Sequence[int], wanted: Claim) -> tuple[list[list[AnyRow]], bool]:
    """The rows with these IDs, in their order, each with those that share its SMTP transaction.

    True: some place was left because rows went together, or are held now.
    """
    if not ids:
        return [], False
    rows = _load(conn, ids, wanted)
    groups: dict[tuple[Any, ...], list[AnyRow]] = {}
    for row in rows:
        groups.setdefault(_shared(row), []).append(row)
    together: list[list[AnyRow]] = []
    for shared, group in groups.items():
        if len(shared) > 1 and len(group) < wanted.max_recipients:
            first = group[0]
            given = {
                "base": first.base_id,
                "destination": first.destination,
                "now": wanted.now,
                "most": wanted.max_recipients,
            }
            due = [row_id for (row_id,) in _SIBLINGS[conn.dialect.name].all(conn, given)]
            further = sorted(set(due) - {row.id for row in rows})
            group += [row for row in _load(conn, further, wanted) if _shared(row) == shared]
        together += [
            group[i : i + wanted.max_recipients] for i in range(0, len(group), wanted.max_recipients)
        ]
    held = _held_meanwhile(conn, [row for group in together for row in group])
    if held:
        _HOLD.run_each(conn, [{"row": row_id} for row_id in held])
        together = [left for group in together if (left := [row for row in group if row.id not in held])]
    return together, len(together) < len(rows)


def _load(conn: sa.Connection, ids: Sequence[int], wanted: Claim) -> list[AnyRow]:
    """Those of the rows that can be claimed, in the order of the IDs."""
    found = {row.id: row for row in _LOAD.all(conn, {"ids": ids, "now": wanted.now})} if ids else {}
    return [found[row_id] for row_id in ids if row_id in found]


def _shared(row: AnyRow) -> tuple[Any, ...]:
    """Equal for messages that share a transaction; one that shares none has only its ID."""
    if not row.base_id or row.from_id:
        return (row.id,)
    return tuple(getattr(row, name) for name in _SHARED)


def _lease(
    conn: sa.Connection,
    rows: Sequence[AnyRow],
    wanted: Claim,
    fallback: Callable[[int, datetime], datetime],
    contents: Mapping[int, ContentRef],
    entries: Mapping[int, Suppression],
) -> list[Claimed]:
    now = wanted.now
    expires = now + timedelta(seconds=wanted.lease_seconds)
    next_attempts = [fallback(row.attempts + 1, now) for row in rows]
    _LEASE.run_each(
        conn,
        [
            {
                "row": row.id,
                "owner": wanted.owner,
                "token": row.lease_token + 1,
                "expires": expires,
                "number": row.attempts + 1,
                "now": now,
                "fallback": next_attempt,
            }
            for row, next_attempt in zip(rows, next_attempts, strict=True)
        ],
    )
    attempt_ids = _ATTEMPT.insert_each(
        conn,
        [
            new_attempt(row.id, row.attempts + 1, "delivering", row.lease_token + 1, now, row.transport)
            for row in rows
        ],
    )
    return [
        Claimed(
            message=queued_message(
                row, attempts=row.attempts + 1, last_attempt=now, next_attempt=next_attempt
            ),
            token=row.lease_token + 1,
            attempt_id=attempt_id,
            lease_expires=expires,
            destination=row.destination,
            content=contents[row.content_id],
            future_release=row.future_release,
            dsn_ret=row.dsn_ret,
            dsn_notify=row.dsn_notify,
            dsn_orcpt=row.dsn_orcpt,
            is_report=row.is_report,
            dialed_ips=row.dialed_ips,
            suppression=entries.get(row.suppression_id),
            waits_since=row.waits_since,
        )
        for row, attempt_id, next_attempt in zip(rows, attempt_ids, next_attempts, strict=True)
    ]


def _held_meanwhile(conn: sa.Connection, rows: list[AnyRow]) -> set[int]:
    """Those that a rule matches whose holding of the whole queue is still under way: held when met."""
    rules = holds.unapplied(conn)
    return {
        row.id
        for row in rows
        for rule in rules
        if rule.matches(row.account, row.sender_domain, row.recipient_domain)
    }


# --- Leases of the dead ---------------------------------------------------------------------------

_OWNERS = sa.union(
    sa.select(message.c.lease_owner).where(message.c.lease_owner.is_not(None)),
    sa.select(webhook_call.c.lease_owner).where(webhook_call.c.lease_owner.is_not(None)),
)


def lease_owners(conn: sa.Connection) -> frozenset[str]:
    """Who holds leases, of messages or webhook calls."""
    return frozenset(conn.scalars(_OWNERS))


def recover(conn: sa.Connection, dead: Collection[str], now: datetime) -> int:
    """Ends the leases of `dead` owners and those that expired, at most 500; how many.

    Their attempts become "interrupted" and count; the messages are due 30 s after the attempt's start.
    """
    lost = conn.execute(
        sa.select(message.c.id, message.c.lease_owner, message.c.lease_token, message.c.last_attempt)
        .where(
            message.c.lease_owner.is_not(None),
            sa.or_(message.c.lease_expires <= now, message.c.lease_owner.in_(list(dead))),
        )
        .limit(STEP)
        .with_for_update(skip_locked=True)
    ).all()
    by_due: defaultdict[datetime, list[int]] = defaultdict(list)
    for row in lost:
        by_due[row.last_attempt + INTERRUPTED_PAUSE].append(row.id)
        stopped = row.lease_owner in dead
        error = "the gateway stopped during this attempt" if stopped else "the lease of this attempt ran out"
        conn.execute(
            sa.update(attempt)
            .where(
                attempt.c.message_id == row.id,
                attempt.c.lease_token == row.lease_token,
                attempt.c.state == "delivering",
            )
            .values(state="interrupted", success=False, error=error)
        )
    for due, ids in by_due.items():
        conn.execute(
            sa.update(message)
            .where(message.c.id.in_(ids))
            .values(lease_owner=None, lease_expires=None, next_attempt=due)
        )
    return len(lost)
