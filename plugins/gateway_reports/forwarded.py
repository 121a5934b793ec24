"""`reports.forwarded`: a delivery status notification within another message, of a server that passed it on.

Asked when no reader understood the message around it.
"""

from __future__ import annotations

from gateway import DeliveryStatus, ReportSource, hookimpl
from gateway.mail.bounce_text import is_bounce
from gateway.mail.report_source import fields_within
from gateway_reports.rfc3464 import read_fields


@hookimpl
async def read_report(source: ReportSource) -> DeliveryStatus | None:
    if not is_bounce(source):
        return None
    for part in source.parts:
        fields = fields_within(part.text)
        if fields is not None:
            return await read_fields(source, fields)
    return None
