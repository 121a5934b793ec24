"""`signing`: signs webhooks as the Standard Webhooks specification has it, with each of a URL's secrets.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from gateway import WebhookCall, hookimpl

PREFIX = "whsec_"


@hookimpl
def sign_webhook(headers: Mapping[str, str], call: WebhookCall) -> Mapping[str, str] | None:
    if not call.secrets:
        return None
    message_id = f"msg_{call.id}"
    return {
        **headers,
        "webhook-id": message_id,
        "webhook-timestamp": str(_seconds(call.time)),
        "webhook-signature": " ".join(
            signature(secret, message_id, call.time, call.body) for secret in call.secrets
        ),
    }


def signature(secret: str, message_id: str, time: datetime, body: bytes) -> str:
    """One signature of `webhook-signature`, its version before it. Raises ValueError for a wrong secret."""
    signed = b"%s.%d.%s" % (message_id.encode(), _seconds(time), body)
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, "sha256")).decode()


@lru_cache(maxsize=1024)
def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(PREFIX), validate=True)


def _seconds(time: datetime) -> int:
    """Since 1970."""
    return int(time.timestamp())
