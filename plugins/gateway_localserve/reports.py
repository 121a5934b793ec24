"""What comes back about a message that a simulated server took: a bounce (RFC 3464), a complaint (RFC 5965).

Pure: from the transaction to the bytes of the report.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from gateway import Address, Reception
from gateway.mail.address import ascii_domain, format_mailbox
from gateway.mail.compose import new_message_id
from gateway.mail.compose_dsn import DsnDraft, DsnRecipient, compose_dsn
from gateway.mail.fields import fold_field, format_date, text_field
from gateway.mail.headers import read_headers

MAX_RETURNED = 64 * 1024  # octets of the message's header that go back

ReportKind = Literal["bounce", "complain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A report to be made: on what, and for whom."""

    kind: ReportKind
    sender: Address  # of the message, to whom the report goes
    recipient: Address  # who bounces or complains
    header: bytes
    remote_ip: str
    stored: Callable[[], Awaitable[bool]]  # whether it was taken at all


def report_kind(localpart: str) -> ReportKind | None:
    """What a localpart asks for."""
    lower = localpart.lower()
    return "bounce" if lower.endswith("bounce") else "complain" if lower.endswith("complain") else None


def wanted_reports(reception: Reception) -> list[Wanted]:
    """For each recipient that asks for one; a report on a report is none."""
    if reception.reverse_path is None:
        return []
    header = reception.header[:MAX_RETURNED]
    return [
        Wanted(
            kind=kind,
            sender=reception.reverse_path,
            recipient=recipient,
            header=header,
            remote_ip=reception.remote_ip,
            stored=reception.stored,
        )
        for recipient in reception.recipients
        if (kind := report_kind(recipient.localpart)) is not None
    ]


def compose(wanted: Wanted, now: datetime) -> bytes:
    """The report, as the recipient's server writes it. Raises FieldError."""
    return _bounce(wanted, now) if wanted.kind == "bounce" else _complaint(wanted, now)


def _bounce(wanted: Wanted, now: datetime) -> bytes:
    fields, _ = read_headers(wanted.header)
    ids = fields.message_ids("Message-ID")
    failed = DsnRecipient(
        address=wanted.recipient,
        action="failed",
        status="5.1.1",
        diagnostic="550 5.1.1 simulated bounce: there is no such mailbox",
        error="simulated bounce: there is no such mailbox",
        last_attempt=now,
    )
    return compose_dsn(
        DsnDraft(
            hostname=wanted.recipient.domain,
            to=wanted.sender,
            message_id=new_message_id(ascii_domain(wanted.recipient.domain)),
            date=now,
            recipients=(failed,),
            arrived=now,
            subject=fields.text("Subject"),
            original_message_id=ids[0] if ids else "",
            original=wanted.header,
            full=False,
            smtputf8=not wanted.recipient.is_ascii,
        )
    )


def _complaint(wanted: Wanted, now: datetime) -> bytes:
    """With the recipient's address, which most providers hide."""
    domain, boundary = ascii_domain(wanted.recipient.domain), secrets.token_hex(16)
    utf8 = not (wanted.sender.is_ascii and wanted.recipient.is_ascii)
    recipient, sender = wanted.recipient.format(utf8), wanted.sender.format(utf8)
    head = b"".join(
        [
            fold_field("From", format_mailbox("Feedback loop", Address("fbl", domain), utf8), utf8),
            fold_field("To", format_mailbox("", wanted.sender, utf8), utf8),
            text_field("Subject", "Complaint about a message (simulated)"),
            fold_field("Date", format_date(now)),
            fold_field("Message-ID", new_message_id(domain)),
            b"MIME-Version: 1.0\r\n",
            fold_field(
                "Content-Type", f'multipart/report; report-type=feedback-report; boundary="{boundary}"'
            ),
            b"Content-Transfer-Encoding: 8bit\r\n",
        ]
    )
    feedback = [
        "Feedback-Type: abuse",
        "User-Agent: gateway-localserve/1",
        "Version: 1",
        f"Original-Mail-From: <{sender}>",
        f"Original-Rcpt-To: <{recipient}>",
        f"Arrival-Date: {format_date(now)}",
        f"Source-IP: {wanted.remote_ip}",
    ]
    parts = [
        b"Content-Type: text/plain\r\n\r\nSimulated: somebody marked this message as spam.\r\n",
        b"Content-Type: message/feedback-report\r\n\r\n" + "\r\n".join([*feedback, ""]).encode(),
        b"Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + wanted.header,
    ]
    edge = b"\r\n--" + boundary.encode()
    return head + b"".join(edge + b"\r\n" + part for part in parts) + edge + b"--\r\n"
