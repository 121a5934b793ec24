"""The methods about the messages in the account's mailboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from gateway.errors import StoreUnavailable
from gateway.mail.address_list import NameAddress
from gateway.mail.flags import MAX_FLAGS, FlagError, parse_flag
from gateway.mail.reading import MessagePart, ParsedMessage, PartPlace, locate_part, parse_message
from gateway.mail.transfer import Decoder
from gateway.model import Content, ReceivedMessage
from gateway.store.mailbox_listing import ListedMessage, MessageFilter
from gateway.store.pages import MAX_PAGE
from gateway.web.api import models
from gateway.web.api.calls import Call, Stream
from gateway.web.api.errors import BadRequest

DEFAULT_PAGE = 100  # messages
MAX_WANTED = 200  # characters of a text to look for

# A part is whatever its sender wanted: no browser may show it as a page of ours.
_PART_HEADERS = {"Content-Disposition": "attachment", "Content-Security-Policy": "sandbox"}


async def message_get(call: Call, request: models.MessageRequest) -> models.MessageGetResult:
    """Raises NotVisible, StoreError."""
    message, content = await call.services.messages.get(call.login.account, request.MsgID)
    async with _unless_deleted(call, request.MsgID):
        parsed = await call.services.offload.run_on(content, parse_message)
    return models.MessageGetResult(
        Message=_message(parsed), Structure=part(parsed.structure), Meta=meta(message)
    )


async def message_raw_get(call: Call, request: models.MessageRequest) -> Stream:
    """Raises NotVisible, StoreError."""
    _, content = await call.services.messages.get(call.login.account, request.MsgID)
    return Stream(content_type="text/plain", size=content.size, chunks=content.chunks())


async def message_part_get(call: Call, request: models.MessagePartRequest) -> Stream:
    """Raises BadRequest (partNotFound), NotVisible, StoreError."""
    _, content = await call.services.messages.get(call.login.account, request.MsgID)
    async with _unless_deleted(call, request.MsgID):
        place = await call.services.offload.run_on(content, locate_part, request.PartPath)
    if place is None:
        raise BadRequest(
            "partNotFound", "PartPath: the message has no such part; MessageGet shows which it has"
        )
    return Stream(
        content_type=place.content_type,
        size=place.decoded_size,
        chunks=_DecodedPieces(content, place),
        headers=_PART_HEADERS,
    )


async def message_delete(call: Call, request: models.MessageRequest) -> models.EmptyResult:
    """Raises NotVisible, StoreError."""
    await call.services.messages.delete(call.login.account, request.MsgID)
    return models.EmptyResult()


async def message_flags_add(call: Call, request: models.MessageFlagsRequest) -> models.EmptyResult:
    """Raises BadRequest (user), NotVisible, StoreError."""
    flags = _flags(request.Flags)
    try:
        await call.services.messages.change_flags(call.login.account, request.MsgID, add=flags)
    except FlagError as exc:
        raise BadRequest("user", f"Flags: {exc}") from None
    return models.EmptyResult()


async def message_flags_remove(call: Call, request: models.MessageFlagsRequest) -> models.EmptyResult:
    """Raises BadRequest (user), NotVisible, StoreError."""
    flags = _flags(request.Flags)
    await call.services.messages.change_flags(call.login.account, request.MsgID, remove=flags)
    return models.EmptyResult()


async def message_move(call: Call, request: models.MessageMoveRequest) -> models.EmptyResult:
    """Raises BadRequest (user), NotVisible, StoreError."""
    name = request.DestMailboxName
    if not await call.services.messages.move(call.login.account, request.MsgID, name):
        raise _no_mailbox("DestMailboxName", name)
    return models.EmptyResult()


async def message_list(call: Call, request: models.MessageListRequest) -> models.MessageListResult:
    """Raises BadRequest (user), StoreError."""
    for field in ("From", "To", "Subject"):
        if len(getattr(request, field)) > MAX_WANTED:
            raise BadRequest("user", f"{field}: at most {MAX_WANTED} characters can be looked for")
    if not 0 <= request.Max <= MAX_PAGE:
        raise BadRequest("user", f"Max: must be from 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}")
    wanted = MessageFilter(
        mailbox=request.MailboxName,
        flags=_flags(request.Flags),
        not_flags=_flags(request.NotFlags, "NotFlags"),
        from_=request.From,
        to=request.To,
        subject=request.Subject,
        since=request.Since,
        before=request.Before,
    )
    try:
        page = await call.services.messages.page(
            call.login.account, wanted, cursor=request.Cursor, maximum=request.Max or DEFAULT_PAGE
        )
    except ValueError:
        raise BadRequest("user", "Cursor: is none that a page ended with") from None
    if page is None:
        raise _no_mailbox("MailboxName", request.MailboxName)
    found, cursor = page
    return models.MessageListResult(Messages=[_listed(one) for one in found], NextCursor=cursor)


@asynccontextmanager
async def _unless_deleted(call: Call, msg_id: int) -> AsyncIterator[None]:
    """A message that cannot be read since it was deleted meanwhile is one that is not there."""
    try:
        yield
    except StoreUnavailable:
        await call.services.messages.get(call.login.account, msg_id)
        raise


class _DecodedPieces:
    """Iterates over a part's octets, read and decoded piece by piece.

    A class instead of an async generator: one that is left early needs no closing in time.
    """

    def __init__(self, content: Content, place: PartPlace) -> None:
        self._pieces = content.chunks()
        self._place = place
        self._at = 0
        self._decoder = Decoder(place.encoding)
        self._ended = False

    def __aiter__(self) -> _DecodedPieces:
        return self

    async def __anext__(self) -> bytes:
        start, end = self._place.start, self._place.end
        while self._at < end and (piece := await anext(self._pieces, None)) is not None:
            ours = piece[max(start - self._at, 0) : max(end - self._at, 0)]
            self._at += len(piece)
            if ours and (decoded := self._decoder.feed(ours)):
                return decoded
        if not self._ended:
            self._ended = True
            return self._decoder.end()
        raise StopAsyncIteration


def _no_mailbox(field: str, name: str) -> BadRequest:
    return BadRequest("user", f"{field}: the account has no mailbox {name[:100]!a}")


def _flags(names: Sequence[str], field: str = "Flags") -> frozenset[str]:
    """Raises BadRequest (user)."""
    if len(names) > MAX_FLAGS:
        raise BadRequest("user", f"{field}: at most {MAX_FLAGS} at a time")
    flags = set()
    for index, name in enumerate(names):
        try:
            flags.add(parse_flag(name))
        except FlagError as exc:
            raise BadRequest("user", f"{field}[{index}]: {exc}") from None
    return frozenset(flags)


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
        BeyondLimits=found.beyond_limits,
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


def _listed(found: ListedMessage) -> models.ListedMessage:
    return models.ListedMessage(
        MsgID=found.message.id,
        Received=found.message.received,
        MessageID=found.message_id,
        Subject=found.subject,
        Meta=meta(found.message),
    )


def _addresses(found: Iterable[NameAddress]) -> list[models.ParsedAddress]:
    return [models.ParsedAddress(Name=a.name, Address=a.address) for a in found]
