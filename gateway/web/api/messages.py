"""The methods that read received messages."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.mail.address_list import NameAddress
from gateway.mail.reading import MessagePart, ParsedMessage, parse_message
from gateway.model import ReceivedMessage
from gateway.web.api import models
from gateway.web.api.calls import Call, Stream


async def message_get(call: Call, request: models.MessageRequest) -> models.MessageGetResult:
    """Raises NotVisible, StoreError."""
    message, content = await call.services.messages.get(call.login.account, request.MsgID)
    data = await content.read()
    parsed = await call.services.offload.run_beside(len(data), parse_message, data)
    return models.MessageGetResult(
        Message=_message(parsed), Structure=part(parsed.structure), Meta=meta(message)
    )


async def message_raw_get(call: Call, request: models.MessageRequest) -> Stream:
    """Raises NotVisible, StoreError."""
    _, content = await call.services.messages.get(call.login.account, request.MsgID)
    return Stream(content_type="text/plain", size=content.size, chunks=content.chunks())


def _message(parsed: ParsedMessage) -> models.ParsedMessage:
    summary = parsed.summary
    return models.ParsedMessage(
        From=_addresses(summary.from_),
        To=_addresses(summary.to),
        CC=_addresses(summary.cc),
        BCC=_addresses(summary.bcc),
        ReplyTo=_addresses(summary.reply_to),
        MessageID=summary.message_id,
        References=list(summary.thread),
        Date=summary.date,
        Subject=summary.subject,
        Text=parsed.text,
        HTML=parsed.html,
    )


def part(found: MessagePart) -> models.Part:
    """A MIME part as clients see it."""
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
