"""A plugin-based mail gateway. The names here are the ones that a plugin imports; see gateway.hookspecs."""

from gateway.errors import GatewayError, PluginError
from gateway.hookspecs import ConfigPath, hookimpl
from gateway.mail.address import Address, AddressError
from gateway.mail.reading import MessagePart, ParsedMessage
from gateway.model import (
    Accept,
    Content,
    Delivery,
    Event,
    EventName,
    GiveUp,
    HoldRule,
    IncomingEvent,
    Outcome,
    QueuedMessage,
    ReceivedMessage,
    Reception,
    Reject,
    Result,
    RetryAt,
    Route,
    RouteRule,
    Submission,
    Transport,
    TransportType,
    WebhookBody,
)

__version__ = "0.1.0"

__all__ = [
    "Accept",
    "Address",
    "AddressError",
    "ConfigPath",
    "Content",
    "Delivery",
    "Event",
    "EventName",
    "GatewayError",
    "GiveUp",
    "HoldRule",
    "IncomingEvent",
    "MessagePart",
    "Outcome",
    "ParsedMessage",
    "PluginError",
    "QueuedMessage",
    "ReceivedMessage",
    "Reception",
    "Reject",
    "Result",
    "RetryAt",
    "Route",
    "RouteRule",
    "Submission",
    "Transport",
    "TransportType",
    "WebhookBody",
    "hookimpl",
]
