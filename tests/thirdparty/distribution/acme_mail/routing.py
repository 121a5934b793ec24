"""Stage `route`: a transport for each recipient domain."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from gateway import QueuedMessage, Route, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    domains: Mapping[str, str] = {}  # recipient domain: name of a transport


@hookimpl
def route(message: QueuedMessage, settings: Settings) -> Route | None:
    transport = settings.domains.get(message.recipient.domain)
    return Route(transport) if transport else None
