"""`mox.routing`: the first configured route that matches a message names its transport."""

from __future__ import annotations

from collections.abc import Sequence

from gateway import QueuedMessage, Route, RouteRule, hookimpl


@hookimpl
def route(message: QueuedMessage, routes: Sequence[RouteRule]) -> Route | None:
    """The first match of `routes` (the account's, then the domain's, then the gateway's), else None."""
    sender_domain = message.sender.domain if message.sender is not None else ""
    for rule in routes:
        if (
            message.attempts - 1 >= rule.minimum_attempts  # the attempt under way is no earlier one
            and _matches(rule.from_domains, sender_domain)
            and _matches(rule.to_domains, message.recipient.domain)
        ):
            return Route(rule.transport, rule.name)
    return None


def _matches(patterns: Sequence[str], domain: str) -> bool:
    """Whether a pattern is the domain or, with a leading dot, the domain or one above it. No pattern: yes."""
    return not patterns or any(
        f".{domain}".endswith(pattern) if pattern.startswith(".") else pattern == domain
        for pattern in patterns
    )
