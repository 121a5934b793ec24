"""Chooses transports by the recipient's provider, in shares, and another one when attempts have failed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway import QueuedMessage, Route, hookimpl

Order = Annotated[tuple[str, ...], Field(min_length=1)]
Shares = Annotated[Mapping[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]


class FailoverSettings(BaseModel):
    """[plugin."example.failover"]"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # By a provider's name or by domain (".example.org" is example.org and all below it): transports in the
    # order in which they are tried, or with the share of messages that each is the first for.
    transports: Mapping[str, Order | Shares] = {}
    providers: Mapping[str, tuple[str, ...]] = {}  # domains of each, written likewise
    attempts: Annotated[int, Field(ge=1)] = 1  # with each transport, before the next one has its turn

    def transports_for(self, domain: str) -> Order | Shares | None:
        """Of a domain itself, or its provider's; the longest name that matches counts."""
        for name in _names(domain):
            if name in self.transports:
                return self.transports[name]
            for provider, domains in self.providers.items():
                if name in domains and provider in self.transports:
                    return self.transports[provider]
        return None


class Failover:
    Settings = FailoverSettings

    @hookimpl
    def route(self, message: QueuedMessage, settings: FailoverSettings) -> Route | None:
        transports = settings.transports_for(message.recipient.domain)
        if transports is None:
            return None  # the next plugin decides
        order = in_shares(transports, str(message.id)) if isinstance(transports, Mapping) else transports
        turn = (message.attempts - 1) // settings.attempts  # `attempts` counts the one that is to be made
        return Route(order[min(turn, len(order) - 1)])


def in_shares(shares: Mapping[str, float], key: str) -> Sequence[str]:
    """Transports in an order that is always the same for a key, each first for its share of all keys.

    Weighted rendezvous hashing: if one is taken out, only what it was first for goes elsewhere.
    """

    def score(transport: str) -> float:
        digest = hashlib.sha256(f"{transport} {key}".encode()).digest()
        chance = (int.from_bytes(digest[:7], "big") + 1) / (2**56 + 1)  # over 0, under 1
        return -math.log(chance) / shares[transport]

    return sorted(shares, key=score)


def _names(domain: str) -> Sequence[str]:
    """The names that match a domain, the longest first."""
    parts = domain.split(".")
    return [domain, *("." + ".".join(parts[start:]) for start in range(len(parts)))]
