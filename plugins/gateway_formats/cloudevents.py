"""`formats.cloudevents`: CloudEvents 1.0 in the structured mode, with mox's payload as the data.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, formats/json-format.md and
bindings/http-protocol-binding.md (3.2) there.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from gateway import Event, IncomingEvent, WebhookBody, hookimpl
from gateway_mox.webhook import incoming, outgoing

NAME = "cloudevents"  # of the format
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"


class CloudEventsSettings(BaseModel):
    """[plugin."formats.cloudevents"]"""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    # A URI reference, before the account's name: with the event's ID it names an event among all others.
    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9:/.@_~-]+$")] = "/mail-gateway/"
    # Before "outgoing." and the event's name, or "incoming": best a domain of one's own, reversed.
    type_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$")] = "mail."


class CloudEvents:
    Settings = CloudEventsSettings

    @hookimpl
    def format_webhook(
        self, event: Event | IncomingEvent, format_name: str, settings: CloudEventsSettings
    ) -> WebhookBody | None:
        if format_name != NAME:
            return None
        if isinstance(event, IncomingEvent):
            kind, subject, data = "incoming", event.message.id, incoming(event)
        else:
            kind, subject, data = f"outgoing.{event.name}", event.queue_msg_id, outgoing(event)
        envelope = {
            "specversion": "1.0",
            "id": str(event.id),
            "source": settings.source + quote(event.account, safe=""),
            "type": settings.type_prefix + kind,
            "subject": str(subject),  # QueueMsgID or MsgID
            "time": event.time.isoformat().replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": data,
        }
        return WebhookBody(to_json(envelope), CONTENT_TYPE)
