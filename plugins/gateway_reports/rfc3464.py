"""`reports.rfc3464`: delivery status notifications (RFC 3464, RFC 6533), also damaged ones.

The fields may have lost their own part, and stand in the text; recipients may lack the reply of the server,
which the text then has.
"""

from __future__ import annotations

from dataclasses import replace

import trio

from gateway import DeliveryStatus, RecipientStatus, ReportSource, hookimpl
from gateway.mail.bounce_text import near
from gateway.mail.dsn import about_message, read_groups, readable_addresses, recipient_status
from gateway.mail.headers import Headers
from gateway.mail.report_source import STATUS_TYPES, addresses_in, fields_within

# The classes of the first are found by their words; many have the same ones, and it takes time.
MAX_WORDED = 100


@hookimpl
async def read_report(source: ReportSource) -> DeliveryStatus | None:
    fields = source.fields(*STATUS_TYPES)
    if fields is None:
        fields = fields_within(source.text)
    return None if fields is None else await read_fields(source, fields)


async def read_fields(source: ReportSource, fields: str) -> DeliveryStatus:
    """What the fields of a delivery status say, and the text where they lack something."""
    first, blocks = read_groups(fields.encode("utf-8", "replace"))
    # Each recipient takes milliseconds, if the text is long: others have their turns in between.
    groups: list[Headers] = []
    for block in blocks:
        groups.append(block)
        await trio.lowlevel.checkpoint()
    recipients: list[RecipientStatus] = []
    for number, block in enumerate(groups):
        recipients.append(_recipient(source, block, worded=number < MAX_WORDED, alone=len(groups) == 1))
        await trio.lowlevel.checkpoint()
    if len(recipients) == 1:
        recipients = [_named(source, recipients[0])]
    return about_message(first, message_id=source.returned_message_id, recipients=tuple(recipients))


def _recipient(source: ReportSource, block: Headers, *, worded: bool, alone: bool) -> RecipientStatus:
    found = recipient_status(block, worded=worded)
    # Without a reply, and without words that say why, the text may have more of both.
    if worded and found.action in ("failed", "delayed") and found.code % 100 == 0:
        addresses = found.addresses
        said = near(source.text, addresses, alone=alone)
        if said:
            found = recipient_status(block, said)
    return found


def _named(source: ReportSource, only: RecipientStatus) -> RecipientStatus:
    """The one recipient, whose own field may be missing or hold no address."""
    if any("@" in str(address) for address in only.addresses):
        return only
    written = addresses_in(only.final_recipient)
    failed = addresses_in(source.header("X-Failed-Recipients"))
    found = failed or written or addresses_in(source.text)
    if len(found) < 1:
        return only
    return replace(only, final_recipient=str(found[0]), addresses=readable_addresses(str(found[0])))
