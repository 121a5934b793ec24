"""Who an event's message was from, as receivers of other services know it."""

from __future__ import annotations

from gateway import Event

_SEPARATORS = "+-=._"  # between an address's name and its FromID


def sender(event: Event) -> str:
    """MAIL FROM without its FromID: those services show the address that the application sent from."""
    localpart, at, domain = event.sender.rpartition("@")
    if event.from_id and localpart.endswith(event.from_id):
        localpart = localpart.removesuffix(event.from_id).rstrip(_SEPARATORS) or localpart
    return f"{localpart}{at}{domain}"
