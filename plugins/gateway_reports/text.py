"""`reports.text`: bounces of any vendor, written for people only. Asked when no other reader knew the format.

It must be from a mail system and say that something was not delivered. About whom: an address that the text
names, but neither the sender's nor a mail system's; else the one that the returned message was for.
"""

from __future__ import annotations

from gateway import Address, DeliveryStatus, ReportSource, hookimpl
from gateway.mail.bounce_text import FAILED, action_of, is_bounce, is_system, near
from gateway.mail.report_source import addresses_in
from gateway_reports.recipients import notification

MAX_BEFORE = 4_000  # characters until the text comes to the point


@hookimpl
async def read_report(source: ReportSource) -> DeliveryStatus | None:
    if not is_bounce(source):
        return None
    recipients = _recipients(source)
    alone = len(recipients) == 1
    found = ((str(one), near(source.text, (one,), alone=alone) or source.text) for one in recipients)
    return await notification(source, found, action_of(source))


def _recipients(source: ReportSource) -> tuple[Address, ...]:
    """Those named after the words that tell of the failure; else any; else the returned message's."""
    others = {*addresses_in(source.header("To")), *addresses_in(source.header("From"))}
    returned = addresses_in(" ".join(source.returned.get("to", ())))
    others |= {*addresses_in(" ".join(source.returned.get("from", ())))} - {*returned}

    def candidates(text: str) -> tuple[Address, ...]:
        return tuple(a for a in addresses_in(text) if a not in others and not is_system(a))

    told = FAILED.search(source.text, 0, MAX_BEFORE)
    after = candidates(source.text[told.start() :]) if told is not None else ()
    named = after or candidates(source.text)
    sure = tuple(address for address in named if address in returned)
    return sure or named[:1] or (returned if len(returned) == 1 else ())
