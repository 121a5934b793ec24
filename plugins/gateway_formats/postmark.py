"""`formats.postmark`: what a receiver of Postmark's webhooks gets.

The keys and values are those of these pages; what the gateway does not know has the empty value of its type:
https://postmarkapp.com/developer/webhooks/delivery-webhook, bounce-webhook, spam-complaint-webhook,
subscription-change-webhook and inbound-webhook there, and for the types of bounces
https://postmarkapp.com/developer/api/bounce-api#bounce-types.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any, Literal

import trio
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from gateway import Event, IncomingEvent, WebhookBody, hookimpl
from gateway.mail.address_list import NameAddress
from gateway.mail.fields import format_date
from gateway_formats.incoming import SMALL, contents, mailboxes
from gateway_formats.senders import sender

NAME = "postmark"  # of the format
TAG = "tag"  # the key of Extra that is told as the tag

# Fields of the header that have keys of their own.
_APART = frozenset(
    {"from", "to", "cc", "bcc", "subject", "date", "reply-to", "content-type", "content-transfer-encoding"}
)

# Type, TypeCode, Name, Description
_HARD = ("HardBounce", 1, "Hard bounce", "The server was unable to deliver the message.")
_TRANSIENT = ("Transient", 2, "Message delayed", "The message could not be delivered so far.")
_SOFT = ("SoftBounce", 4096, "Soft bounce", "The message could not be delivered for now, and was given up.")
_BLOCKED = ("Blocked", 100006, "ISP block", "The server refused the message for what it is or comes from.")
_INACTIVE = ("ManuallyDeactivated", 100002, "Manually deactivated", "The address is suppressed.")
_UNKNOWN = ("Unknown", 2048, "Unknown", "Something came back that could not be classified.")
_SPAM = ("SpamComplaint", 512, "Spam complaint", "The recipient marked the message as spam.")


class PostmarkSettings(BaseModel):
    """[plugin."formats.postmark"]"""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    server_id: Annotated[int, Field(ge=0)] = 0  # ServerID
    outbound_stream: str = "outbound"  # MessageStream
    inbound_stream: str = "inbound"
    # Bytes of all attachments of a message together; those beyond it are left out.
    max_attachments: Annotated[int, Field(ge=0)] = 10 * 1024 * 1024


class Postmark:
    Settings = PostmarkSettings

    @hookimpl
    async def format_webhook(
        self, event: Event | IncomingEvent, format_name: str, settings: PostmarkSettings
    ) -> WebhookBody | Literal[False] | None:
        if format_name != NAME:
            return None
        if isinstance(event, Event):
            payload = outgoing(event, settings)
            return False if payload is None else WebhookBody(to_json(payload))
        if len(event.data) <= SMALL:
            return _inbound_body(event, settings)
        return await trio.to_thread.run_sync(_inbound_body, event, settings, abandon_on_cancel=True)


def outgoing(event: Event, settings: PostmarkSettings) -> dict[str, Any] | None:
    """None for what Postmark has no webhook for."""
    time = event.time.isoformat().replace("+00:00", "Z")
    common = {
        "MessageID": event.message_id,
        "ServerID": settings.server_id,
        "MessageStream": settings.outbound_stream,
        "Tag": event.extra.get(TAG, ""),
        "Metadata": dict(event.extra),
    }
    if event.name == "delivered":
        return {
            "RecordType": "Delivery",
            "Recipient": event.recipient,
            "DeliveredAt": time,
            "Details": event.error,
            **common,
        }
    if event.name == "unsubscribed":
        return {
            "RecordType": "SubscriptionChange",
            "Recipient": event.recipient,
            "ChangedAt": time,
            "Origin": "Recipient",
            "SuppressSending": True,
            "SuppressionReason": "ManualSuppression",
            **common,
        }
    kind = _bounce_type(event)
    if kind is None:
        return None
    name, code, title, description = kind
    inactive = event.suppressing or event.name == "suppressed"
    return {
        "RecordType": "SpamComplaint" if kind is _SPAM else "Bounce",
        "ID": event.id,
        "Type": name,
        "TypeCode": code,
        "Name": title,
        "Description": description,
        "Details": event.error,
        "Email": event.recipient,
        "From": sender(event),
        "BouncedAt": time,
        "DumpAvailable": False,
        "Inactive": inactive,
        "CanActivate": inactive and kind is not _SPAM,
        "Subject": event.subject,
        "Content": "",
        **common,
    }


def _bounce_type(event: Event) -> tuple[str, int, str, str] | None:
    by_name = {"delayed": _TRANSIENT, "complained": _SPAM, "suppressed": _INACTIVE, "unrecognized": _UNKNOWN}
    if event.name != "failed":
        return by_name.get(event.name)
    if event.enhanced.startswith("5.7."):
        return _BLOCKED
    full = event.enhanced.startswith("5.2.2")
    permanent = 500 <= event.code <= 599 or event.enhanced.startswith("5.")
    return _HARD if permanent and not full else _SOFT


def _inbound_body(event: IncomingEvent, settings: PostmarkSettings) -> WebhookBody:
    return WebhookBody(to_json(inbound(event, settings)))


def inbound(event: IncomingEvent, settings: PostmarkSettings) -> dict[str, Any]:
    message, parsed, summary = event.message, event.parsed, event.parsed.summary
    found = contents(event, settings.max_attachments)
    author = summary.from_[0] if summary.from_ else NameAddress("", "")
    date = format_date(summary.date) if summary.date is not None else ""
    return {
        "FromName": author.name,
        "MessageStream": settings.inbound_stream,
        "From": author.address,
        "FromFull": _full(author),
        "To": mailboxes(summary.to),
        "ToFull": [_full(entry) for entry in summary.to],
        "Cc": mailboxes(summary.cc),
        "CcFull": [_full(entry) for entry in summary.cc],
        "Bcc": mailboxes(summary.bcc),
        "BccFull": [_full(entry) for entry in summary.bcc],
        "OriginalRecipient": message.rcpt_to,
        "Subject": summary.subject,
        "MessageID": str(message.id),  # the service's own, not the header's
        "ReplyTo": mailboxes(summary.reply_to),
        "MailboxHash": _hash(message.rcpt_to),
        "Date": date,
        "TextBody": parsed.text,
        "HtmlBody": parsed.html,
        "StrippedTextReply": "",
        "Tag": "",
        "Headers": [
            {"Name": name, "Value": value} for name, value in found.headers if name.lower() not in _APART
        ],
        "Attachments": [
            {
                "Name": attachment.name,
                "Content": b64encode(attachment.data).decode(),
                "ContentType": attachment.content_type,
                "ContentLength": len(attachment.data),
                "ContentID": attachment.content_id,
            }
            for attachment in found.attachments
        ],
    }


def _full(entry: NameAddress) -> dict[str, str]:
    return {"Email": entry.address, "Name": entry.name, "MailboxHash": _hash(entry.address)}


def _hash(address: str) -> str:
    """What stands behind the "+" in the localpart."""
    return address.rpartition("@")[0].partition("+")[2]
