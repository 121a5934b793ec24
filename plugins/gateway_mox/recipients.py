"""Which of some messages a report's parts are about, by the recipient. Used by envid and messageid."""

from __future__ import annotations

from collections.abc import Sequence

from gateway import Address, QueuedMessage, RecipientStatus


def by_recipient(
    recipients: Sequence[RecipientStatus], messages: Sequence[QueuedMessage]
) -> list[tuple[RecipientStatus, QueuedMessage]]:
    """What is said of each message; of two messages to one recipient the first is meant, once."""
    known: dict[tuple[str, str], QueuedMessage] = {}
    for message in messages:
        known.setdefault(_key(message.recipient), message)
    found: dict[int, tuple[RecipientStatus, QueuedMessage]] = {}
    for recipient in recipients:
        for address in recipient.addresses:
            message_meant = known.get(_key(address))
            if message_meant is not None:
                found.setdefault(message_meant.id, (recipient, message_meant))
                break
    return list(found.values())


def _key(address: Address) -> tuple[str, str]:
    """Servers on the way may change a localpart's case."""
    return address.localpart.casefold(), address.domain
