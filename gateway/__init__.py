"""A plugin-based mail gateway. The names here are the ones that a plugin imports; see gateway.hookspecs."""

from typing import TYPE_CHECKING, Any

from gateway.errors import ApiError, GatewayError, PluginError, TemplateError
from gateway.hookspecs.additions import (
    ApiCall,
    ApiMethod,
    AsgiApplication,
    Authenticated,
    Collector,
    ContentReader,
    ContentStore,
    Credentials,
    GatewayContext,
    NewContent,
    Service,
)
from gateway.hookspecs.marks import ConfigPath, hookimpl
from gateway.mail.address import Address, AddressError
from gateway.mail.auth_results import (
    AuthResults,
    DkimCheck,
    DkimResult,
    DmarcCheck,
    DmarcPolicy,
    DmarcResult,
    IprevCheck,
    IprevResult,
    SpfCheck,
    SpfResult,
)
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
    Limits,
    NextHop,
    Outcome,
    QueuedMessage,
    ReceivedMessage,
    Reception,
    Reject,
    Rendered,
    ReportMatch,
    Result,
    RetryAt,
    Route,
    RouteRule,
    SentMessages,
    Submission,
    Suppress,
    Suppression,
    Template,
    TemplateEngine,
    Transport,
    TransportType,
    WebhookBody,
    WebhookCall,
)
from gateway.net.tls_results import TlsResult

if TYPE_CHECKING:
    from gateway.net.network import Network

__version__ = "0.1.0"

__all__ = [
    "Accept",
    "Address",
    "AddressError",
    "ApiCall",
    "ApiError",
    "ApiMethod",
    "AsgiApplication",
    "AuthResults",
    "Authenticated",
    "AutomaticReply",
    "Collector",
    "ConfigPath",
    "Content",
    "ContentReader",
    "ContentStore",
    "Credentials",
    "Delivery",
    "DeliveryStatus",
    "DkimCheck",
    "DkimResult",
    "DmarcCheck",
    "DmarcPolicy",
    "DmarcResult",
    "DsnRequest",
    "Earlier",
    "Event",
    "EventName",
    "FailureClass",
    "FailureSource",
    "FeedbackReport",
    "GatewayContext",
    "GatewayError",
    "GiveUp",
    "HoldRule",
    "IncomingEvent",
    "IncomingReport",
    "IprevCheck",
    "IprevResult",
    "Limits",
    "MessagePart",
    "Network",
    "NewContent",
    "NextHop",
    "Outcome",
    "ParsedMessage",
    "PluginError",
    "QueuedMessage",
    "ReceivedMessage",
    "Reception",
    "RecipientStatus",
    "Reject",
    "Rendered",
    "ReportMatch",
    "ReportPart",
    "ReportSource",
    "Result",
    "RetryAt",
    "Route",
    "RouteRule",
    "SentMessages",
    "Service",
    "SpfCheck",
    "SpfResult",
    "Submission",
    "Suppress",
    "Suppression",
    "Template",
    "TemplateEngine",
    "TemplateError",
    "TlsResult",
    "Transport",
    "TransportType",
    "WebhookBody",
    "WebhookCall",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    """`Network` comes with DNS and TLS, which take long to load: only transports ask for it."""
    if name == "Network":
        from gateway.net.network import Network

        return Network
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
