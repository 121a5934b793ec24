"""A message that an account hands in: checked, filtered, signed, and durable when `submit` returns.

One row for each recipient, one stored content for all, one commit for everything.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Literal

from gateway.accounts import Directory
from gateway.clock import Clock
from gateway.config.settings import AccountSettings, Settings
from gateway.errors import OverQuota, Stale, StoreBusy, SubmissionRefused
from gateway.hooks import Hooks, Stages
from gateway.mail.address import Address, AddressError
from gateway.model import EnvIdOrigin, Submission
from gateway.outbound.from_ids import details, random_id, unique_sender
from gateway.outbound.operations import HoldRules
from gateway.outbound.suppression import base_address
from gateway.store import queue
from gateway.store.changes import NewCopy, NewMessages, NewReceived, NewRecipient
from gateway.store.content import StoredBytes
from gateway.store.store import Store

log = logging.getLogger(__name__)

DEFAULT_MESSAGES_PER_DAY = 1000
DEFAULT_FIRST_TIME_RECIPIENTS_PER_DAY = 200
SENT = "Sent"  # mailbox
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
    sent_copy: bytes | None = None  # for the account's Sent mailbox, with its Bcc header
    reports: ReportWishes = field(default_factory=ReportWishes)


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    address: Address
    id: int  # of its message in the queue
    from_id: str  # "" for none


@dataclass(frozen=True, slots=True)
class Submitted:
    """Whom the message was queued for, in the submission's order, as the plugins left it."""

    recipients: tuple[QueuedRecipient, ...]
    over_quota: bool = False  # the account's mailboxes have no room for the copy of it that was wanted


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
    ) -> None:
        self._settings, self._directory, self._hooks = settings, directory, hooks
        self._store, self._holding, self._clock, self._queued = store, holding, clock, queued

    async def submit(self, new: NewSubmission) -> Submitted:
        """Make a submission durable. Nothing is queued upon SubmissionRefused, PluginError, StoreError."""
        if self._directory.domain_disabled(new.header_from.domain):
            raise SubmissionRefused(
                "domainDisabled", f"From: the domain {new.header_from.domain} is disabled"
            )
        account = self._directory.accounts[new.account]
        stages = self._hooks.for_account(new.account)
        submission = await stages.submission(submission=_submission(new))
        if not submission.recipients:
            raise SubmissionRefused("noRecipients", "a plugin removed every recipient")
        data = await stages.sign(data=submission.data, submission=submission)
        contents = [await self._store.content.put(data)]
        try:
            if new.sent_copy is not None:
                contents.append(await self._store.content.put(new.sent_copy))
            change, ids = await self._queue_it(stages, submission, new, account, contents)
            over_quota = new.sent_copy is not None and change.sent_copy is None
            if over_quota:
                await self._store.content.discard(contents[1])
        except BaseException:
            for stored in contents:
                await self._store.content.discard(stored)
            raise
        log.info(
            "queued submission=%s session=%s account=%s messages=%s held=%d",
            submission.id,
            new.session or "-",
            new.account,
            ids,
            sum(recipient.hold for recipient in change.recipients),
        )
        return Submitted(
            tuple(
                QueuedRecipient(recipient.address, message_id, recipient.from_id)
                for recipient, message_id in zip(change.recipients, ids, strict=True)
            ),
            over_quota,
        )

    async def _queue_it(
        self,
        stages: Stages,
        submission: Submission,
        new: NewSubmission,
        account: AccountSettings,
        contents: Sequence[StoredBytes],
    ) -> tuple[NewMessages, tuple[int, ...]]:
        """Decide what to hold, and write it all, unless the hold rules changed in between.

        A copy for the mailbox Sent that there is no room for is left out; the message goes out nevertheless.
        """
        bases = [await base_address(stages, recipient) for recipient in submission.recipients]
        from_ids = self._from_ids(submission, account)
        for _ in range(DECIDE_AGAIN):
            rules, generation = await self._holding.snapshot()
            held = [
                bool(await stages.hold(submission=submission, recipient=recipient, rules=rules))
                for recipient in submission.recipients
            ]
            change = self._change(submission, new, account, contents, from_ids, bases, held, generation)
            write = partial(queue.add, new=change, now=self._clock.now())
            try:
                # Before the write and not after it: so the claim that follows joins its transaction.
                self._queued()
                return change, await self._store.write(write, size=sum(stored.size for stored in contents))
            except OverQuota:
                contents = contents[:1]
            except Stale:
                await self._holding.refresh()
        raise StoreBusy("hold rules keep changing; try again")

    def _from_ids(
        self, submission: Submission, account: AccountSettings
    ) -> Sequence[tuple[str, Address | None]]:
        """For each recipient its FromID, and the unique reverse-path with it; ("", None) for none.

        Raises SubmissionRefused.
        """
        sender, count = submission.reverse_path, len(submission.recipients)
        separators = self._directory.separators(sender.domain)
        if (
            not any(_same(submission.login, login) for login in account.from_id_login_addresses)
            or not separators
            or not self._directory.may_send_from(submission.account, sender)  # a plugin's
        ):
            return [("", None)] * count
        if submission.via == "smtp" and not any(_same(sender, address) for address in account.addresses):
            chosen = details(sender, separators)
            if chosen and count > 1:
                raise SubmissionRefused("user", "a FromID in MAIL FROM is for one recipient only")
            if chosen:
                return [(chosen[0], sender)]
        ids = [random_id() for _ in range(count)]
        try:
            return [(i, unique_sender(sender, i, account.addresses, separators)) for i in ids]
        except AddressError as exc:
            raise SubmissionRefused("user", f"no unique address can be made of {sender}: {exc}") from None

    def _change(
        self,
        submission: Submission,
        new: NewSubmission,
        account: AccountSettings,
        contents: Sequence[StoredBytes],
        from_ids: Sequence[tuple[str, Address | None]],
        bases: Sequence[str],
        held: Sequence[bool],
        generation: int,
    ) -> NewMessages:
        """The rows to write, and the facts that must still hold then."""
        reports = new.reports
        return NewMessages(
            account=submission.account,
            submission_id=submission.id,
            sender=submission.reverse_path,
            message_id=submission.message_id,
            message_id_secret=new.made_message_id
            and submission.message_id == new.message_id
            and len(submission.recipients) == 1,
            subject=submission.subject,
            has_8bit=submission.has_8bit,
            smtputf8=submission.smtputf8,
            require_tls=submission.require_tls,
            not_before=submission.not_before,
            future_release=reports.future_release,
            dsn_ret=reports.ret,
            extra=submission.extra,
            content=contents[0],
            recipients=tuple(
                NewRecipient(
                    address=r,
                    base_address=base,
                    hold=hold,
                    destination=r.domain,
                    from_id=from_id,
                    sender=sender,
                    env_id=env_id,
                    env_id_origin=origin,
                    dsn_notify=reports.recipients.get(r, ("", ""))[0],
                    dsn_orcpt=reports.recipients.get(r, ("", ""))[1],
                )
                for r, (from_id, sender), (env_id, origin), base, hold in zip(
                    submission.recipients,
                    from_ids,
                    _env_ids(reports.env_id, submission.recipients, from_ids),
                    bases,
                    held,
                    strict=True,
                )
            ),
            hold_generation=generation,
            max_messages=_limit(account.max_messages_per_day, DEFAULT_MESSAGES_PER_DAY),
            max_first_time=_limit(
                account.max_first_time_recipients_per_day, DEFAULT_FIRST_TIME_RECIPIENTS_PER_DAY
            ),
            sent_copy=_sent(submission, contents[1], account) if len(contents) > 1 else None,
        )


def _env_ids(
    given: str, recipients: Sequence[Address], from_ids: Sequence[tuple[str, Address | None]]
) -> Iterator[tuple[str, EnvIdOrigin]]:
    """For each recipient its envelope's ENVID: what the submitter gave, or else one for each transaction."""
    sharing = Counter(r.domain for r, (from_id, _) in zip(recipients, from_ids, strict=True) if not from_id)
    shared = {domain: random_id() for domain, count in sharing.items() if count > 1}
    for recipient, (from_id, _) in zip(recipients, from_ids, strict=True):
        if given:
            yield given, "submitter"
        elif from_id or recipient.domain not in shared:
            yield random_id(), "recipient"
        else:
            yield shared[recipient.domain], "transaction"


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


def _sent(submission: Submission, copy: StoredBytes, account: AccountSettings) -> NewReceived:
    """The copy for the account's Sent mailbox. Nobody is told of it."""
    return NewReceived(
        content=copy,
        copies=(
            NewCopy(
                account=submission.account,
                mailbox=SENT,
                flags=("\\seen",),
                mail_from=str(submission.reverse_path),
                msg_from=str(submission.header_from),
                message_id=submission.message_id,
                subject=submission.subject,
                quota=account.quota,
            ),
        ),
    )


def _limit(setting: int, default: int) -> int | None:
    """In settings 0 is the default and -1 no limit; in the store None is no limit."""
    return None if setting < 0 else setting or default
