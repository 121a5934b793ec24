"""What the readers of texts share: each recipient, one after the other, while others have their turns."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from gateway import DeliveryStatus, RecipientStatus, ReportSource
from gateway.mail.bounce_text import MAX_RECIPIENTS, said_of
from gateway.mail.dsn import readable_addresses


async def notification(
    source: ReportSource, found: Iterable[tuple[str, str]], action: str
) -> DeliveryStatus | None:
    """The notification about these addresses, each with what is said of it; None if there are none.

    Of an address that stands there twice, the first counts.
    """
    recipients: dict[str, RecipientStatus] = {}
    for address, said in found:
        if address.lower() not in recipients:
            await trio.lowlevel.checkpoint()  # the words of a long text take milliseconds
            recipients[address.lower()] = said_of(said, address, readable_addresses(address), action)
        if len(recipients) >= MAX_RECIPIENTS:
            break
    if not recipients:
        return None
    return DeliveryStatus(
        reporting_mta="",
        envelope_id="",
        message_id=source.returned_message_id,
        recipients=tuple(recipients.values()),
    )
