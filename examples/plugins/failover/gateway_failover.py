"""Chooses the transport by the recipient's domain, and another one after some attempts have failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway import QueuedMessage, Route, hookimpl


class FailoverSettings(BaseModel):
    """[plugin."example.failover"]"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # By recipient domain, the first to be tried first; ".example.org" is example.org and all below it.
    transports: Mapping[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    attempts: Annotated[int, Field(ge=1)] = 1  # with each, before the next one has its turn

    def order(self, domain: str) -> tuple[str, ...]:
        """The transports for a domain, by the longest name that matches; none if none does."""
        if domain in self.transports:
            return self.transports[domain]
        below = "." + domain
        while below:
            if below in self.transports:
                return self.transports[below]
            _, dot, rest = below[1:].partition(".")
            below = dot + rest
        return ()


class Failover:
    Settings = FailoverSettings

    @hookimpl
    def route(self, message: QueuedMessage, settings: FailoverSettings) -> Route | None:
        transports = settings.order(message.recipient.domain)
        if not transports:
            return None  # the next plugin decides
        turn = (message.attempts - 1) // settings.attempts  # `attempts` counts the one that is to be made
        return Route(transports[min(turn, len(transports) - 1)])
