"""The gateway's webhooks as Anymail's signals: `tracking` for sent mail, `inbound` for mail that came in."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from datetime import datetime
from typing import Any

import requests
from anymail.exceptions import AnymailConfigurationError, AnymailWebhookValidationFailure
from anymail.inbound import AnymailInboundMessage
from anymail.signals import (
    AnymailInboundEvent,
    AnymailTrackingEvent,
    EventType,
    RejectReason,
    inbound,
    tracking,
)
from anymail.utils import get_anymail_setting
from anymail.webhooks.base import AnymailBaseWebhookView
from django.http import HttpRequest

from anymail_mail_gateway.backend import ESP_NAME, TAGS

EVENT_TYPES = {
    "delivered": EventType.DELIVERED,
    "expanded": EventType.DELIVERED,
    "relayed": EventType.SENT,
    "suppressed": EventType.REJECTED,
    "delayed": EventType.DEFERRED,
    "failed": EventType.BOUNCED,
    "canceled": EventType.FAILED,
    "complained": EventType.COMPLAINED,
    "unsubscribed": EventType.UNSUBSCRIBED,
}
REJECT_REASONS = {
    "suppressed": RejectReason.BLOCKED,
    "failed": RejectReason.BOUNCED,
    "complained": RejectReason.SPAM,
    "unsubscribed": RejectReason.UNSUBSCRIBED,
}
TOLERANCE = 300  # seconds that a signature's time may be off (Standard Webhooks)


class WebhookView(AnymailBaseWebhookView):
    """Trusts the signature (ANYMAIL's MAIL_GATEWAY_WEBHOOK_SIGNING_SECRET), basic authentication
    (WEBHOOK_SECRET, Anymail's own, which the gateway sends as the URL's `authorization`), or both."""

    esp_name = ESP_NAME
    signing_secret: str | None = None

    def __init__(self, **kwargs: Any) -> None:
        self.signing_secret = get_anymail_setting(
            "webhook_signing_secret", esp_name=ESP_NAME, default=None, kwargs=kwargs
        )
        self.warn_if_no_basic_auth = self.signing_secret is None
        super().__init__(**kwargs)

    def validate_request(self, request: HttpRequest) -> None:
        if self.signing_secret is not None and not _signed(request, self.signing_secret):
            raise AnymailWebhookValidationFailure("The gateway's webhook has no valid signature")

    def payload(self, request: HttpRequest, *, event: bool) -> dict[str, Any]:
        payload: dict[str, Any] = json.loads(request.body)
        if ("Event" in payload) is not event:
            right, wrong = ("outgoing", "incoming") if event else ("incoming", "outgoing")
            raise AnymailConfigurationError(
                f"The account's {wrong} webhooks go to the URL of its {right} ones; repair gateway.toml"
            )
        return payload


class TrackingView(WebhookView):
    """The URL for `webhook_outgoing`."""

    signal = tracking

    def parse_events(self, request: HttpRequest) -> list[AnymailTrackingEvent]:
        payload = self.payload(request, event=True)
        metadata = dict(payload["Extra"])
        tags = json.loads(metadata.pop(TAGS, "[]"))
        return [
            AnymailTrackingEvent(
                event_type=EVENT_TYPES.get(payload["Event"], EventType.UNKNOWN),
                timestamp=datetime.fromisoformat(payload["WebhookQueued"]),
                event_id=request.headers["X-Mox-Webhook-ID"],
                esp_event=payload,
                description=payload["Error"] or None,
                message_id=payload["MessageID"],
                metadata=metadata,
                mta_response=payload["Error"] if payload["SMTPCode"] else None,
                recipient=payload.get("Recipient"),
                reject_reason=REJECT_REASONS.get(payload["Event"]),
                tags=tags,
            )
        ]


class InboundView(WebhookView):
    """The URL for `webhook_incoming`. The message itself is fetched from the gateway."""

    signal = inbound

    def __init__(self, **kwargs: Any) -> None:
        url = get_anymail_setting("api_url", esp_name=ESP_NAME, kwargs=kwargs)
        login = get_anymail_setting("login", esp_name=ESP_NAME, kwargs=kwargs)
        password = get_anymail_setting("password", esp_name=ESP_NAME, kwargs=kwargs)
        self.api_url, self.credentials = url if url.endswith("/") else f"{url}/", (login, password)
        super().__init__(**kwargs)

    def parse_events(self, request: HttpRequest) -> list[AnymailInboundEvent]:
        payload = self.payload(request, event=False)
        meta = payload["Meta"]
        # A failure becomes an error 500, and the gateway calls again later.
        raw = requests.post(
            f"{self.api_url}MessageRawGet", json={"MsgID": meta["MsgID"]}, auth=self.credentials, timeout=30
        )
        raw.raise_for_status()
        message = AnymailInboundMessage.parse_raw_mime_bytes(raw.content)
        message.envelope_sender, message.envelope_recipient = meta["MailFrom"], meta["RcptTo"]
        return [
            AnymailInboundEvent(
                event_type=EventType.INBOUND,
                timestamp=datetime.fromisoformat(meta["Received"]),
                event_id=request.headers["X-Mox-Webhook-ID"],
                esp_event=payload,
                message=message,
            )
        ]


def _signed(request: HttpRequest, secret: str) -> bool:
    """Whether one of the signatures is by the secret, of what came, and recent (Standard Webhooks)."""
    webhook_id, timestamp = (
        request.headers.get("webhook-id", ""),
        request.headers.get("webhook-timestamp", ""),
    )
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        recent = abs(time.time() - int(timestamp)) <= TOLERANCE
    except (ValueError, binascii.Error):
        return False
    signed = b".".join([webhook_id.encode(), timestamp.encode(), request.body])
    wanted = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii")
    given = request.headers.get("webhook-signature", "").split(" ")
    return recent and any(hmac.compare_digest(wanted.encode(), one.encode()) for one in given)
