"""What became of a message, written in one go: history, queue, suppression, event, webhook calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

import sqlalchemy as sa

from gateway.errors import Stale
from gateway.mail.address import Address
from gateway.model import Earlier, Result
from gateway.store import events, received, suppressions, tls_results, webhook_calls
from gateway.store.changes import (
    EventDraft,
    NewReceived,
    Report,
    Reschedule,
    Retire,
    Settled,
    Settlement,
    Suppress,
)
from gateway.store.content import release_content
from gateway.store.rows import new_attempt
from gateway.store.statements import Statement
from gateway.store.tables import AnyRow, attempt, message


class _Message(NamedTuple):
    """What an event says of a message."""

    id: int
    account: str
    sender_localpart: str
    sender_domain: str
    recipient_localpart: str
    recipient_domain: str
    from_id: str
    message_id: str
    subject: str
    extra: Mapping[str, str]
    attempts: int


class _News(NamedTuple):
    """What there is to tell of a message."""

    row: AnyRow | _Message
    event: EventDraft | None
    notice: NewReceived | None
    suppress: Suppress | None
    now: datetime


_GONE = _Message(0, "", "", "", "", "", "", "", "", {}, 0)
HISTORY = 10  # earlier messages to an address that a decision to suppress it may rest on

_c = message.c
_LOAD = Statement(
    sa.select(
        _c.id, _c.state, _c.account, _c.recipient_localpart, _c.recipient_domain, _c.from_id, _c.message_id,
        _c.subject, _c.extra, _c.attempts, _c.content_id, _c.lease_owner, _c.lease_token, _c.success,
        _c.sender_localpart, _c.sender_domain,
    )
    .where(_c.id.in_(sa.bindparam("ids", expanding=True)))
    .with_for_update()
)  # fmt: skip
_FINISH_ATTEMPT = Statement(
    sa.update(attempt)
    # A result that is in stays; one that comes twice changes nothing.
    .where(attempt.c.id == sa.bindparam("row"), attempt.c.state != "done")
    .values(
        {
            name: sa.bindparam(f"new_{name}")
            for name in (
                "state", "duration", "success", "code", "enhanced", "error",
                "transport", "remote_mta", "remote_ip", "tls", "transcript",
            )
        }
    )
)  # fmt: skip
_HISTORY = Statement(sa.insert(attempt))
_RESCHEDULE = Statement(
    sa.update(message)
    .where(_c.id == sa.bindparam("row"))
    .values(
        lease_owner=None,
        lease_expires=None,
        next_attempt=sa.bindparam("due"),
        success=None,
        attempts=_c.attempts - sa.bindparam("uncounted"),
        waits_for=sa.bindparam("plugin"),
        waits_since=sa.bindparam("since"),
    )
)
_DIALED = Statement(
    sa.update(message).where(_c.id == sa.bindparam("row")).values(dialed_ips=sa.bindparam("dialed"))
)
_RETIRE = Statement(
    sa.update(message)
    .where(_c.id == sa.bindparam("row"))
    .values(
        state="retired",
        hold=False,
        lease_owner=None,
        lease_expires=None,
        retired_as=sa.bindparam("as"),
        success=sa.bindparam("succeeded"),
        last_activity=sa.bindparam("now"),
        keep_until=sa.bindparam("keep"),
        waits_for="",
        content_id=sa.bindparam("content"),
    )
)

_REMOVE_ATTEMPTS = Statement(
    sa.delete(attempt).where(attempt.c.message_id.in_(sa.bindparam("ids", expanding=True)))
)
_REMOVE = Statement(sa.delete(message).where(_c.id.in_(sa.bindparam("ids", expanding=True))))

# In the history of a message: a report that cannot be forged says that it failed.
_PROVEN = (
    sa.select(attempt.c.id)
    .where(attempt.c.message_id == _c.id, attempt.c.number == 0, attempt.c.success.is_(False))
    .correlate(message)
    .exists()
)


def settle_all(
    conn: sa.Connection, transactions: Sequence[tuple[Sequence[Settlement], datetime]]
) -> list[tuple[Settled, ...]]:
    """Applies the results of attempts: of the recipients of SMTP transactions, each with its time.

    Messages are rescheduled or retired, and everybody concerned is told, in the order given. Where a lease is
    lost (expired and recovered, the message canceled, claimed again) only the attempt's row is finished, as
    "late". Raises Stale, for all of them, if a suppression relied on a history that has grown.
    """
    given = [(change, now) for changes, now in transactions for change in changes]
    rows = _load(conn, [change.message_id for change, _ in given])
    leased = {
        (row.id, row.lease_token): row
        for row in rows.values()
        if row.state == "queued" and row.lease_owner is not None
    }
    ended = [(leased.pop((change.message_id, change.token), None), change, now) for change, now in given]
    _finish_attempts(conn, [(change, "late" if row is None else "done") for row, change, _ in ended])
    for _, change, now in ended:
        tls_results.add(conn, change.outcome.tls_results, now)
    mine = [(row, _as_told(row, change), now) for row, change, now in ended if row is not None]
    _reschedule(conn, [(row, change.then) for row, change, _ in mine if isinstance(change.then, Reschedule)])
    files = retire(
        conn, [(row, change.then, now) for row, change, now in mine if isinstance(change.then, Retire)]
    )
    news = [_News(row, change.event, change.notice, change.suppress, now) for row, change, now in mine]
    applied = iter(_announce(conn, news, files))
    settled = iter([Settled(applied=False) if row is None else next(applied) for row, _, _ in ended])
    return [tuple(islice(settled, len(changes))) for changes, _ in transactions]


def report(conn: sa.Connection, change: Report, now: datetime) -> Settled:
    """Adds to a message's history what came to be known of it; not applied if it is gone.

    Raises Stale if it was to be retired but is no longer queued, or as `settle_all` does.
    """
    row = load(conn, change.message_id)
    if row is None:
        return Settled(applied=False)
    if change.retire is not None and row.state != "queued":
        raise Stale(f"message {row.id} is no longer queued")
    record(conn, row.id, now, change)
    files: list[str] = []
    if change.retire is not None:
        files = retire(conn, [(row, change.retire, now)])
    elif row.state == "retired":
        values: dict[str, Any] = {"last_activity": now}
        if change.success is not None:
            values["success"] = change.success
        conn.execute(sa.update(message).where(_c.id == row.id).values(values))
    elif row.lease_owner is not None and change.success is False:
        # For the attempt that is under way: see `_as_told`.
        conn.execute(sa.update(message).where(_c.id == row.id).values(success=False))
    return _announce(conn, [_News(row, change.event, change.notice, change.suppress, now)], files)[0]


def unsubscribe(
    conn: sa.Connection, account: str, recipient: Address, message_id: str, change: Report, now: datetime
) -> Settled:
    """As `report`, for the newest message with that Message-ID to the recipient.

    If it is kept no more, the suppression is added and the event told all the same, with QueueMsgID 0.
    """
    row_id = conn.scalar(
        sa.select(sa.func.max(_c.id)).where(
            _c.message_id == message_id,
            _c.account == account,
            _c.recipient_domain == recipient.domain,
            _c.recipient_localpart == recipient.localpart,
        )
    )
    if row_id is not None:
        return report(conn, replace(change, message_id=row_id), now)
    gone = _GONE._replace(
        account=account,
        recipient_localpart=recipient.localpart,
        recipient_domain=recipient.domain,
        message_id=message_id,
    )
    return _announce(conn, [_News(gone, change.event, None, change.suppress, now)], [])[0]


def latest_retired(
    conn: sa.Connection, account: str, recipient: Address, *, excluding: int
) -> tuple[Earlier, ...]:
    """The account's latest delivered or failed messages to an address, the newest first.

    Those that were canceled or suppressed say nothing of the address and do not count. A delivered one failed
    only if a report that cannot be forged says so: else a stranger's bounces would count as failures.
    """
    rows = conn.execute(
        sa.select(_c.id, _c.last_activity, sa.and_(_c.retired_as == "delivered", ~_PROVEN).label("success"))
        .where(
            _c.state == sa.literal_column("'retired'"),
            _c.account == account,
            _c.recipient_domain == recipient.domain,
            _c.recipient_localpart == recipient.localpart,
            _c.retired_as.in_(("delivered", "failed")),
            _c.id != excluding,
        )
        .order_by(_c.last_activity.desc(), _c.id.desc())
        .limit(HISTORY)
    )
    return tuple(Earlier(id=row.id, time=row.last_activity, success=bool(row.success)) for row in rows)


# --- The parts ------------------------------------------------------------------------------------


def load(conn: sa.Connection, message_id: int) -> AnyRow | None:
    """What the parts below need to know of a message."""
    return _load(conn, [message_id]).get(message_id)


def record(conn: sa.Connection, message_id: int, now: datetime, change: Report) -> None:
    """A line of history that was no attempt of ours."""
    _HISTORY.run(
        conn,
        new_attempt(message_id, 0, "done", 0, now, "")
        | {
            "success": change.success if change.trusted else None,
            "code": change.code,
            "enhanced": change.enhanced,
            "error": change.error,
            "remote_mta": change.remote_mta,
        },
    )


def retire(conn: sa.Connection, ended: Sequence[tuple[AnyRow, Retire, datetime]]) -> list[str]:
    """Takes messages out of the queue, their leases with them; the files to unlink."""
    kept = [(row, how, now) for row, how, now in ended if how.keep_until is not None]
    with_content = {row.id for row, how, _ in kept if how.keep_content}
    _RETIRE.run_each(
        conn,
        [
            {
                "row": row.id,
                "as": how.retired_as,
                "succeeded": how.success,
                "now": now,
                "keep": how.keep_until,
                "content": row.content_id if row.id in with_content else None,
            }
            for row, how, now in kept
        ],
    )
    if removed := [row.id for row, how, _ in ended if how.keep_until is None]:
        _REMOVE_ATTEMPTS.run(conn, {"ids": removed})
        _REMOVE.run(conn, {"ids": removed})
    unused = {row.content_id for row, _, _ in ended if row.id not in with_content}
    return release_content(conn, unused - {None})


def event_of(row: AnyRow | _Message, draft: EventDraft, suppressing: bool, now: datetime) -> events.NewEvent:
    return events.NewEvent(
        time=now,
        account=row.account,
        name=draft.name,
        keep_until=draft.keep_until,
        queue_msg_id=row.id,
        data={
            "from_id": row.from_id,
            "message_id": row.message_id,
            "subject": row.subject,
            "recipient": str(Address(row.recipient_localpart, row.recipient_domain)),
            "attempt": row.attempts,
            "dsn": draft.dsn,
            "suppressing": suppressing,
            "code": draft.code,
            "enhanced": draft.enhanced,
            "error": draft.error,
            "remote_mta": draft.remote_mta,
            "matched_by": draft.matched_by,
            "extra": row.extra,
            "sender": str(Address(row.sender_localpart, row.sender_domain)) if row.sender_domain else "",
        },
    )


def _load(conn: sa.Connection, message_ids: Sequence[int]) -> dict[int, AnyRow]:
    return {row.id: row for row in _LOAD.all(conn, {"ids": message_ids})}


def _finish_attempts(conn: sa.Connection, ended: Sequence[tuple[Settlement, str]]) -> None:
    """With the state that each is to have."""
    rows: dict[int, dict[str, Any]] = {}
    for change, state in ended:
        outcome = change.outcome
        row = {
            "row": change.attempt_id,
            "new_state": state,
            "new_duration": change.duration,
            "new_success": outcome.result is Result.DELIVERED,
            "new_code": outcome.code,
            "new_enhanced": outcome.enhanced,
            "new_error": outcome.error,
            "new_transport": change.transport,
            "new_remote_mta": outcome.remote_mta,
            "new_remote_ip": outcome.remote_ip,
            "new_tls": outcome.tls,
            "new_transcript": outcome.transcript,
        }
        rows.setdefault(change.attempt_id, row)
    _FINISH_ATTEMPT.run_each(conn, list(rows.values()))


def _as_told(row: AnyRow, change: Settlement) -> Settlement:
    """If a report was faster than the next hop's answer to us, what it said stands, and is what is told."""
    if row.success is not False or not isinstance(change.then, Retire) or not change.then.success:
        return change
    event = change.event and replace(
        change.event, calls=tuple(call for call in change.event.calls if not call.supersede)
    )
    return replace(change, then=replace(change.then, success=False), event=event)


def _reschedule(conn: sa.Connection, again: Sequence[tuple[AnyRow, Reschedule]]) -> None:
    _RESCHEDULE.run_each(
        conn,
        [
            {
                "row": row.id,
                "due": then.next_attempt,
                "uncounted": 0 if then.counted else 1,
                "plugin": then.waits_for,
                "since": then.waits_since,
            }
            for row, then in again
        ],
    )
    for row, then in again:
        if then.dialed_ips is not None:
            _DIALED.run(conn, {"row": row.id, "dialed": dict(then.dialed_ips)})


def _suppress(conn: sa.Connection, row: AnyRow | _Message, entry: Suppress | None, now: datetime) -> bool:
    """Whether this put the address on the list."""
    if entry is None:
        return False
    if entry.history is not None:
        recipient = Address(row.recipient_localpart, row.recipient_domain)
        before = latest_retired(conn, row.account, recipient, excluding=row.id)
        if tuple(earlier.id for earlier in before) != entry.history:
            raise Stale(f"message {row.id}: other messages to {recipient} were retired meanwhile")
    return suppressions.add(
        conn,
        now,
        account=row.account,
        base_address=entry.base_address,
        original_address=entry.original_address,
        manual=False,
        reason=entry.reason,
        expires=entry.expires,
        list_name=entry.list_name,
    )


def _announce(conn: sa.Connection, news: Sequence[_News], files: Sequence[str]) -> list[Settled]:
    """Tells everybody concerned; what was done. The files are there to unlink for whoever has the first."""
    suppressing = [_suppress(conn, one.row, one.suppress, one.now) for one in news]
    for one in news:
        if one.notice is not None:
            received.add(conn, one.notice, one.now)
    told = iter(
        webhook_calls.tell(
            conn,
            [
                (event_of(one.row, one.event, suppressed, one.now), one.event.calls)
                for one, suppressed in zip(news, suppressing, strict=True)
                if one.event is not None
            ],
        )
    )
    settled: list[Settled] = []
    for one, suppressed in zip(news, suppressing, strict=True):
        event_id, call_ids = (0, ()) if one.event is None else next(told)
        settled.append(
            Settled(
                applied=True,
                event_id=event_id,
                call_ids=call_ids,
                suppressing=suppressed,
                files=() if settled else tuple(files),
            )
        )
    return settled
