"""A submission that is ready for the queue, and the rows that it becomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.config.accounts import AccountSettings
from gateway.hooks.stages import Stages
from gateway.mail.address import Address
from gateway.model import EnvIdOrigin, HoldRule, Submission
from gateway.outbound.from_ids import FromId, random_id
from gateway.store.changes import NewCopy, NewMessages, NewReceived, NewRecipient
from gateway.store.content import StoredBytes
from gateway.store.received import SENT

if TYPE_CHECKING:
    from gateway.outbound.submission import NewSubmission

DEFAULT_MESSAGES_PER_DAY = 1000
DEFAULT_FIRST_TIME_RECIPIENTS_PER_DAY = 200


@dataclass(frozen=True, slots=True)
class Prepared:
    """A submission that is ready to be queued."""

    new: NewSubmission
    account: AccountSettings
    stages: Stages
    submission: Submission
    content: StoredBytes
    sent_copy: StoredBytes | None
    from_ids: Sequence[FromId]
    bases: Sequence[str]
    feedback_id: str = ""  # the ENVID, where the message has to have it in its header


async def make_change(prepared: Prepared, rules: Sequence[HoldRule], generation: int) -> NewMessages:
    """The rows to write, and the facts that must still hold then. Raises PluginError."""
    new, submission, account = prepared.new, prepared.submission, prepared.account
    reports = new.reports
    held = [
        bool(await prepared.stages.hold(submission=submission, recipient=recipient, rules=rules))
        for recipient in submission.recipients
    ]
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
        list_name=new.list_name,
        content=prepared.content,
        recipients=tuple(
            NewRecipient(
                address=r,
                base_address=base,
                hold=hold,
                destination=r.domain,
                from_id=from_id.id,
                from_id_secret=from_id.secret,
                sender=from_id.sender,
                env_id=env_id,
                env_id_origin=origin,
                dsn_notify=reports.recipients.get(r, ("", ""))[0],
                dsn_orcpt=reports.recipients.get(r, ("", ""))[1],
            )
            for r, from_id, (env_id, origin), base, hold in zip(
                submission.recipients,
                prepared.from_ids,
                _env_ids(prepared, submission.recipients, prepared.from_ids),
                prepared.bases,
                held,
                strict=True,
            )
        ),
        hold_generation=generation,
        max_messages=_limit(account.max_messages_per_day, DEFAULT_MESSAGES_PER_DAY),
        max_first_time=_limit(
            account.max_first_time_recipients_per_day, DEFAULT_FIRST_TIME_RECIPIENTS_PER_DAY
        ),
        sent_copy=None
        if prepared.sent_copy is None
        else _sent(submission, prepared.sent_copy, account.quota),
    )


def _env_ids(
    prepared: Prepared, recipients: Sequence[Address], from_ids: Sequence[FromId]
) -> Iterator[tuple[str, EnvIdOrigin]]:
    """For each recipient its envelope's ENVID: what the submitter gave, or else one for each transaction."""
    given = prepared.new.reports.env_id
    sharing = Counter(r.domain for r, unique in zip(recipients, from_ids, strict=True) if not unique.id)
    shared = {domain: random_id() for domain, count in sharing.items() if count > 1}
    for recipient, unique in zip(recipients, from_ids, strict=True):
        if given:
            yield given, "submitter"
        elif prepared.feedback_id:
            yield prepared.feedback_id, "recipient"
        elif unique.id or recipient.domain not in shared:
            yield random_id(), "recipient"
        else:
            yield shared[recipient.domain], "transaction"


def _sent(submission: Submission, copy: StoredBytes, quota: int) -> NewReceived:
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
                quota=quota,
            ),
        ),
    )


def _limit(setting: int, default: int) -> int | None:
    """In settings 0 is the default and -1 no limit; in the store None is no limit."""
    return None if setting < 0 else setting or default
