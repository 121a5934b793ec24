"""Composing delivery status notifications (RFC 3464, RFC 6522; RFC 6533 where the message is SMTPUTF8).

    multipart/report
      text/plain                   for people
      message/delivery-status      for programs
      text/rfc822-headers          the header of the message it is about, or all of it as message/rfc822

Notifications are for mailboxes of ours: whatever octets the message has, they are returned as they are.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Literal

from gateway.mail.address import Address, ascii_domain, format_mailbox
from gateway.mail.fields import MAX_TEXT, fold_field, format_date, text_field
from gateway.mail.headers import parse_message_ids
from gateway.mail.transfer import encode_text
from gateway.smtp.dsn import utf8_address

MAX_DIAGNOSTIC = 1_000  # characters of Diagnostic-Code
MAX_WORD = 960  # octets of one word in the delivery status: with the name of its field a line holds it
MAX_SAID = 4_000  # characters of an error in the text
MAX_TRANSCRIPT_LINES = 60  # in the text: the last ones

Action = Literal["failed", "delayed", "relayed", "delivered"]

_SUBJECTS: dict[Action, str] = {
    "failed": "Not delivered",
    "delayed": "Not yet delivered",
    "relayed": "Handed on",
    "delivered": "Delivered",
}
_OPENINGS: dict[Action, str] = {
    "failed": "Your message could not be delivered to:",
    "delayed": "Your message could not be delivered so far, and there is nothing that you have to do. It is\n"
    "tried again, for:",
    "relayed": "Your message was handed to the next mail server, which does not report further, for:",
    "delivered": "Your message was delivered to:",
}
# Of a failure where it is in doubt.
_UNKNOWN_SUBJECT = "Perhaps not delivered"
_UNKNOWN_OPENING = "It is not known whether your message was delivered, and it is not tried again, for:"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DsnRecipient:
    """One recipient, and what became of the message for it. Times are aware; "" and None are left out."""

    address: Address
    action: Action
    status: str  # RFC 3463
    original: str = ""  # ORCPT as the submitter gave it, decoded: "rfc822;a@example.org"
    remote_mta: str = ""  # host name
    diagnostic: str = ""  # the reply: "550 5.1.1 no such user"
    error: str = ""  # for people: all that the remote said
    transcript: str = ""  # of the SMTP session, for people
    last_attempt: datetime | None = None
    next_attempts: tuple[datetime, ...] = ()
    retry_until: datetime | None = None  # the last attempt's time
    unknown: bool = False  # of one that failed: it may have been delivered all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class DsnDraft:
    """What to compose. All recipients have one action, and one doubt."""

    hostname: str  # ours
    to: Address
    message_id: str  # of the notification, with its angle brackets
    date: datetime
    recipients: Sequence[DsnRecipient]
    arrived: datetime  # when we were given the message
    subject: str  # of the message, as are all that follow
    original_message_id: str
    original: bytes  # its header section, or all of it
    full: bool  # `original` is all of it
    envelope_id: str = ""  # ENVID, decoded, if the submitter gave one
    future_release: str = ""  # as requested (RFC 4865)
    smtputf8: bool = False


def compose_dsn(draft: DsnDraft) -> bytes:
    """The notification, CRLF throughout but for what `original` has. Raises FieldError."""
    text = "".join(_text(draft))
    encoding, body = encode_text(text)
    charset = "us-ascii" if encoding == "7bit" else "utf-8"
    returned = draft.original if draft.original.endswith(b"\n") else draft.original + b"\r\n"
    parts = (
        (f"text/plain; charset={charset}", "Notification", encoding, body),
        (_kind(draft, "delivery-status"), "Delivery report", *_as_it_is(_status(draft))),
        (_returned_type(draft), "Returned message", *_as_it_is(returned)),
    )
    boundary = _boundary(body, returned)
    header = _header(draft, boundary, "8bit" if any(part[2] == "8bit" for part in parts) else "7bit")
    pieces = [header]
    for content_type, description, encoding, data in parts:
        pieces.append(
            f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Description: {description}\r\n"
            f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode()
        )
        pieces.append(data)
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return b"".join(pieces)


# --- Header ---------------------------------------------------------------------------------------


def dsn_subject(recipient: DsnRecipient, subject: str) -> str:
    """The Subject of a notice on a message with that one."""
    subject = _plain(subject)[: MAX_TEXT // 2]
    what = _UNKNOWN_SUBJECT if recipient.unknown else _SUBJECTS[recipient.action]
    return f"{what}: {subject}" if subject else what


def _header(draft: DsnDraft, boundary: str, encoding: str) -> bytes:
    utf8 = not draft.to.is_ascii
    postmaster = Address("postmaster", draft.hostname)
    original = parse_message_ids(draft.original_message_id)[:1]
    if not all(known.isascii() and known.isprintable() for known in original):
        original = ()
    # RFC 6522, 3: report-type is the second part's subtype.
    report_type = _kind(draft, "delivery-status").partition("/")[2]
    return b"".join(
        [
            b"Return-Path: <>\r\n",
            fold_field("From", format_mailbox("Mail delivery", postmaster, utf8), utf8),
            fold_field("To", format_mailbox("", draft.to, utf8), utf8),
            text_field("Subject", dsn_subject(draft.recipients[0], draft.subject), utf8),
            fold_field("Date", format_date(draft.date)),
            fold_field("Message-ID", draft.message_id),
            *(fold_field(name, known) for known in original for name in ("In-Reply-To", "References")),
            b"Auto-Submitted: auto-replied\r\n",  # RFC 3834, 5.1
            b"MIME-Version: 1.0\r\n",
            fold_field("Content-Type", f'multipart/report; report-type={report_type}; boundary="{boundary}"'),
            f"Content-Transfer-Encoding: {encoding}\r\n".encode(),
        ]
    )


def _kind(draft: DsnDraft, subtype: str) -> str:
    return f"message/{'global-' if draft.smtputf8 else ''}{subtype}"


def _returned_type(draft: DsnDraft) -> str:
    if draft.full:
        return "message/global" if draft.smtputf8 else "message/rfc822"
    return "message/global-headers" if draft.smtputf8 else "text/rfc822-headers"


def _as_it_is(data: bytes) -> tuple[str, bytes]:
    return ("7bit" if data.isascii() else "8bit"), data


def _boundary(*texts: bytes) -> str:
    while True:
        boundary = f"=_d{secrets.token_hex(12)}"
        if not any(boundary.encode() in text for text in texts):
            return boundary


# --- For programs ---------------------------------------------------------------------------------


def _status(draft: DsnDraft) -> bytes:
    """The delivery-status part (RFC 3464, 2.1)."""
    fields = [("Reporting-MTA", f"dns; {ascii_domain(draft.hostname)}")]
    if _plain(draft.envelope_id):
        fields.append(("Original-Envelope-Id", draft.envelope_id))
    fields.append(("Arrival-Date", format_date(draft.arrived)))
    if _plain(draft.future_release):
        fields.append(("Future-Release-Request", draft.future_release))  # RFC 4865, 7
    groups = [fields, *(_recipient(recipient, draft.smtputf8) for recipient in draft.recipients)]
    return b"\r\n".join(
        b"".join(_status_field(draft, name, value) for name, value in group) for group in groups
    )


def _host(name: str) -> str:
    """A host that has no name but an address is written as a literal (RFC 5321, 4.1.3)."""
    try:
        address = ip_address(name)
    except ValueError:
        return name
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"


def _recipient(recipient: DsnRecipient, utf8: bool) -> list[tuple[str, str]]:
    fields = []
    if _plain(recipient.original):
        kind, semicolon, address = recipient.original.partition(";")
        fields.append(("Original-Recipient", f"{kind}{semicolon}{_typed(kind, address, utf8)}"))
    kind = "rfc822" if recipient.address.is_ascii else "utf-8"  # RFC 6533, 3
    fields.append(("Final-Recipient", f"{kind}; {_typed(kind, _shown(recipient.address), utf8)}"))
    fields.append(("Action", recipient.action))
    fields.append(("Status", recipient.status))
    if _HOST.fullmatch(recipient.remote_mta):
        fields.append(("Remote-MTA", f"dns; {_host(recipient.remote_mta)}"))
    if diagnostic := _plain(recipient.diagnostic[:MAX_DIAGNOSTIC]):
        fields.append(("Diagnostic-Code", f"smtp; {diagnostic}"))
    if recipient.last_attempt is not None:
        fields.append(("Last-Attempt-Date", format_date(recipient.last_attempt)))
    if recipient.retry_until is not None and recipient.action == "delayed":
        fields.append(("Will-Retry-Until", format_date(recipient.retry_until)))
    return fields


def _typed(kind: str, address: str, utf8: bool) -> str:
    """An address of type `kind` as the part can have it: where UTF-8 cannot stand, "utf-8" has escapes."""
    return address if utf8 or kind.strip().lower() != "utf-8" else utf8_address(address.strip())


def _status_field(draft: DsnDraft, name: str, value: str) -> bytes:
    """Of a delivery-status part: it has no encoded words, and UTF-8 only in the global type."""
    encoding = "utf-8" if draft.smtputf8 else "ascii"
    words = (word.encode(encoding, "replace")[:MAX_WORD] for word in _plain(value).split())
    return fold_field(name, " ".join(word.decode(encoding, "ignore") for word in words), utf8=True)


def _shown(address: Address) -> str:
    return address.format(utf8=not address.is_ascii)


# --- For people -----------------------------------------------------------------------------------


def _text(draft: DsnDraft) -> Iterator[str]:
    first = draft.recipients[0]
    yield f"{_UNKNOWN_OPENING if first.unknown else _OPENINGS[first.action]}\n\n"
    for recipient in draft.recipients:
        yield f"    {recipient.address}\n"
    yield f"\nSubject:    {_plain(draft.subject)}\n"
    yield f"Message-ID: {_plain(draft.original_message_id)}\n"
    yield f"Sent:       {format_date(draft.arrived)}\n"
    for recipient in draft.recipients:
        if len(draft.recipients) > 1:
            yield f"\n{recipient.address}\n"
        yield from _about(recipient)
    yield f"\nThis message was made by the mail gateway {draft.hostname}.\n"


def _about(recipient: DsnRecipient) -> Iterator[str]:
    if recipient.error:
        yield "\n"
        yield "Why:\n\n" if recipient.action == "failed" else "What the last attempt came to:\n\n"
        yield _indented(recipient.error[:MAX_SAID])
    if _HOST.fullmatch(recipient.remote_mta) and recipient.remote_mta not in recipient.error:
        yield f"\nThe server was {recipient.remote_mta}.\n"
    if recipient.next_attempts:
        yield "\nThe next attempts:\n\n"
        for time in recipient.next_attempts:
            yield f"    {format_date(time)}\n"
    if recipient.retry_until is not None and recipient.action == "delayed":
        yield f"\nIt will be tried until {format_date(recipient.retry_until)}, and you will be told if\n"
        yield "that is in vain.\n"
    if recipient.transcript:
        lines = recipient.transcript.splitlines()
        yield "\nWhat was said (> by this gateway, < by the other server):\n\n"
        if len(lines) > MAX_TRANSCRIPT_LINES:
            yield f"    ({len(lines) - MAX_TRANSCRIPT_LINES} lines left out)\n"
        yield _indented("\n".join(lines[-MAX_TRANSCRIPT_LINES:]))


def _indented(text: str) -> str:
    return "".join(f"    {_plain(line)}\n" for line in text.splitlines())


def _plain(text: str) -> str:
    """On one line, and without what no header or terminal should get."""
    return _CONTROL.sub(" ", text).strip()
