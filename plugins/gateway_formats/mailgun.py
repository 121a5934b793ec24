"""`formats.mailgun`: what a receiver of Mailgun's webhooks and routes gets.

Below https://documentation.mailgun.com/docs/mailgun/user-manual/: events are JSON
(webhooks/webhook-payloads); mail that comes in is a form, as of a route's forward() action
(receive-forward-store/receive-http); both are signed (events/webhooks#securing-webhooks).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import trio
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_core import to_json

from gateway import Event, IncomingEvent, WebhookBody, hookimpl
from gateway_formats.incoming import SMALL, Attachment, contents, mailboxes
from gateway_formats.senders import sender

NAME = "mailgun"  # of the format
TAG = "tag"  # the key of Extra that is told as a tag

# Fields of the header that a form has under their own names too.
_FIELDS = ("From", "To", "Cc", "Subject", "Date", "Message-Id", "In-Reply-To", "References", "Reply-To")


class MailgunSettings(BaseModel):
    """[plugin."formats.mailgun"]"""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    signing_key: SecretStr = SecretStr("")  # the receiver's "HTTP webhook signing key"
    # Bytes of all attachments of a message together; those beyond it are left out.
    max_attachments: Annotated[int, Field(ge=0)] = 10 * 1024 * 1024


class Mailgun:
    Settings = MailgunSettings

    @hookimpl
    async def format_webhook(
        self, event: Event | IncomingEvent, format_name: str, settings: MailgunSettings
    ) -> WebhookBody | Literal[False] | None:
        if format_name != NAME:
            return None
        key = settings.signing_key.get_secret_value()
        if not key:
            raise ValueError(f'set signing_key in [plugin."formats.mailgun"]: the format {NAME!r} is signed')
        if isinstance(event, Event):
            data = event_data(event)
            if data is None:
                return False
            return WebhookBody(to_json({"signature": signature(key, event.time), "event-data": data}))
        if len(event.data) <= SMALL:
            return form(event, key, settings.max_attachments)
        return await trio.to_thread.run_sync(
            form, event, key, settings.max_attachments, abandon_on_cancel=True
        )


def signature(key: str, time: datetime) -> dict[str, str]:
    """HMAC-SHA256 with the signing key of timestamp and token."""
    timestamp, token = str(int(time.timestamp())), secrets.token_hex(25)
    digest = hmac.new(key.encode(), f"{timestamp}{token}".encode(), "sha256").hexdigest()
    return {"timestamp": timestamp, "token": token, "signature": digest}


# --- Events ---------------------------------------------------------------------------------------


def event_data(event: Event) -> dict[str, Any] | None:
    """None for what Mailgun has no webhook for."""
    special = _special(event)
    if special is None:
        return None
    tag = event.extra.get(TAG)
    return {
        **special,
        "id": str(event.id),
        "timestamp": event.time.timestamp(),
        "recipient": event.recipient,
        "recipient-domain": event.recipient.rpartition("@")[2],
        "envelope": {"sender": sender(event), "targets": event.recipient, "transport": "smtp"},
        "message": {
            "headers": {
                "message-id": event.message_id.strip("<>"),
                "to": event.recipient,
                "from": sender(event),
                "subject": event.subject,
            },
            "attachments": [],
            "size": 0,
        },
        "flags": {"is-authenticated": True, "is-routed": False, "is-test-mode": False},
        "tags": [tag] if tag else [],
        "user-variables": dict(event.extra),
    }


def _special(event: Event) -> dict[str, Any] | None:
    """What an event has of its own."""
    match event.name:
        case "delivered":
            status = _status(event, event.code or 250, event.error or "OK")
            return {"event": "delivered", "log-level": "info", "delivery-status": status}
        case "delayed":
            return _failed(event, "temporary", "generic", "warn")
        case "failed":
            return _failed(event, "permanent", "bounce", "error")
        case "suppressed":
            return _failed(event, "permanent", "suppress-bounce", "error")
        case "complained":
            return {"event": "complained", "log-level": "warn"}
        case "unsubscribed":
            return {"event": "unsubscribed", "log-level": "warn"}
    return None


def _failed(event: Event, severity: str, reason: str, level: str) -> dict[str, Any]:
    return {
        "event": "failed",
        "severity": severity,
        "reason": reason,
        "log-level": level,
        "delivery-status": _status(event, event.code, event.error),
    }


def _status(event: Event, code: int, message: str) -> dict[str, Any]:
    return {
        "attempt-no": event.attempt,
        "mx-host": event.remote_mta,
        "code": code,
        "enhanced-code": event.enhanced,
        "message": message,
        "description": "",
    }


# --- Mail that comes in ---------------------------------------------------------------------------


def form(event: IncomingEvent, key: str, max_attachments: int) -> WebhookBody:
    """URL-encoded, or multipart/form-data if there are files (RFC 7578)."""
    message, parsed, summary = event.message, event.parsed, event.parsed.summary
    found = contents(event, max_attachments)
    by_name: dict[str, str] = {}
    for name, value in found.headers:
        by_name.setdefault(name.lower(), value)
    fields = {
        "recipient": message.rcpt_to,
        "sender": message.mail_from,
        "from": mailboxes(summary.from_),
        "subject": summary.subject,
        "body-plain": parsed.text,
        "stripped-text": parsed.text,
        **({"body-html": parsed.html, "stripped-html": parsed.html} if parsed.html else {}),
        "message-headers": to_json(found.headers).decode(),
        **signature(key, event.time),
        **{name: by_name[name.lower()] for name in _FIELDS if name.lower() in by_name},
    }
    if not found.attachments:
        return WebhookBody(urlencode(fields).encode(), "application/x-www-form-urlencoded")
    fields["attachment-count"] = str(len(found.attachments))
    fields["content-id-map"] = to_json(
        {
            f"<{attachment.content_id}>": f"attachment-{number}"
            for number, attachment in enumerate(found.attachments, 1)
            if attachment.content_id
        }
    ).decode()
    return _multipart(fields, found.attachments)


def _multipart(fields: Mapping[str, str], attachments: tuple[Attachment, ...]) -> WebhookBody:
    boundary = secrets.token_hex(16)
    pieces: list[bytes] = []
    for name, value in fields.items():
        pieces.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode())
        pieces += [value.encode(), b"\r\n"]
    for number, attachment in enumerate(attachments, 1):
        filename = _quoted(attachment.name or f"attachment-{number}")
        pieces.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="attachment-{number}"; '
            f'filename="{filename}"\r\nContent-Type: {attachment.content_type}\r\n\r\n'.encode()
        )
        pieces += [attachment.data, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return WebhookBody(b"".join(pieces), f"multipart/form-data; boundary={boundary}")


def _quoted(name: str) -> str:
    """As browsers do it (HTML standard, multipart/form-data encoding algorithm)."""
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
