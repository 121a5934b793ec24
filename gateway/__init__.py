"""A plugin-based mail gateway. The names here are the ones that a plugin imports; see gateway.hookspecs."""

from gateway.errors import GatewayError, PluginError
from gateway.hookspecs import ConfigPath, hookimpl
from gateway.mail.address import Address, AddressError
from gateway.mail.auth_results import AuthResults, DkimCheck, DmarcCheck, IprevCheck, SpfCheck
from gateway.mail.bounce_class import FailureClass
from gateway.mail.dsn import DeliveryStatus, RecipientStatus
from gateway.mail.feedback import AutomaticReply, FeedbackReport
from gateway.mail.reading import MessagePart, ParsedMessage
from gateway.mail.report_source import ReportPart, ReportSource
from gateway.model import (
    Accept,
    Content,
    Delivery,
    DsnRequest,
    Earlier,
    Event,
    EventName,
    FailureSource,
    GiveUp,
    HoldRule,
    IncomingEvent,
    IncomingReport,
    Outcome,
    QueuedMessage,
    ReceivedMessage,
    Reception,
    Reject,
    ReportMatch,
    Result,
    RetryAt,
    Route,
    RouteRule,
    SentMessages,
    Submission,
    Suppress,
    Suppression,
    Transport,
    TransportType,
    WebhookBody,
)
from gateway.net.tls_results import TlsResult

__version__ = "0.1.0"

__all__ = [
    "Accept",
    "Address",
    "AddressError",
    "AuthResults",
    "AutomaticReply",
    "ConfigPath",
    "Content",
    "Delivery",
    "DeliveryStatus",
    "DkimCheck",
    "DmarcCheck",
    "DsnRequest",
    "Earlier",
    "Event",
    "EventName",
    "FailureClass",
    "FailureSource",
    "FeedbackReport",
    "GatewayError",
    "GiveUp",
    "HoldRule",
    "IncomingEvent",
    "IncomingReport",
    "IprevCheck",
    "MessagePart",
    "Outcome",
    "ParsedMessage",
    "PluginError",
    "QueuedMessage",
    "ReceivedMessage",
    "Reception",
    "RecipientStatus",
    "Reject",
    "ReportMatch",
    "ReportPart",
    "ReportSource",
    "Result",
    "RetryAt",
    "Route",
    "RouteRule",
    "SentMessages",
    "SpfCheck",
    "Submission",
    "Suppress",
    "Suppression",
    "TlsResult",
    "Transport",
    "TransportType",
    "WebhookBody",
    "hookimpl",
]
