"""The data that hooks are given, made from what a test wants to say; all else has a plain value.

Every function takes any field of its class by name. Where a field is an `Address`, its text will do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.mail.address import Address
from gateway.mail.report_source import ReportSource, read_source
from gateway.model import Delivery, Event, Outcome, QueuedMessage, Reception, Result, Submission, WebhookCall

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)  # of all data here
PIECE = 64 * 1024  # bytes, of `Content.chunks`

_ADDRESSES = ("sender", "recipient", "reverse_path", "header_from", "login")


class TextContent:
    """A `Content` of bytes that are at hand."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.data), PIECE):
            yield self.data[start : start + PIECE]

    async def read(self) -> bytes:
        return self.data


def submission(data: bytes = b"Subject: hi\r\n\r\nhello\r\n", **fields: Any) -> Submission:
    """One by "app@example.org" to "you@example.net". `recipients` may be texts."""
    app = Address.parse("app@example.org")
    made = Submission(
        id="sub-1", account="app", login=app, via="api", reverse_path=app, header_from=app, data=data,
        recipients=(Address.parse("you@example.net"),), message_id="<1@example.org>", subject="hi",
    )  # fmt: skip
    return replace(made, **_parsed(fields))


def queued_message(recipient: str | Address = "you@example.net", **fields: Any) -> QueuedMessage:
    """One at its first attempt."""
    made = QueuedMessage(
        id=7, base_id=0, submission_id="sub-7", account="app", sender=Address.parse("app@example.org"),
        recipient=Address.parse("you@example.net"), queued=NOW, hold=False, attempts=1, max_attempts=0,
        next_attempt=NOW, last_attempt=None, message_id="<7@example.org>", subject="hi", size=100,
        has_8bit=False, smtputf8=False, require_tls=None, transport="", from_id="", env_id="", extra={},
    )  # fmt: skip
    return replace(made, **_parsed({"recipient": recipient, **fields}))


def delivery(*recipients: str, data: bytes = b"Subject: hi\r\n\r\nhello\r\n", **fields: Any) -> Delivery:
    """One attempt at one message for each recipient, their IDs from 1; `fields` are the messages'."""
    return Delivery(
        messages=tuple(
            queued_message(recipient, **{"id": number, "size": len(data), **fields})
            for number, recipient in enumerate(recipients or ("you@example.net",), 1)
        ),
        content=TextContent(data),
        hostname="gateway.example",
        started=NOW,
        deadline=NOW + timedelta(minutes=30),
    )


def event(**fields: Any) -> Event:
    """A delivery of `queued_message`'s."""
    made = Event(
        id=1, time=NOW, account="app", name="delivered", queue_msg_id=7, from_id="", attempt=1,
        message_id="<7@example.org>", subject="hi", recipient="you@example.net", sender="app@example.org",
    )  # fmt: skip
    return replace(made, **fields)


def webhook_call(body: bytes = b"{}", **fields: Any) -> WebhookCall:
    """The first request about `event`."""
    made = WebhookCall(
        id=5, account="app", event="delivered", url="https://app.example/hook", format="mox", attempt=1,
        time=NOW, body=body, secrets=("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",),
    )  # fmt: skip
    return replace(made, **fields)


def reception(**fields: Any) -> Reception:
    """MAIL FROM of a client."""
    made = Reception(step="mail", remote_ip="192.0.2.1", helo="client.example", reverse_path=None)
    return replace(made, **_parsed(fields))


def report_source(data: bytes) -> ReportSource:
    """What `read_report` is given of a message."""
    return read_source(data)


def delivered(**fields: Any) -> Outcome:
    return Outcome(result=Result.DELIVERED, **fields)


def temporary(code: int = 451, error: str = "try later", enhanced: str = "4.3.0", **fields: Any) -> Outcome:
    return Outcome(result=Result.TEMPORARY, code=code, enhanced=enhanced, error=error, **fields)


def permanent(
    code: int = 550, error: str = "no such user", enhanced: str = "5.1.1", **fields: Any
) -> Outcome:
    return Outcome(result=Result.PERMANENT, code=code, enhanced=enhanced, error=error, **fields)


def _parsed(fields: dict[str, Any]) -> dict[str, Any]:
    """With addresses for texts."""
    given = dict(fields)
    for name in _ADDRESSES:
        if isinstance(given.get(name), str):
            given[name] = Address.parse(given[name])
    if "recipients" in given:
        given["recipients"] = tuple(
            Address.parse(one) if isinstance(one, str) else one for one in given["recipients"]
        )
    return given
