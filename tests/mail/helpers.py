"""What the tests of gateway.mail share: drafts, and a limit on the time that a step may take."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import trio

from gateway.mail.address import Address
from gateway.mail.compose import Draft, Mailbox
from gateway.mail.dsn import DeliveryStatus
from gateway.mail.report_source import read_source
from gateway_reports import rfc3464

DATE = datetime(2026, 11, 20, 10, 59, 58, tzinfo=UTC)


def read_dsn(data: bytes) -> DeliveryStatus | None:
    """What the gateway understands of a delivery status notification."""
    return trio.run(rfc3464.read_report, read_source(data))


def mailbox(address: str, name: str = "") -> Mailbox:
    return Mailbox(name, Address.parse(address))


def draft(**fields: Any) -> Draft:
    """A draft with what every message needs, and `fields`."""
    defaults: dict[str, Any] = {
        "from_": [mailbox("alice@example.org", "Alice")],
        "to": [mailbox("bob@example.net")],
        "message_id": "<first@mail.example.org>",
        "date": DATE,
        "subject": "Hello",
    }
    if not {"text", "html"} & fields.keys():
        defaults["text"] = "Hello Bob.\n"
    return Draft(**(defaults | fields))


def read_by_email_package(data: bytes) -> EmailMessage:
    message = message_from_bytes(data, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message
