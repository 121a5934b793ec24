"""Stages `sign_webhook` and `around_webhook`: a field with an HMAC, and a line in a file for each request."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from pydantic import BaseModel, ConfigDict

from gateway import ConfigPath, WebhookCall, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    file: ConfigPath


@hookimpl
def sign_webhook(headers: Mapping[str, str], call: WebhookCall, settings: Settings) -> Mapping[str, str]:
    return {**headers, "X-Acme": hmac.new(settings.key.encode(), call.body, hashlib.sha256).hexdigest()}


@hookimpl
@asynccontextmanager
async def around_webhook(call: WebhookCall, settings: Settings) -> AsyncIterator[None]:
    with settings.file.open("a") as file:
        file.write(f"begin {call.event}\n")
        try:
            yield
        finally:
            file.write(f"end {call.event}\n")
