"""`reports.text`: bounces of any vendor, written for people only. Asked when no other reader knew the format.

It must be from a mail system and say that something was not delivered. About whom: an address that the text
names, but neither the sender's nor a mail system's; else the one that the returned message was for.
"""

from __future__ import annotations

from gateway import Address, DeliveryStatus, RecipientStatus, ReportSource, hookimpl
from gateway.mail.bounce_text import (
    FAILED,
    action_of,
    is_bounce,
    is_system,
    near,
    notification,
    said_of,
)
from gateway.mail.report_source import addresses_in


@hookimpl
def read_report(source: ReportSource) -> DeliveryStatus | None:
    if not is_bounce(source):
        return None
    text = source.text
    recipients = _recipients(source)
    action = action_of(source)
    found: list[RecipientStatus] = []
    for address in recipients:
        said = near(text, (address,), alone=len(recipients) == 1) or text
        found.append(said_of(said, str(address), (address,), action))
    return notification(source, found)


def _recipients(source: ReportSource) -> tuple[Address, ...]:
    """Those named after the words that tell of the failure; else any; else the returned message's."""
    others = {*addresses_in(source.header("To")), *addresses_in(source.header("From"))}
    returned = addresses_in(" ".join(source.returned.get("to", ())))
    others |= {*addresses_in(" ".join(source.returned.get("from", ())))} - {*returned}

    def candidates(text: str) -> tuple[Address, ...]:
        return tuple(a for a in addresses_in(text) if a not in others and not is_system(a))

    told = FAILED.search(source.text)
    after = candidates(source.text[told.start() :]) if told is not None else ()
    named = after or candidates(source.text)
    sure = tuple(address for address in named if address in returned)
    return sure or named[:1] or (returned if len(returned) == 1 else ())
