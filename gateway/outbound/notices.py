"""Notices: what the sender's own mailbox is told of a delivery, as a delivery status notification (RFC 3464).

A message that failed, or is late, makes one in the Inbox of the account that sent it, and nowhere else: who
did not log in here never gets one. It is stored directly, with the result that it tells of; nothing is
matched, and no webhook is called for it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import trio

from gateway.config.settings import Settings
from gateway.errors import GatewayError
from gateway.hooks.stages import Stages
from gateway.mail.address import Address, ascii_domain
from gateway.mail.compose import new_message_id
from gateway.mail.compose_dsn import Action, DsnDraft, DsnRecipient, compose_dsn, dsn_subject
from gateway.mail.fields import FieldError
from gateway.mail.headers import MAX_SECTION, split_message
from gateway.model import Content, GiveUp, Outcome, QueuedMessage, Result, RetryAt, Route
from gateway.offload import Offload
from gateway.outbound.from_ids import without_from_id
from gateway.store import listing
from gateway.store.changes import NewCopy, NewReceived
from gateway.store.received import INBOX
from gateway.store.store import Store
from gateway.turns import Turns

log = logging.getLogger(__name__)

DELAYED_AFTER = 5  # failed attempts: then the sender hears that the message is late
FORESEEN = 10_000  # attempts to come that the retry stage is asked about: one a minute, for days
FORESEE_WITHIN = 5.0  # seconds
LISTED = 10  # attempts to come, in the text
SHORTEST = timedelta(seconds=1)

EXPIRED = "4.4.7"  # RFC 3463: delivery time expired


class Requested(Protocol):
    """A message and what its submitter asked for (a Claimed, or an Item of a list)."""

    @property
    def message(self) -> QueuedMessage: ...
    @property
    def future_release(self) -> str: ...
    @property
    def dsn_ret(self) -> str: ...
    @property
    def dsn_notify(self) -> str: ...
    @property
    def dsn_orcpt(self) -> str: ...
    @property
    def is_report(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What became of a message: its event, and the outcome and error that go with it."""

    event: str  # the event's name
    outcome: Outcome
    error: str
    next_attempt: datetime | None = None  # of one that is delayed
    route: Route | None = None  # the way that the attempt took


def action_for(
    requested: Requested, event: str, *, passed_on: bool = False, counted: bool = True
) -> Action | None:
    """What the sender is told, if anything. NOTIFY (RFC 3461, 4.1) absent means FAILURE and DELAY.

    `passed_on`: the next hop took over to report (it has the extension DSN). `counted`: the attempt was one.
    That a message is late is told once: whether an earlier attempt did is for the caller to see.
    """
    message = requested.message
    if message.sender is None or requested.is_report:
        return None
    notify = {word.strip().upper() for word in requested.dsn_notify.split(",") if word.strip()}
    wanted = notify or {"FAILURE", "DELAY"}
    if event in ("failed", "suppressed"):
        return "failed" if "FAILURE" in wanted else None
    if event == "delayed":
        late = counted and message.attempts >= DELAYED_AFTER
        return "delayed" if "DELAY" in wanted and late else None
    if event == "delivered":
        # Of a next hop that does not report, it is not known what it does with the message (RFC 3461, 5.2.2).
        return "relayed" if "SUCCESS" in wanted and not passed_on else None
    return None


def returns_all(requested: Requested, action: Action) -> bool:
    """Whether the whole message goes back, not only its header: of a failure only (RFC 3461, 4.3)."""
    return action == "failed" and requested.dsn_ret.upper() == "FULL" and not requested.message.require_tls


class Notices:
    """Makes notices. Holds what each needs, and no state."""

    def __init__(self, settings: Settings, store: Store, offload: Offload) -> None:
        self._settings, self._store, self._offload = settings, store, offload

    async def about(
        self, stages: Stages | None, requested: Requested, content: Content | None, news: News, now: datetime
    ) -> NewReceived | None:
        """The notice to store with the result, if the sender gets one; None too if it cannot be made.

        `stages` are asked when a delayed message is tried again.

        Its content is stored: `discard` it if no row comes to need it.
        """
        outcome = news.outcome
        action = action_for(requested, news.event, passed_on=outcome.dsn_passed_on, counted=outcome.counts)
        if action is None or not self._owner(requested.message):
            return None
        try:
            if action == "delayed" and await self._was_told(requested.message):
                return None
            try:
                return await self._make(stages, requested, content, news, action, now)
            except GatewayError as exc:
                if content is None:
                    raise
                # This is told now or never. What is left is small, and so is stored with the result.
                log.warning(
                    "submission=%s message=%d: the sender's notice is made without the message: %s",
                    requested.message.submission_id,
                    requested.message.id,
                    exc,
                )
                return await self._make(stages, requested, None, news, action, now)
        except (GatewayError, FieldError, ValueError) as exc:
            # The result is recorded all the same: nothing may stop that.
            message = requested.message
            log.error(
                "submission=%s message=%d: the sender's notice was not made: %s",
                message.submission_id,
                message.id,
                exc,
            )
            return None

    async def _was_told(self, message: QueuedMessage) -> bool:
        """Whether an earlier attempt has a result, and so the notice: one that was interrupted has none."""
        if message.attempts == DELAYED_AFTER:
            return False
        return await self._store.read(
            partial(
                listing.any_has_result, message_id=message.id, first=DELAYED_AFTER, before=message.attempts
            )
        )

    def _owner(self, message: QueuedMessage) -> str:
        """Whose Inbox it goes to: the account's, or postmaster's if that is gone; "" for nobody's."""
        return message.account if message.account in self._settings.accounts else self._settings.postmaster

    async def discard(self, notice: NewReceived | None) -> None:
        if notice is not None:
            await self._store.content.discard(notice.content)

    async def _make(
        self,
        stages: Stages | None,
        requested: Requested,
        content: Content | None,
        news: News,
        action: Action,
        now: datetime,
    ) -> NewReceived:
        message, hostname = requested.message, self._settings.hostname
        assert message.sender is not None
        full = returns_all(requested, action)
        original = b""
        if content is not None:
            original = await content.read() if full else await _header(content)
        recipient = recipient_status(requested, news, action)
        if action == "delayed" and news.next_attempt is not None and stages is not None:
            times, complete = await foresee(stages, message, news.outcome, news.next_attempt, news.route)
            recipient = replace(
                recipient, next_attempts=times[:LISTED], retry_until=times[-1] if complete else None
            )
        domain = self._settings.domains.get(message.sender.domain)
        to = without_from_id(message.sender, message.from_id, domain.catchall_separator if domain else ())
        draft = DsnDraft(
            hostname=hostname,
            to=to,
            message_id=new_message_id(ascii_domain(hostname)),
            date=now,
            recipients=(recipient,),
            arrived=message.queued,
            subject=message.subject,
            original_message_id=message.message_id,
            original=original,
            full=full and content is not None,
            envelope_id=message.env_id if message.env_id_origin == "submitter" else "",
            future_release=requested.future_release,
            smtputf8=message.smtputf8,
        )
        composed = await self._offload.run_beside(len(original), compose_dsn, draft)
        stored = await self._store.content.put(composed)
        return NewReceived(
            content=stored,
            copies=(
                NewCopy(
                    account=self._owner(message),
                    mailbox=INBOX,
                    rcpt_to=str(message.sender),
                    msg_from=str(Address("postmaster", hostname)),
                    dsn=True,
                    automated=True,
                    message_id=draft.message_id,
                    subject=dsn_subject(recipient, message.subject),
                ),
            ),
        )


def recipient_status(requested: Requested, news: News, action: Action) -> DsnRecipient:
    """The fields about the recipient that follow from the outcome."""
    message, outcome = requested.message, news.outcome
    succeeded = action in ("relayed", "delivered")
    return DsnRecipient(
        address=message.recipient,
        action=action,
        status=_status(outcome, action),
        original=requested.dsn_orcpt,
        remote_mta=outcome.remote_mta,
        diagnostic="" if succeeded else _reply(outcome),
        error="" if succeeded else news.error,
        transcript="" if succeeded else outcome.transcript,
        last_attempt=message.last_attempt,
        unknown=action == "failed" and outcome.unknown,
    )


async def foresee(
    stages: Stages,
    message: QueuedMessage,
    outcome: Outcome,
    first: datetime,
    route: Route | None = None,
) -> tuple[tuple[datetime, ...], bool]:
    """When a message would be tried again if each attempt ended as the last one, and whether that is all.

    The retry stage is asked as it will be then. `first`: the next attempt's time, the first of the answer.
    """
    times, turns = [first], Turns()
    with trio.move_on_after(FORESEE_WITHIN):
        while len(times) < FORESEEN:
            at = times[-1]
            then = replace(message, attempts=message.attempts + len(times), last_attempt=at)
            answer = await stages.retry(message=then, outcome=outcome, now=at, route=route)
            if isinstance(answer, GiveUp):
                return tuple(times), True
            if not isinstance(answer, RetryAt):
                break
            times.append(max(answer.time, at + SHORTEST))
            await turns.give()  # plugins that only calculate give none
    return tuple(times), False


def _status(outcome: Outcome, action: Action) -> str:
    """RFC 3463. A temporary status may go with a failure: attempts were used up (3.1 there)."""
    if action in ("relayed", "delivered"):
        return "2.0.0"
    given = outcome.enhanced
    if given[:2] in ("4.", "5.") and (action == "failed" or given[0] == "4"):
        return given
    if action == "delayed":
        return "4.0.0"
    return "5.0.0" if outcome.result is Result.PERMANENT else EXPIRED


def _reply(outcome: Outcome) -> str:
    """The server's reply on one line: "550 5.1.1 no such user"."""
    if not outcome.code:
        return ""
    said = f"{outcome.code} {outcome.enhanced}".rstrip()
    _, found, words = outcome.error.partition(said)
    return f"{said} {words.strip() if found else outcome.error}".strip()


async def _header(content: Content) -> bytes:
    """A stored message's header section."""
    head = bytearray()
    async for piece in content.chunks():
        head += piece
        if b"\r\n\r\n" in head[-len(piece) - 3 :] or len(head) > MAX_SECTION:
            break
    return split_message(bytes(head))[0]
