"""A received message as applications and plugins see it: what `structure` finds, without the bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.frozen import freeze
from gateway.mail import structure
from gateway.mail.bounce_text import may_be_bounce
from gateway.mail.feedback import may_be_complaint
from gateway.mail.headers import read_headers
from gateway.mail.structure import Summary

_RECEIVED = re.compile(rb"^received[ \t]*+:", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePart:
    """A MIME part; the message itself is the outermost. No deeper than `structure.MAX_DEPTH`."""

    content_type: str  # lower case, without parameters
    params: Mapping[str, str]
    content_id: str
    disposition: str
    filename: str  # decoded
    decoded_size: int  # octets
    parts: tuple[MessagePart, ...]
    beyond_limits: bool = False  # too deep, too many parts or too long a header: it was not taken apart

    def __post_init__(self) -> None:
        freeze(self, "params")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPlace:
    """Where a part's body is in its message, and what it is."""

    content_type: str  # as of MessagePart
    encoding: str  # for gateway.mail.transfer
    start: int
    end: int
    decoded_size: int  # octets


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedMessage:
    """The header for a person, the readable parts (each cut at 1 MiB, with "\\n"), and the structure."""

    summary: Summary
    text: str
    html: str
    structure: MessagePart


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedHeader:
    """What reception needs to know of a header section."""

    received: int  # Received fields (RFC 5321, 6.3)
    msg_from: str  # the first address of From, "" if there is none
    message_id: str
    subject: str
    dsn: bool  # the content type is a delivery status notification's (RFC 3464, RFC 6533)
    may_report: bool  # of any kind, by its content type, its sender or its subject
    automated: bool  # webhooks: Automated


def parse_message(data: bytes) -> ParsedMessage:
    """Linear in the message's size; never raises."""
    parsed = structure.parse(data)
    readable = structure.readable(parsed)
    return ParsedMessage(
        summary=structure.summary(parsed),
        text=readable.text,
        html=readable.html,
        structure=_part(parsed.root),
    )


def locate_part(data: bytes, path: Sequence[int]) -> PartPlace | None:
    """The part at a PartPath, the message itself for (); None if there is none. Never raises."""
    part = structure.find_part(structure.parse(data), path)
    if part is None:
        return None
    return PartPlace(
        content_type=part.content_type,
        encoding=part.encoding,
        start=part.start,
        end=part.end,
        decoded_size=part.decoded_size,
    )


def parse_header(data: bytes, *, null_sender: bool) -> ParsedHeader:
    """Of a message, or only its header section. Never raises.

    Reads no field but those that it tells of: it runs for every message that comes in.
    """
    headers, _ = read_headers(data)
    media_type = structure.media_type_of(headers)
    from_, message_ids = headers.addresses("From", most=1), headers.message_ids("Message-ID")
    subject = headers.text("Subject")
    report = media_type == "multipart/report"
    kind = structure.content_type_of(headers)[1].get("report-type", "") if report else ""
    return ParsedHeader(
        # A loop would go on for ever, could it grow beyond what is read of a header.
        received=len(_RECEIVED.findall(data)) if headers.oversized else headers.count("Received"),
        msg_from=from_[0].address if from_ else "",
        message_id=message_ids[0] if message_ids else "",
        subject=subject,
        dsn=kind.lower() in ("delivery-status", "global-delivery-status"),
        may_report=report or may_be_bounce(headers.text("From"), subject) or may_be_complaint(subject),
        automated=structure.automated(headers, media_type, null_sender),
    )


def _part(part: structure.Part) -> MessagePart:
    return MessagePart(
        content_type=part.content_type,
        params=part.params,
        content_id=part.content_id,
        disposition=part.disposition,
        filename=part.filename,
        decoded_size=part.decoded_size,
        parts=tuple(_part(member) for member in part.parts),
        beyond_limits=part.beyond_limits,
    )
