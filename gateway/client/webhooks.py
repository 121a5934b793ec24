"""What webhooks bring: payloads as models, and whether they come from the gateway.

The signature is that of Standard Webhooks (https://www.standardwebhooks.com); see docs/webhooks.md.
"""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from gateway.client.exchange import ClientError, parse_json
from gateway.model import EventName
from gateway.web.api.models import ParsedAddress, Part

TOLERANCE = 5 * 60.0  # seconds that the clocks may differ, and a call may be old
PREFIX = "whsec_"


class NotSigned(ClientError):
    """Nobody who knows the secret sent this, or not just now."""


class _Payload(BaseModel):
    """Keys that this version does not know are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class OutgoingEvent(_Payload):
    """What became of a message that the account sent. See docs/webhooks.md."""

    Version: int
    Event: EventName
    DSN: bool
    Suppressing: bool
    QueueMsgID: int
    FromID: str
    MessageID: str
    Subject: str
    WebhookQueued: datetime
    SMTPCode: int
    SMTPEnhancedCode: str
    Error: str
    Extra: dict[str, str]
    Recipient: str
    Attempt: int
    RemoteMTA: str
    MatchedBy: str


class IncomingMeta(_Payload):
    MsgID: int
    MailFrom: str
    MailFromValidated: bool
    MsgFromValidated: bool
    RcptTo: str
    DKIMVerifiedDomains: list[str]
    RemoteIP: str
    Received: datetime
    MailboxName: str
    Automated: bool


class IncomingMessage(_Payload):
    """A message that came for the account."""

    Version: int
    From: list[ParsedAddress]
    To: list[ParsedAddress]
    CC: list[ParsedAddress]
    BCC: list[ParsedAddress]
    ReplyTo: list[ParsedAddress]
    Subject: str
    MessageID: str
    InReplyTo: str
    References: list[str]
    Date: datetime | None
    Text: str
    HTML: str
    Structure: Part
    Meta: IncomingMeta


def parse_webhook(body: bytes) -> OutgoingEvent | IncomingMessage:
    """The payload of a webhook, or of an event of the API, as JSON. Raises ValueError."""
    payload = parse_json(body)
    model = OutgoingEvent if isinstance(payload, dict) and "Event" in payload else IncomingMessage
    return model.model_validate(payload)


def verify_webhook(
    headers: Mapping[str, str], body: bytes, secrets: Sequence[str], *, now: float | None = None
) -> str:
    """The call's `webhook-id`, the same whenever the event is told to this URL. Raises NotSigned.

    `secrets` are the URL's, as configured: one, or two while one is being replaced. `now`: seconds since
    1970, if not this moment.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, seconds = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not message_id or not (seconds.isascii() and seconds.isdigit() and len(seconds) < 20):
        raise NotSigned("there is no webhook-id or no webhook-timestamp")
    if abs((time.time() if now is None else now) - int(seconds)) > TOLERANCE:
        raise NotSigned("the signature was not made just now: an old call, or clocks that differ")
    signed = b"%s.%s.%s" % (message_id.encode(), seconds.encode(), body)
    wanted = [_signature(secret, signed) for secret in secrets]
    for signature in given.get("webhook-signature", "").split(" "):
        if any(hmac.compare_digest(signature.encode(), one) for one in wanted):
            return message_id
    raise NotSigned("no signature is of a secret that is known here")


def _signature(secret: str, signed: bytes) -> bytes:
    """Raises ValueError for what is no secret."""
    key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    return b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))
