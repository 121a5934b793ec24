"""The methods that read received messages."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.mail import structure
from gateway.mail.address_list import NameAddress
from gateway.model import ReceivedMessage
from gateway.web.api import models
from gateway.web.api.calls import Call, Stream

PARSE_HERE = 64 * 1024  # bytes; parsing more is done beside the loop


async def message_get(call: Call, request: models.MessageRequest) -> models.MessageGetResult:
    """Raises NotVisible, StoreError."""
    message, content = await call.services.messages.get(call.login.account, request.MsgID)
    data = await content.read()
    if len(data) <= PARSE_HERE:
        parsed, root = describe(data)
    else:
        parsed, root = await call.services.offload.run(describe, data)
    return models.MessageGetResult(Message=parsed, Structure=root, Meta=meta(message))


async def message_raw_get(call: Call, request: models.MessageRequest) -> Stream:
    """Raises NotVisible, StoreError."""
    _, content = await call.services.messages.get(call.login.account, request.MsgID)
    return Stream(content_type="text/plain", size=content.size, chunks=content.chunks())


def describe(data: bytes) -> tuple[models.ParsedMessage, models.Part]:
    """A message as clients see it. Pure."""
    parsed = structure.parse(data)
    summary, readable = structure.summary(parsed), structure.readable(parsed)
    message = models.ParsedMessage(
        From=_addresses(summary.from_),
        To=_addresses(summary.to),
        CC=_addresses(summary.cc),
        BCC=_addresses(summary.bcc),
        ReplyTo=_addresses(summary.reply_to),
        MessageID=summary.message_id,
        References=list(summary.thread),
        Date=summary.date,
        Subject=summary.subject,
        Text=readable.text,
        HTML=readable.html,
    )
    return message, part(parsed.root)


def part(found: structure.Part) -> models.Part:
    """A MIME part as clients see it; no deeper than `structure.MAX_DEPTH`."""
    return models.Part(
        ContentType=found.content_type,
        ContentTypeParams=dict(found.params),
        ContentID=found.content_id,
        ContentDisposition=found.disposition,
        Filename=found.filename,
        DecodedSize=found.decoded_size,
        Parts=[part(member) for member in found.parts],
    )


def meta(message: ReceivedMessage) -> models.MessageMeta:
    return models.MessageMeta(
        Size=message.size,
        DSN=message.dsn,
        Flags=list(message.flags),
        MailFrom=message.mail_from,
        MailFromValidated=message.mail_from_validated,
        RcptTo=message.rcpt_to,
        MsgFrom=message.msg_from,
        MsgFromValidated=message.msg_from_validated,
        DKIMVerifiedDomains=list(message.dkim_verified_domains),
        RemoteIP=message.remote_ip,
        MailboxName=message.mailbox,
    )


def _addresses(found: Iterable[NameAddress]) -> list[models.ParsedAddress]:
    return [models.ParsedAddress(Name=a.name, Address=a.address) for a in found]
