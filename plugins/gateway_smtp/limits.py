"""`limits`: how much goes to a server at a time, as the configuration says.

The first rule that names the server or the recipients' domain holds, and all that it matches share its
limits: so do the domains of one provider. What no rule matches has the limits of [plugin.limits] itself,
each host for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway import Limits, NextHop, hookimpl
from gateway.config.values import AsTuple, DomainPatterns
from gateway.mail.address import AddressError, ascii_domain, parse_domain
from gateway.mail.public_suffix import organizational_domain

MOST = 1_000_000
NO_RULE = MOST  # no number of a rule


class _Numbers(BaseModel):
    """What a rule and the default have in common. 0 is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    connections: Annotated[int, Field(ge=0, le=MOST)] = 20  # at a time
    messages: Annotated[int, Field(ge=0, le=MOST)] = 0  # on one connection
    per_minute: Annotated[float, Field(ge=0, le=MOST)] = 0.0  # messages
    wait: Annotated[float, Field(ge=0, le=600)] = 30.0  # seconds for a connection or a turn

    def limits(self, key: str = "") -> Limits:
        return Limits(
            connections=self.connections,
            messages_per_connection=self.messages,
            per_minute=self.per_minute,
            key=key,
            wait=self.wait,
        )


class _Names(BaseModel):
    """What a rule matches; a leading dot is for the name and those below."""

    mx: DomainPatterns = ()  # MX hosts or smarthosts
    domains: DomainPatterns = ()  # of recipients


class RuleSettings(_Numbers, _Names):
    """[[plugin.limits.rules]]"""

    @model_validator(mode="after")
    def _matches_something(self) -> Self:
        if not (self.mx or self.domains):
            raise ValueError("names neither mx nor domains")
        return self


class LimitsSettings(_Numbers):
    """[plugin.limits]"""

    by: Literal["host", "provider", "domain"] = "host"  # who shares the limits, without a rule
    rules: Annotated[tuple[RuleSettings, ...], AsTuple] = ()

    @cached_property
    def table(self) -> _Table:
        """The same, made to be looked up for each message."""
        return _Table(self)


class _Table:
    """Who has which limits."""

    __slots__ = ("_by", "_by_domain", "_by_mx", "_default", "_limits")

    def __init__(self, settings: LimitsSettings) -> None:
        self._by, self._default = settings.by, settings.limits()
        self._limits = tuple(
            rule.limits(f"rule {number} ({(rule.mx or rule.domains)[0]})")
            for number, rule in enumerate(settings.rules, 1)
        )
        self._by_domain = _first_of([rule.domains for rule in settings.rules])
        # Hosts have the names that are in DNS, domains those that people write.
        by_mx = _first_of([rule.mx for rule in settings.rules])
        self._by_mx = {_ascii_pattern(pattern): rule for pattern, rule in by_mx.items()}

    def of(self, hop: NextHop) -> Limits:
        """The limits of a server, and who shares them."""
        if self._limits:
            first = min(_lookup(self._by_mx, _ascii_host(hop.host)), _lookup(self._by_domain, hop.domain))
            if first < NO_RULE:
                return self._limits[first]
        if self._by == "host":
            return self._default
        key = hop.domain if self._by == "domain" else organizational_domain(_ascii_host(hop.host))
        return replace(self._default, key=key)


class LimitsPlugin:
    """The plugin `limits`."""

    Settings = LimitsSettings

    @hookimpl
    def shape(self, hop: NextHop, settings: LimitsSettings) -> Limits:
        return settings.table.of(hop)


def _first_of(patterns: list[tuple[str, ...]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for number, listed in enumerate(patterns):
        for pattern in listed:
            found.setdefault(pattern, number)
    return found


def _ascii_pattern(pattern: str) -> str:
    name = pattern.removeprefix(".")
    return ("." if name != pattern else "") + ascii_domain(name)


@lru_cache(maxsize=4096)
def _ascii_host(name: str) -> str:
    """A host as patterns for hosts are: MX records have it so, those who name a smarthost maybe not."""
    name = name.lower().removesuffix(".")
    try:
        return ascii_domain(parse_domain(name))
    except AddressError:  # such as mail_relay
        return name


def _lookup(rules: Mapping[str, int], name: str) -> int:
    """The first rule with a pattern for a name: the name, or with a leading dot the name or one above it."""
    if not rules:
        return NO_RULE
    first = rules.get(name, NO_RULE)
    dot = len(name)
    while dot >= 0:
        dot = name.rfind(".", 0, dot)
        first = min(first, rules.get("." + name[dot + 1 :], NO_RULE))
    return first
