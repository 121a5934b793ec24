"""For those who write plugins: what their tests are made of. docs/plugins/testing.md shows each in use.

`running_gateway` is a whole gateway in the test's own process, with transports that answer as they are told,
a receiver of webhooks, and a clock that stands still until it is moved. `scripted_mx` is a mail server that
answers as it is told. The functions named after classes make the data that hooks are given. The
fixture `mail_gateway` of pytest is `running_gateway` in the test's own directory; the suites for transports
and report readers are in `gateway.testing.conformance`.

It needs pytest and pytest-trio: pip install 'mail-gateway[testing]'.
"""

from gateway.store.listing import Attempt
from gateway.testing.happened import Fate, Happened
from gateway.testing.mx import MxMessage, ScriptedMx, scripted_mx
from gateway.testing.running import MailGateway, RunningGateway, running_gateway
from gateway.testing.samples import (
    NOW,
    TextContent,
    delivered,
    delivery,
    event,
    permanent,
    queued_message,
    reception,
    report_source,
    submission,
    temporary,
    webhook_call,
)
from gateway.testing.transport import FakeTransport, HandedOver
from gateway.testing.webhooks import Webhook, WebhookReceiver, webhook_receiver

__all__ = [
    "NOW",
    "Attempt",
    "FakeTransport",
    "Fate",
    "HandedOver",
    "Happened",
    "MailGateway",
    "MxMessage",
    "RunningGateway",
    "ScriptedMx",
    "TextContent",
    "Webhook",
    "WebhookReceiver",
    "delivered",
    "delivery",
    "event",
    "permanent",
    "queued_message",
    "reception",
    "report_source",
    "running_gateway",
    "scripted_mx",
    "submission",
    "temporary",
    "webhook_call",
    "webhook_receiver",
]
