"""The methods Send and SendBatch: from the request to composed messages, handed to the submitter.

The rules are checked in the order of cost; what one of them says names the field as the client wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gateway import __version__
from gateway.errors import PluginError, SubmissionRefused
from gateway.mail.address import Address, AddressError, ascii_domain
from gateway.mail.compose import (
    Composed,
    Draft,
    Mailbox,
    bcc_field,
    compose,
    new_message_id,
)
from gateway.mail.fields import FieldError, check_text
from gateway.offload import OffloadError
from gateway.smtp.dsn import xtext
from gateway.turns import Turns
from gateway.web.api import models
from gateway.web.api.calls import Call
from gateway.web.api.errors import MAX_MESSAGE, BadRequest, error_answer
from gateway.web.api.files import read_files
from gateway.web.api.services import KeepAnswer, NewSubmission, Refusal, ReportWishes, Submitted
from gateway.web.api.versions import Room, Version, check_fields, make_versions

MAX_RECIPIENTS = 1000
MAX_BATCH = 500  # messages
MAX_BATCH_RECIPIENTS = 5000  # of all messages: they are one transaction, which others wait for
MAX_FUTURE_RELEASE = timedelta(days=60)
MAX_FILES = 1000
MAX_ENV_ID = 100  # characters (RFC 3461, 4.4)
NOTIFY = ("NEVER", "SUCCESS", "FAILURE", "DELAY")
MAX_EXTRA = 64 * 1024  # characters; every webhook of every recipient repeats them
USER_AGENT = f"mail-gateway/{__version__}"
# Characters of text. More than this takes milliseconds to encode, which is done beside the loop.
COMPOSE_HERE = 1024 * 1024

_FILE_FIELD = re.compile(r"(AlternativeFiles|InlineFiles|AttachedFiles)\[(\d+)\](.*)")


@dataclass(frozen=True, slots=True)
class _Sending:
    """A message that is composed, and what its answer needs."""

    copies: Sequence[NewSubmission]  # one for all recipients, or one for each
    as_given: Sequence[str]  # the addresses of its recipients

    def answer(self, result: Submitted | Refusal) -> models.SendResult | models.Refused:
        if not isinstance(result, Submitted):
            return _refused(result)
        if result.over_quota:
            return models.Refused(
                Code="sentOverQuota",
                Message="SaveSent: your mailboxes are full, so no copy is in Sent;"
                f" the message {self.message_id} was queued nevertheless: do not send it again",
            )
        addresses = [recipient.address for recipient in result.recipients]
        shown: Iterable[str] = self.as_given
        wanted = [recipient for copy in self.copies for recipient in copy.recipients]
        if addresses != wanted:  # a plugin's doing
            as_given = dict(zip(wanted, self.as_given, strict=True))
            shown = [as_given.get(address) or str(address) for address in addresses]
        return models.SendResult(
            MessageID=self.message_id,
            Submissions=[
                models.Submission(Address=text, QueueMsgID=recipient.id, FromID=recipient.from_id)
                for text, recipient in zip(shown, result.recipients, strict=True)
            ],
        )

    @property
    def message_id(self) -> str:
        return self.copies[0].message_id


async def send(call: Call, request: models.SendRequest) -> models.SendResult:
    """Raises SubmissionRefused, BadRequest, FieldError, OffloadError, PluginError, StoreError."""
    sending = await _compose_all(call, request, Room(), Turns())

    def kept(results: Sequence[Submitted | Refusal]) -> Mapping[str, Any]:
        return sending.answer(results[0]).model_dump(mode="json")

    answer = sending.answer(await call.services.submitter.submit_together(sending.copies, _keep(call, kept)))
    if isinstance(answer, models.Refused):
        raise BadRequest(answer.Code, answer.Message)
    return answer


async def send_batch(call: Call, request: models.SendBatchRequest) -> models.SendBatchResult:
    """Raises SubmissionRefused for the batch as a whole, StoreError."""
    _check_batch(request)
    composed: list[_Sending | models.Refused] = []
    room, turns = Room(), Turns()
    for message in request.Messages:
        await turns.give()
        try:
            composed.append(await _compose_all(call, message, room, turns))
        except (BadRequest, SubmissionRefused, FieldError, OffloadError, PluginError) as exc:
            composed.append(_refused(exc))

    def answer(results: Sequence[Submitted | Refusal]) -> models.SendBatchResult:
        left = iter(results)
        return models.SendBatchResult(
            Results=[one.answer(next(left)) if isinstance(one, _Sending) else one for one in composed]
        )

    def kept(results: Sequence[Submitted | Refusal]) -> Mapping[str, Any] | None:
        queued = any(isinstance(result, Submitted) for result in results)
        return answer(results).model_dump(mode="json") if queued else None

    batch = [one.copies for one in composed if isinstance(one, _Sending)]
    return answer(await call.services.submitter.submit_each(batch, _keep(call, kept)))


def _check_batch(request: models.SendBatchRequest) -> None:
    if len(request.Messages) > MAX_BATCH:
        raise SubmissionRefused("user", f"Messages: {len(request.Messages)} messages; at most {MAX_BATCH}")
    recipients = sum(len(m.To) + len(m.CC) + len(m.BCC) for m in request.Messages)
    if recipients > MAX_BATCH_RECIPIENTS:
        raise SubmissionRefused(
            "user", f"Messages: {recipients} recipients in all; at most {MAX_BATCH_RECIPIENTS}"
        )


def _keep(
    call: Call, answer: Callable[[Sequence[Submitted | Refusal]], Mapping[str, Any] | None]
) -> KeepAnswer | None:
    given = call.idempotency_key
    return None if given is None else KeepAnswer(given.key, given.digest, answer)


def _refused(exc: Exception) -> models.Refused:
    told = error_answer(exc, "Send")
    return models.Refused(Code=told.code, Message=told.message[:MAX_MESSAGE])


async def _compose_all(call: Call, request: models.SendRequest, room: Room, turns: Turns) -> _Sending:
    """The message of a request. Raises SubmissionRefused, BadRequest, FieldError, OffloadError, PluginError,
    StoreError."""
    services, now = call.services, call.services.clock.now()
    _check_limits(call, request)
    from_ = _from(call, request)
    to, cc, bcc, reply_to = (
        mailboxes("To", request.To),
        mailboxes("CC", request.CC),
        mailboxes("BCC", request.BCC),
        mailboxes("ReplyTo", request.ReplyTo),
    )
    if not to and not cc and not bcc:
        raise SubmissionRefused("noRecipients", "To, CC and BCC are all empty")
    check_fields(request)
    future_release = _future_release(request.FutureRelease, now)
    reports = _report_wishes(request, [mailbox.address for mailbox in (*to, *cc, *bcc)])

    draft = Draft(
        from_=[from_],
        to=to,
        cc=cc,
        reply_to=reply_to,
        message_id=request.MessageID or new_message_id(ascii_domain(services.settings.hostname)),
        references=request.References,
        date=request.Date or now,
        subject=request.Subject,
        text=request.Text,
        html=request.HTML,
        headers=request.Headers,
        alternative_files=await read_files(
            "alternativefile", "AlternativeFiles", request.AlternativeFiles, call.files
        ),
        inline_files=await read_files("inlinefile", "InlineFiles", request.InlineFiles, call.files),
        attached_files=await read_files("attachedfile", "AttachedFiles", request.AttachedFiles, call.files),
        user_agent=USER_AGENT,
        require_tls_no=request.RequireTLS is False,
    )
    copies: list[NewSubmission] = []
    versions = await make_versions(call, request, draft, bcc)
    secret = not request.MessageID and len(versions) == 1
    del draft
    while versions:
        await turns.give()
        version = versions.pop(0)
        composed = await _compose(call, request, version)
        if version.is_own:
            room.take(len(composed.data))
        recipients, subject, hidden = version.recipients, version.draft.subject, version.bcc
        del version  # of a large file, a third of what it takes here
        copies.append(
            NewSubmission(
                account=call.login.account,
                login=call.login.address,
                via="api",
                header_from=from_.address,
                recipients=recipients,
                data=composed.data,
                message_id=composed.message_id,
                subject=subject,
                smtputf8=composed.smtputf8 or not all(address.is_ascii for address in recipients),
                made_message_id=secret,
                has_8bit=composed.has_8bit,
                require_tls=request.RequireTLS,
                future_release=future_release,
                extra=request.Extra,
                list_name=request.List,
                sent_copy=bcc_field(hidden) + composed.data if request.SaveSent else None,
                reports=reports,
            )
        )
    return _Sending(copies, [entry.Address for entry in (*request.To, *request.CC, *request.BCC)])


def _check_limits(call: Call, request: models.SendRequest) -> None:
    """How many and how much, before anything is looked at one by one."""
    recipients = len(request.To) + len(request.CC) + len(request.BCC)
    if recipients > MAX_RECIPIENTS:
        raise SubmissionRefused("user", f"To, CC and BCC: {recipients} recipients; at most {MAX_RECIPIENTS}")
    if len(request.ReplyTo) > MAX_RECIPIENTS:
        raise SubmissionRefused("user", f"ReplyTo: more than {MAX_RECIPIENTS} addresses")
    files = len(request.AlternativeFiles) + len(request.InlineFiles) + len(request.AttachedFiles)
    if files + len(call.files) > MAX_FILES:
        raise SubmissionRefused("user", f"more than {MAX_FILES} files")
    if sum(len(key) + len(value) for key, value in request.Extra.items()) > MAX_EXTRA:
        raise SubmissionRefused("user", f"Extra: more than {MAX_EXTRA} characters")
    if any("\0" in text for item in request.Extra.items() for text in item):
        raise SubmissionRefused("user", "Extra: the character U+0000 is not allowed")


def _from(call: Call, request: models.SendRequest) -> Mailbox:
    """Who the message is from: one whom the account may write as."""
    if len(request.From) > 1:
        raise SubmissionRefused("multipleFrom", f"From: {len(request.From)} addresses; at most one")
    if not request.From:
        return Mailbox(call.login.settings.full_name, call.login.address)
    from_ = mailboxes("From", request.From)[0]
    directory = call.services.directory
    if not directory.may_send_from(call.login.account, from_.address):
        raise SubmissionRefused(
            "badFrom", f"From[0].Address: {from_.address} is not an address of your account"
        )
    if directory.domain_disabled(from_.address.domain):
        raise SubmissionRefused("domainDisabled", f"From[0].Address: {from_.address.domain} is disabled")
    return from_


def mailboxes(field: str, entries: Iterable[models.NameAddress]) -> list[Mailbox]:
    """The entries of an address field. Raises FieldError for a name, SubmissionRefused for an address."""
    found: list[Mailbox] = []
    for index, entry in enumerate(entries):
        try:
            address = Address.parse(entry.Address)
        except AddressError as exc:
            raise SubmissionRefused("badAddress", f"{field}[{index}].Address: {exc}") from None
        check_text(f"{field}[{index}].Name", entry.Name)
        found.append(Mailbox(entry.Name, address))
    return found


def _future_release(wanted: datetime | None, now: datetime) -> datetime | None:
    if wanted is None or wanted <= now:
        return None
    if wanted > now + MAX_FUTURE_RELEASE:
        raise SubmissionRefused("user", f"FutureRelease: more than {MAX_FUTURE_RELEASE.days} days ahead")
    return wanted


def _report_wishes(request: models.SendRequest, recipients: Sequence[Address]) -> ReportWishes:
    """What is asked of RFC 3461, for all recipients alike."""
    if not (request.EnvID.isascii() and request.EnvID.isprintable()):
        raise SubmissionRefused("user", "EnvID: has characters other than printable ASCII")
    if len(xtext(request.EnvID)) > MAX_ENV_ID:
        raise SubmissionRefused(
            "user",
            f"EnvID: more than {MAX_ENV_ID} characters as it is sent (RFC 3461), where a space, + and = take"
            " three each",
        )
    notify = [word.upper() for word in request.DSNNotify]
    for index, word in enumerate(notify):
        if word not in NOTIFY:
            raise SubmissionRefused("user", f"DSNNotify[{index}]: is none of {', '.join(NOTIFY)}")
    if len(set(notify)) < len(notify):
        raise SubmissionRefused("user", "DSNNotify: a word is there twice")
    if "NEVER" in notify and len(notify) > 1:
        raise SubmissionRefused("user", "DSNNotify: NEVER excludes the other words")
    ret = request.DSNReturn.upper()
    if ret not in ("", "FULL", "HDRS"):
        raise SubmissionRefused("user", "DSNReturn: is neither FULL nor HDRS")
    wish = (",".join(notify), "")
    return ReportWishes(
        env_id=request.EnvID, ret=ret, recipients=dict.fromkeys(recipients, wish) if notify else {}
    )


# --- Composing -----------------------------------------------------------------------------------


async def _compose(call: Call, request: models.SendRequest, version: Version) -> Composed:
    """Here, unless there is much text: files are encoded already."""
    draft = version.draft
    try:
        if len(draft.text) + len(draft.html) <= COMPOSE_HERE:
            composed = compose(draft)
        else:
            composed = await call.services.offload.run(compose, draft)
    except FieldError as exc:
        raise version.wrong(type(exc)(_as_given(request, exc.field), exc.message)) from None
    limit = call.services.settings.queue.max_message_size
    if len(composed.data) > limit:
        raise SubmissionRefused(
            "messageTooLarge", f"the message has {len(composed.data)} bytes; at most {limit} are allowed"
        )
    return composed


def _as_given(request: models.SendRequest, field: str) -> str:
    """What `field` names, where the client put it: the object's files come first, then the parts."""
    match = _FILE_FIELD.fullmatch(field)
    if match is None:
        return field
    name, index, rest = match[1], int(match[2]), match[3]
    in_object = len(getattr(request, name))
    if index < in_object:
        return field
    return f"part {name.removesuffix('Files').lower()}file[{index - in_object}]{rest}"
