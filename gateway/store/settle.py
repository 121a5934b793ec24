"""What became of a message, written in one go: history, queue, suppression, event, webhook calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
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


_GONE = _Message(0, "", "", "", "", "", "", "", "", {}, 0)
HISTORY = 10  # earlier messages to an address that a decision to suppress it may rest on

_c = message.c
_LOAD = Statement(
    sa.select(
        _c.id, _c.state, _c.account, _c.recipient_localpart, _c.recipient_domain, _c.from_id, _c.message_id,
        _c.subject, _c.extra, _c.attempts, _c.content_id, _c.lease_owner, _c.lease_token, _c.success,
        _c.sender_localpart, _c.sender_domain,
    )
    .where(_c.id == sa.bindparam("row"))
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

# In the history of a message: a report that cannot be forged says that it failed.
_PROVEN = (
    sa.select(attempt.c.id)
    .where(attempt.c.message_id == _c.id, attempt.c.number == 0, attempt.c.success.is_(False))
    .correlate(message)
    .exists()
)


def settle(conn: sa.Connection, change: Settlement, now: datetime) -> Settled:
    """Applies an attempt's result: the message is rescheduled or retired, and everybody concerned is told.

    If the lease is lost (expired and recovered, the message canceled, claimed again) only the attempt's row
    is finished, as "late". Raises Stale if the suppression relied on a history that has grown.
    """
    row = _LOAD.first(conn, {"row": change.message_id})
    mine = (
        row is not None
        and row.state == "queued"
        and row.lease_owner is not None
        and row.lease_token == change.token
    )
    _finish_attempt(conn, change, "done" if mine else "late")
    tls_results.add(conn, change.outcome.tls_results, now)
    if row is None or not mine:
        return Settled(applied=False)
    files: list[str] = []
    suppressing = _suppress(conn, row, change.suppress, now)
    if isinstance(change.then, Reschedule):
        _RESCHEDULE.run(
            conn,
            {
                "row": row.id,
                "due": change.then.next_attempt,
                "uncounted": 0 if change.then.counted else 1,
                "plugin": change.then.waits_for,
                "since": change.then.waits_since,
            },
        )
        if change.then.dialed_ips is not None:
            _DIALED.run(conn, {"row": row.id, "dialed": dict(change.then.dialed_ips)})
    elif row.success is False and change.then.success:
        # A report was faster than the next hop's answer to us: what it said stands, and is what is told.
        files = retire(conn, row, replace(change.then, success=False), now)
        event = change.event and replace(
            change.event, calls=tuple(call for call in change.event.calls if not call.supersede)
        )
        return _announce(conn, row, event, change.notice, suppressing, files, now)
    else:
        files = retire(conn, row, change.then, now)
    return _announce(conn, row, change.event, change.notice, suppressing, files, now)


def settle_many(conn: sa.Connection, changes: Sequence[Settlement], now: datetime) -> tuple[Settled, ...]:
    """Settles the recipients of one transaction. Events are in the order given."""
    return tuple(settle(conn, change, now) for change in changes)


def report(conn: sa.Connection, change: Report, now: datetime) -> Settled:
    """Adds to a message's history what came to be known of it; not applied if it is gone.

    Raises Stale if it was to be retired but is no longer queued, or as `settle` does.
    """
    row = _LOAD.first(conn, {"row": change.message_id})
    if row is None:
        return Settled(applied=False)
    if change.retire is not None and row.state != "queued":
        raise Stale(f"message {row.id} is no longer queued")
    record(conn, row.id, now, change)
    files: list[str] = []
    suppressing = _suppress(conn, row, change.suppress, now)
    if change.retire is not None:
        files = retire(conn, row, change.retire, now)
    elif row.state == "retired":
        values: dict[str, Any] = {"last_activity": now}
        if change.success is not None:
            values["success"] = change.success
        conn.execute(sa.update(message).where(_c.id == row.id).values(values))
    elif row.lease_owner is not None and change.success is False:
        # For the attempt that is under way: see `settle`.
        conn.execute(sa.update(message).where(_c.id == row.id).values(success=False))
    return _announce(conn, row, change.event, change.notice, suppressing, files, now)


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
    suppressing = _suppress(conn, gone, change.suppress, now)
    return _announce(conn, gone, change.event, None, suppressing, [], now)


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
    return _LOAD.first(conn, {"row": message_id})


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


def retire(conn: sa.Connection, row: AnyRow, how: Retire, now: datetime) -> list[str]:
    """Takes a message out of the queue, its lease with it; the files to unlink."""
    if how.keep_until is None:
        conn.execute(sa.delete(attempt).where(attempt.c.message_id == row.id))
        conn.execute(sa.delete(message).where(_c.id == row.id))
        return _release(conn, row.content_id)
    keeps_content = how.keep_content and row.content_id is not None
    _RETIRE.run(
        conn,
        {
            "row": row.id,
            "as": how.retired_as,
            "succeeded": how.success,
            "now": now,
            "keep": how.keep_until,
            "content": row.content_id if keeps_content else None,
        },
    )
    return [] if keeps_content else _release(conn, row.content_id)


def announce(
    conn: sa.Connection, row: AnyRow | _Message, draft: EventDraft, suppressing: bool, now: datetime
) -> tuple[int, tuple[int, ...]]:
    """Writes the event and its calls; their IDs."""
    event_id = events.insert(
        conn,
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
    return event_id, webhook_calls.add(conn, draft.calls, row.account, event_id, draft.name, row.id, now)


def _release(conn: sa.Connection, content_id: int | None) -> list[str]:
    return [] if content_id is None else release_content(conn, [content_id])


def _finish_attempt(conn: sa.Connection, change: Settlement, state: str) -> None:
    outcome = change.outcome
    _FINISH_ATTEMPT.run(
        conn,
        {
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
        },
    )


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


def _announce(
    conn: sa.Connection,
    row: AnyRow | _Message,
    draft: EventDraft | None,
    notice: NewReceived | None,
    suppressing: bool,
    files: list[str],
    now: datetime,
) -> Settled:
    if notice is not None:
        received.add(conn, notice, now)
    event_id, call_ids = (0, ()) if draft is None else announce(conn, row, draft, suppressing, now)
    return Settled(
        applied=True, event_id=event_id, call_ids=call_ids, suppressing=suppressing, files=tuple(files)
    )
