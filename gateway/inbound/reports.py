"""Is a message that came in a report, and on what? What follows from that is decided here.

A report is stored as any message. It is matched before that, so that one transaction stores it, settles
what it is about, and makes the event: after the 250 nothing of it can be lost, and nothing is left to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa

from gateway.config.accounts import AccountSettings
from gateway.config.settings import Settings
from gateway.errors import StoreError
from gateway.hooks.stages import Hooks, Stages
from gateway.mail.address import Address
from gateway.mail.dsn import DeliveryStatus, RecipientStatus
from gateway.mail.feedback import AutomaticReply, FeedbackReport
from gateway.mail.reading import ParsedHeader
from gateway.mail.report_source import read_source
from gateway.model import Content, EventName, IncomingReport, Outcome, QueuedMessage, ReportMatch, Result
from gateway.offload import Offload, OffloadError
from gateway.outbound import suppression
from gateway.outbound.from_ids import details
from gateway.outbound.settle import keep_events_until, outgoing_calls
from gateway.store import listing
from gateway.store.changes import EventDraft, Report
from gateway.store.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

Read = DeliveryStatus | FeedbackReport | AutomaticReply | None  # what the stage `read_report` answers

MAX_READ = 4 * 1024 * 1024  # octets of a message that are read: what it says stands before what it returns
MAX_FOUND = 1000  # messages by one identifier: as many recipients as a submission can have
# The actions of RFC 3464, 2.3.3, which are events as well.
ACTIONS: dict[str, EventName] = {
    "failed": "failed",
    "delayed": "delayed",
    "delivered": "delivered",
    "relayed": "relayed",
    "expanded": "expanded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A message on its way into mailboxes."""

    mail_from: Address | None
    header: ParsedHeader
    content: Content


class Reports:
    """Matches reports. Holds what that needs, and no state."""

    def __init__(self, settings: Settings, hooks: Hooks, store: Store, offload: Offload) -> None:
        self._settings, self._hooks, self._store, self._offload = settings, hooks, store, offload

    def may_be(self, arrived: Arrived, account: str, recipient: Address) -> bool:
        """Whether to look closer: most mail is none, and costs nothing here."""
        known = arrived.header.may_report or arrived.mail_from is None or self._details(recipient) != ()
        return known and self._hooks.for_account(account).has("match_report")

    async def read(self, arrived: Arrived) -> Read:
        """What the message reports, as the plugins see it. Raises StoreError."""
        if not self._hooks.gateway.has("read_report"):
            return None
        try:
            data = await _beginning(arrived.content)
            source = await self._offload.run_beside(len(data), read_source, data, arrived.mail_from)
        except OffloadError as exc:
            log.warning("a report was not read: %s", exc)
            return None
        return await self._hooks.gateway.read_report(source=source)

    async def about(
        self,
        arrived: Arrived,
        read: Read,
        account: str,
        recipient: Address,
        now: datetime,
        *,
        suppressing: bool = True,
    ) -> tuple[Report, ...]:
        """What is to be recorded of messages that the account sent; nothing, if this is no report on one.

        Raises StoreError.
        """
        stages = self._hooks.for_account(account)
        feedback = read if isinstance(read, FeedbackReport) else None
        details = self._details(recipient)
        if feedback is not None and feedback.mail_from is not None:
            details = tuple(dict.fromkeys((*details, *self._details(feedback.mail_from))))
        report = IncomingReport(
            account=account,
            mail_from=arrived.mail_from,
            rcpt_to=recipient,
            details=details,
            message_id=arrived.header.message_id,
            subject=arrived.header.subject,
            dsn=read if isinstance(read, DeliveryStatus) else None,
            content=arrived.content,
            feedback=feedback,
            automatic=read.what if isinstance(read, AutomaticReply) else "",
        )
        sent = _Sent(self._store, account)
        matches = await stages.match_report(report=report, sent=sent)
        sent.check()
        found: dict[int, Report] = {}
        for match in matches:
            message = await sent.get(match.queue_msg_id)
            if message is None:
                log.error("match_report: account %s has no message %d", account, match.queue_msg_id)
            elif message.id not in found:
                found[message.id] = await self._report(
                    stages, message, match, report, now, suppressing=suppressing
                )
        sent.check()
        return tuple(found.values())

    async def _report(
        self,
        stages: Stages,
        message: QueuedMessage,
        match: ReportMatch,
        report: IncomingReport,
        now: datetime,
        *,
        suppressing: bool,
    ) -> Report:
        account = self._settings.accounts.get(message.account)
        if report.feedback is not None:
            return await self._feedback(stages, message, match, report.feedback, now, suppressing=suppressing)
        said = match.recipient
        name = ACTIONS.get(said.action) if said is not None else None
        if said is None or name is None:
            reason = match.reason or (
                f"its action {said.action!r} is not known" if said else "nothing is known"
            )
            return _unrecognized(message, match, account, now, reason, dsn=report.dsn is not None)
        outcome = Outcome(
            result=Result.PERMANENT if name == "failed" else Result.TEMPORARY,
            code=said.code,
            enhanced=said.enhanced,
            error=said.diagnostic or f"{said.action} {said.status}".rstrip(),
            remote_mta=said.remote_mta or (report.dsn.reporting_mta if report.dsn else ""),
        )
        entry = None
        if name == "failed" and match.trusted and suppressing:
            entry = await suppression.after_failure(stages, self._store, message, outcome, "dsn", now)
        log.info("reported %s message=%d by=%s recipient=%s", name, message.id, match.by, message.recipient)
        return Report(
            message_id=message.id,
            code=outcome.code,
            enhanced=outcome.enhanced,
            error=f"a report, matched by {match.by}, says {name}{_why(said)}: {outcome.error}",
            remote_mta=outcome.remote_mta,
            success=False if name == "failed" else None,
            trusted=match.trusted,
            event=_event(name, match, account, now, error=outcome.error, dsn=True, outcome=outcome),
            suppress=entry,
        )

    async def _feedback(
        self,
        stages: Stages,
        message: QueuedMessage,
        match: ReportMatch,
        feedback: FeedbackReport,
        now: datetime,
        *,
        suppressing: bool,
    ) -> Report:
        """What a feedback report says of a message: it was delivered, and only its recipient has changed."""
        account = self._settings.accounts.get(message.account)
        if not feedback.is_complaint:
            reason = f"a feedback report of type {feedback.feedback_type!r} is no complaint"
            return _unrecognized(message, match, account, now, reason, dsn=False)
        reporter = feedback.user_agent or feedback.reporting_mta
        outcome = Outcome.permanent(
            f"complaint: {feedback.feedback_type}" + (f", by {reporter}" if reporter else "")
        )
        entry = None
        if match.trusted and suppressing:
            entry = await suppression.after_failure(stages, self._store, message, outcome, "complaint", now)
        log.info("complained message=%d by=%s recipient=%s", message.id, match.by, message.recipient)
        return Report(
            message_id=message.id,
            error=f"{outcome.error}, matched by {match.by}",
            remote_mta=feedback.reporting_mta,
            event=_event("complained", match, account, now, error=outcome.error, dsn=False),
            suppress=entry,
        )

    def _details(self, recipient: Address) -> tuple[str, ...]:
        domain = self._settings.domains.get(recipient.domain)
        return details(recipient, domain.catchall_separator) if domain is not None else ()


class _Sent:
    """What one account sent (a gateway.model.SentMessages)."""

    def __init__(self, store: Store, account: str) -> None:
        self._store, self._account = store, account
        self._failed: StoreError | None = None

    async def find(
        self, *, from_id: str = "", env_id: str = "", message_id: str = ""
    ) -> Sequence[QueuedMessage]:
        items = await self._read(
            lambda conn: listing.find(
                conn,
                from_id=from_id,
                env_id=env_id,
                message_id=message_id,
                account=self._account,
                maximum=MAX_FOUND,
            )
        )
        return tuple(item.message for item in items)

    async def get(self, queue_msg_id: int) -> QueuedMessage | None:
        found = await self._read(lambda conn: listing.get(conn, queue_msg_id, self._account))
        return None if found is None else found[0].message

    def check(self) -> None:
        """A store that is away is no plugin's failure: the message must come again. Raises StoreError."""
        if self._failed is not None:
            raise self._failed

    async def _read(self, ask: Callable[[sa.Connection], T]) -> T:
        try:
            return await self._store.read(ask)
        except StoreError as exc:
            self._failed = exc
            raise


async def _beginning(content: Content) -> bytes:
    data = bytearray()
    async for piece in content.chunks():
        data += piece
        if len(data) >= MAX_READ:
            break
    return bytes(data)


def _why(said: RecipientStatus) -> str:
    return "" if said.failure in ("", "unknown") else f" ({said.failure.replace('-', ' ')})"


def _unrecognized(
    message: QueuedMessage,
    match: ReportMatch,
    account: AccountSettings | None,
    now: datetime,
    reason: str,
    *,
    dsn: bool,
) -> Report:
    error = f"not recognized: {reason}"
    log.info("unrecognized message=%d by=%s: %s", message.id, match.by, reason)
    return Report(
        message_id=message.id,
        error=f"{error}, matched by {match.by}",
        event=_event("unrecognized", match, account, now, error=error, dsn=dsn),
    )


def _event(
    name: EventName,
    match: ReportMatch,
    account: AccountSettings | None,
    now: datetime,
    *,
    error: str,
    dsn: bool,
    outcome: Outcome | None = None,
) -> EventDraft:
    return EventDraft(
        name=name,
        keep_until=keep_events_until(account, now),
        code=outcome.code if outcome else 0,
        enhanced=outcome.enhanced if outcome else "",
        error=error,
        dsn=dsn,
        remote_mta=outcome.remote_mta if outcome else "",
        matched_by=match.by,
        calls=outgoing_calls(account, name, now),
    )
