"""Stage `format_webhook`: the body that chat services take."""

from __future__ import annotations

import json

from gateway import Event, IncomingEvent, WebhookBody, hookimpl


@hookimpl
def format_webhook(event: Event | IncomingEvent) -> WebhookBody:
    if isinstance(event, Event):
        text = f"{event.name}: {event.subject} to {event.recipient}"
    else:
        text = f"received: {event.message.size} bytes from {event.message.mail_from}"
    return WebhookBody(json.dumps({"text": text}).encode(), content_type="application/json")
