"""A message that an account hands in: checked, filtered, signed, and durable when `submit` returns.

One row for each recipient, one stored content for all, one commit for everything: also for a batch.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar

from gateway.accounts.directory import Directory
from gateway.clock import Clock
from gateway.config.accounts import AccountSettings
from gateway.config.settings import Settings
from gateway.errors import GatewayError, KeyUsed, PluginError, Stale, StoreBusy, SubmissionRefused
from gateway.hooks.stages import Hooks
from gateway.mail.address import Address, AddressError
from gateway.mail.feedback import announces_feedback
from gateway.mail.fields import fold_field
from gateway.model import HoldRule, Submission
from gateway.outbound.from_ids import FromId, details, random_id, unique_sender
from gateway.outbound.operations import HoldRules
from gateway.outbound.prepared import Prepared, make_change
from gateway.outbound.suppression import base_address
from gateway.store import idempotency, submissions
from gateway.store.changes import NewMessages
from gateway.store.content import StoredBytes
from gateway.store.store import Store
from gateway.turns import Turns

T = TypeVar("T")

log = logging.getLogger(__name__)

DECIDE_AGAIN = 3  # times, when hold rules change between decision and commit


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportWishes:
    """What an SMTP client wants to hear of its message (RFC 3461), kept with it; `future_release` is as it
    was asked for (RFC 4865). `recipients` has notify, as words with commas, and orcpt."""

    env_id: str = ""
    ret: str = ""
    future_release: str = ""
    recipients: Mapping[Address, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSubmission:
    """What the API or the SMTP server hands over: composed, unsigned, its sender known to be allowed."""

    account: str
    login: Address
    via: Literal["api", "smtp"]
    session: str = ""  # of the SMTP server, for the log
    reverse_path: Address | None = None  # None: as `header_from`
    header_from: Address
    recipients: tuple[Address, ...]
    data: bytes
    message_id: str
    made_message_id: bool = False  # by us, with 128 random bits
    subject: str
    smtputf8: bool
    has_8bit: bool
    require_tls: bool | None = None
    future_release: datetime | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    list_name: str = ""  # of the mailing list that it belongs to
    sent_copy: bytes | None = None  # for the account's Sent mailbox, with its Bcc header
    reports: ReportWishes = field(default_factory=ReportWishes)


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    address: Address
    id: int  # of its message in the queue
    from_id: str  # "" for none


@dataclass(frozen=True, slots=True)
class Submitted:
    """Whom the message was queued for, in the submission's order, as the plugins left it.

    `over_quota`: it is queued, but there was no room for the copy in Sent.
    """

    recipients: tuple[QueuedRecipient, ...]
    over_quota: bool = False


Change = tuple[NewMessages, ...]  # of the copies of one message
Refusal = SubmissionRefused | PluginError


@dataclass(frozen=True, slots=True)
class KeepAnswer:
    """An answer to keep in the transaction that queues, for when the same call comes again (Idempotency-Key).

    `answer` makes it of the results: quickly and without side effects, in the store's thread. None: nothing
    was queued, and nothing is kept.
    """

    key: str
    digest: bytes  # of the call
    answer: Callable[[Sequence[Submitted | Refusal]], Mapping[str, Any] | None]


class Submitter:
    """Takes submissions. Everything it needs is given; it holds no state of its own."""

    def __init__(
        self,
        settings: Settings,
        directory: Directory,
        hooks: Hooks,
        store: Store,
        holding: HoldRules,
        clock: Clock,
        queued: Callable[[], None],
        count: Callable[[str], None] = lambda _via: None,
    ) -> None:
        """`count` is called for each submission that is queued."""
        self._count = count
        self._settings, self._directory, self._hooks = settings, directory, hooks
        self._store, self._holding, self._clock, self._queued = store, holding, clock, queued

    async def submit(self, new: NewSubmission, keep: KeepAnswer | None = None) -> Submitted:
        """Make a submission durable. Nothing is queued upon SubmissionRefused, PluginError, StoreError
        (KeyUsed is one)."""
        return await self.submit_together((new,), keep)

    async def submit_together(
        self, copies: Sequence[NewSubmission], keep: KeepAnswer | None = None
    ) -> Submitted:
        """The same for a message that has a submission for each copy: all are queued, or none."""
        [result] = await self._submit((copies,), keep, each=False)
        if isinstance(result, GatewayError):
            raise result
        return result

    async def submit_each(
        self, batch: Sequence[Sequence[NewSubmission]], keep: KeepAnswer | None = None
    ) -> tuple[Submitted | Refusal, ...]:
        """Make those messages durable that can be, each with all of its copies, in one commit. Nothing is
        queued upon StoreError."""
        return await self._submit(batch, keep, each=True)

    async def kept_answer(self, account: str, key: str) -> idempotency.Kept | None:
        """What an earlier call with this key was answered. Raises StoreError."""
        return await self._store.read(lambda conn: idempotency.get(conn, account, key, self._clock.now()))

    async def _submit(
        self, batch: Sequence[Sequence[NewSubmission]], keep: KeepAnswer | None, *, each: bool
    ) -> tuple[Submitted | Refusal, ...]:
        contents: list[StoredBytes] = []  # in doubt until it is known that they have rows
        turns = Turns()
        try:
            prepared = [
                await _or_refusal(self._prepare_all(copies, contents, turns), each) for copies in batch
            ]
            changes, results = await self._queue_them(prepared, keep, turns, each=each)
            if all(isinstance(result, Submitted) and not result.over_quota for result in results):
                contents = []
        finally:
            for stored in contents:
                await self._store.content.discard(stored)
        for copies, change, result in zip(batch, changes, results, strict=True):
            if isinstance(change, tuple) and isinstance(result, Submitted):
                self._count(copies[0].via)
                await _log(copies, change, result, turns)
        return results

    async def _prepare_all(
        self, copies: Sequence[NewSubmission], contents: list[StoredBytes], turns: Turns
    ) -> tuple[Prepared, ...]:
        prepared: list[Prepared] = []
        for new in copies:
            await turns.give()
            prepared.append(await self._prepare(new, contents))
        return tuple(prepared)

    async def _prepare(self, new: NewSubmission, contents: list[StoredBytes]) -> Prepared:
        """All that needs no transaction: check, filter, sign, store the content (`contents` gets it too).

        Raises SubmissionRefused, PluginError, StoreError.
        """
        if self._directory.domain_disabled(new.header_from.domain):
            raise SubmissionRefused(
                "domainDisabled", f"From: the domain {new.header_from.domain} is disabled"
            )
        account = self._directory.accounts[new.account]
        stages = self._hooks.for_account(new.account)
        submission = await stages.submission(submission=_submission(new))
        if not submission.recipients:
            raise SubmissionRefused("noRecipients", "a plugin removed every recipient")
        from_ids = self._from_ids(submission, account)
        bases = [await base_address(stages, recipient) for recipient in submission.recipients]
        feedback_id = ""
        if len(submission.recipients) == 1 and announces_feedback(submission.data):
            # Whoever hides the recipient's address may still give this back (RFC 9477, 3.3).
            feedback_id = new.reports.env_id or random_id()
            field = fold_field("CFBL-Feedback-ID", feedback_id)
            submission = replace(submission, data=field + submission.data)
        content = await self._store.content.put(
            await stages.sign(data=submission.data, submission=submission)
        )
        contents.append(content)
        sent_copy = None
        if new.sent_copy is not None:
            sent_copy = await self._store.content.put(new.sent_copy)
            contents.append(sent_copy)
        return Prepared(new, account, stages, submission, content, sent_copy, from_ids, bases, feedback_id)

    async def _queue_them(
        self,
        prepared: Sequence[tuple[Prepared, ...] | Refusal],
        keep: KeepAnswer | None,
        turns: Turns,
        *,
        each: bool,
    ) -> tuple[Sequence[Change | Refusal], tuple[Submitted | Refusal, ...]]:
        """Decide what to hold, and write it all, unless the hold rules changed in between."""
        for _ in range(DECIDE_AGAIN):
            rules, generation = await self._holding.snapshot()
            changes = [
                await _or_refusal(_changes(one, rules, generation, turns), each)
                if isinstance(one, tuple)
                else one
                for one in prepared
            ]
            wanted = [change for change in changes if isinstance(change, tuple)]
            if not wanted:
                return changes, _results(changes, ())
            write = partial(
                submissions.add_all,
                batch=wanted,
                now=self._clock.now(),
                each=each,
                keep=None if keep is None else _kept(keep, wanted[0][0].account, changes),
            )
            try:
                # Before the write and not after it: so the claim that follows joins its transaction.
                self._queued()
                size = sum(new.size for change in wanted for new in change)
                return changes, _results(changes, await self._store.write(write, size=size))
            except KeyUsed:
                raise
            except Stale:
                await self._holding.refresh()
        raise StoreBusy("hold rules keep changing; try again")

    def _from_ids(self, submission: Submission, account: AccountSettings) -> Sequence[FromId]:
        """For each recipient its FromID.

        Raises SubmissionRefused.
        """
        sender, count = submission.reverse_path, len(submission.recipients)
        separators = self._directory.separators(sender.domain)
        if (
            not any(_same(submission.login, login) for login in account.from_id_login_addresses)
            or not separators
            or not self._directory.may_send_from(submission.account, sender)  # a plugin's
        ):
            return [FromId()] * count
        if submission.via == "smtp" and not any(_same(sender, address) for address in account.addresses):
            chosen = details(sender, separators)
            if chosen and count > 1:
                raise SubmissionRefused("user", "a FromID in MAIL FROM is for one recipient only")
            if chosen:
                return [FromId(chosen[0], sender)]
        ids = [random_id() for _ in range(count)]
        try:
            return [
                FromId(i, unique_sender(sender, i, account.addresses, separators), secret=True) for i in ids
            ]
        except AddressError as exc:
            raise SubmissionRefused("user", f"no unique address can be made of {sender}: {exc}") from None


async def _or_refusal(work: Awaitable[T], each: bool) -> T | Refusal:
    """What comes of the work for one of a batch; with `each`, its refusal is of that one only."""
    try:
        return await work
    except (SubmissionRefused, PluginError) as refusal:
        if not each:
            raise
        return refusal


async def _changes(
    prepared: Sequence[Prepared], rules: Sequence[HoldRule], generation: int, turns: Turns
) -> tuple[NewMessages, ...]:
    changes: list[NewMessages] = []
    for one in prepared:
        await turns.give()
        changes.append(await make_change(one, rules, generation))
    return tuple(changes)


def _results(
    changes: Sequence[Change | Refusal], written: submissions.Results
) -> tuple[Submitted | Refusal, ...]:
    """What became of each: refused before the store was asked, or as the store has it."""
    left = iter(written)
    return tuple(
        _submitted(change, next(left)) if isinstance(change, tuple) else change for change in changes
    )


def _submitted(change: Change, added: submissions.Added | SubmissionRefused) -> Submitted | Refusal:
    if isinstance(added, SubmissionRefused):
        return added
    recipients = [recipient for new in change for recipient in new.recipients]
    return Submitted(
        tuple(
            QueuedRecipient(recipient.address, message_id, recipient.from_id)
            for recipient, message_id in zip(recipients, added.ids, strict=True)
        ),
        added.over_quota,
    )


async def _log(copies: Sequence[NewSubmission], change: Change, submitted: Submitted, turns: Turns) -> None:
    """A line for each submission. They are queued: nothing may come between that and the answer."""
    ids = iter(submitted.recipients)
    for copy, new in zip(copies, change, strict=True):
        await turns.give_shielded()
        log.info(
            "queued submission=%s session=%s account=%s messages=%s held=%d",
            new.submission_id,
            copy.session or "-",
            copy.account,
            tuple(next(ids).id for _ in new.recipients),
            sum(recipient.hold for recipient in new.recipients),
        )


def _kept(keep: KeepAnswer, account: str, changes: Sequence[Change | Refusal]) -> submissions.Keep:
    return submissions.Keep(
        account, keep.key, keep.digest, lambda written: keep.answer(_results(changes, written))
    )


def _same(one: Address, other: Address) -> bool:
    """Localparts of our own domains are compared case-folded."""
    return one.domain == other.domain and one.localpart.casefold() == other.localpart.casefold()


def _submission(new: NewSubmission) -> Submission:
    return Submission(
        id=secrets.token_hex(8),
        account=new.account,
        login=new.login,
        via=new.via,
        reverse_path=new.reverse_path or new.header_from,
        recipients=new.recipients,
        header_from=new.header_from,
        data=new.data,
        message_id=new.message_id,
        subject=new.subject,
        smtputf8=new.smtputf8,
        has_8bit=new.has_8bit,
        require_tls=new.require_tls,
        not_before=new.future_release,
        extra=new.extra,
    )
