"""A client of the web API and its webhooks: see docs/client.md."""

from gateway.client import endpoints
from gateway.client.clients import Client, TrioClient
from gateway.client.endpoints import Endpoint
from gateway.client.exchange import ApiError, ClientError, NotReached
from gateway.client.stream import Streamed, follow
from gateway.client.webhooks import (
    IncomingMessage,
    NotSigned,
    OutgoingEvent,
    parse_webhook,
    verify_webhook,
)
from gateway.web.api.models import File, NameAddress, Recipient, SendRequest, SendResult

__all__ = [
    "ApiError",
    "Client",
    "ClientError",
    "Endpoint",
    "File",
    "IncomingMessage",
    "NameAddress",
    "NotReached",
    "NotSigned",
    "OutgoingEvent",
    "Recipient",
    "SendRequest",
    "SendResult",
    "Streamed",
    "TrioClient",
    "endpoints",
    "follow",
    "parse_webhook",
    "verify_webhook",
]
