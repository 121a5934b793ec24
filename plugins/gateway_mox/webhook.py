"""`mox.webhook`: the payloads of webhooks, compatible with mox's.

Keys are in the order of mox's documentation. Lists and objects are never null; of the times only Date can be.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from gateway import Event, IncomingEvent, MessagePart, WebhookBody, hookimpl
from gateway.mail.address_list import NameAddress

VERSION = 0
NAME = "mox"  # of the format


@hookimpl
def format_webhook(event: Event | IncomingEvent, format_name: str) -> WebhookBody | None:
    if format_name != NAME:
        return None
    payload = incoming(event) if isinstance(event, IncomingEvent) else outgoing(event)
    return WebhookBody(to_json(payload))


def outgoing(event: Event) -> dict[str, Any]:
    """The payload about a message that the account sent. The last four keys are beyond mox."""
    delivered = event.name == "delivered" and not event.dsn  # mox: the queue's delivery has no codes
    return {
        "Version": VERSION,
        "Event": event.name,
        "DSN": event.dsn,
        "Suppressing": event.suppressing,
        "QueueMsgID": event.queue_msg_id,
        "FromID": event.from_id,
        "MessageID": event.message_id,
        "Subject": event.subject,
        "WebhookQueued": _time(event.time),
        "SMTPCode": 0 if delivered else event.code,
        "SMTPEnhancedCode": "" if delivered else event.enhanced,
        "Error": "" if delivered else event.error,
        "Extra": dict(event.extra),
        "Recipient": event.recipient,
        "Attempt": event.attempt,
        "RemoteMTA": event.remote_mta,
        "MatchedBy": event.matched_by,
    }


def incoming(event: IncomingEvent) -> dict[str, Any]:
    """The payload with a message that came for the account."""
    message, parsed = event.message, event.parsed
    summary = parsed.summary
    return {
        "Version": VERSION,
        "From": _addresses(summary.from_),
        "To": _addresses(summary.to),
        "CC": _addresses(summary.cc),
        "BCC": _addresses(summary.bcc),
        "ReplyTo": _addresses(summary.reply_to),
        "Subject": summary.subject,
        "MessageID": summary.message_id,
        "InReplyTo": summary.in_reply_to,
        "References": list(summary.references),
        "Date": None if summary.date is None else _time(summary.date),
        "Text": parsed.text,
        "HTML": parsed.html,
        "Structure": _part(parsed.structure),
        "Meta": {
            "MsgID": message.id,
            "MailFrom": message.mail_from,
            "MailFromValidated": message.mail_from_validated,
            "MsgFromValidated": message.msg_from_validated,
            "RcptTo": message.rcpt_to,
            "DKIMVerifiedDomains": list(message.dkim_verified_domains),
            "RemoteIP": message.remote_ip,
            "Received": _time(message.received),
            "MailboxName": message.mailbox,
            "Automated": message.automated,
        },
    }


def _part(part: MessagePart) -> dict[str, Any]:
    return {
        "ContentType": part.content_type,
        "ContentTypeParams": dict(part.params),
        "ContentID": part.content_id,
        "ContentDisposition": part.disposition,
        "Filename": part.filename,
        "DecodedSize": part.decoded_size,
        "Parts": [_part(member) for member in part.parts],
    } | ({"BeyondLimits": True} if part.beyond_limits else {})


def _addresses(found: Iterable[NameAddress]) -> list[dict[str, str]]:
    return [{"Name": entry.name, "Address": entry.address} for entry in found]


def _time(value: datetime) -> str:
    """RFC 3339."""
    return value.isoformat().replace("+00:00", "Z")
