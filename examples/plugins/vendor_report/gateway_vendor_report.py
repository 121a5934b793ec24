"""Bounces of the Frob mail appliance: one message with a part of CSV, a line for each recipient.

recipient,code,reason
ada@example.com,550,user unknown
"""

from __future__ import annotations

import csv
import io

from gateway import Address, AddressError, DeliveryStatus, RecipientStatus, ReportSource, hookimpl

HEADER = ["recipient", "code", "reason"]
MAX_RECIPIENTS = 1000  # of one report: what DeliveryStatus takes
MAX_REASON = 500  # characters


class VendorReport:
    @hookimpl
    def read_report(self, source: ReportSource) -> DeliveryStatus | None:
        if not source.header("X-Mailer").startswith("Frob"):
            return None  # the next plugin has a look
        table = source.fields("text/csv")
        recipients = _recipients(table) if table is not None else ()
        if not recipients:
            return None
        return DeliveryStatus(
            reporting_mta=source.header("X-Frob-Host")[:255],
            envelope_id="",
            message_id=source.returned_message_id,
            recipients=recipients,
        )


def _recipients(table: str) -> tuple[RecipientStatus, ...]:
    """What the lines say; those that cannot be read say nothing."""
    try:
        lines = list(csv.reader(io.StringIO(table)))[: MAX_RECIPIENTS + 1]
    except csv.Error:
        return ()
    if not lines or lines[0] != HEADER:
        return ()
    return tuple(said for line in lines[1:] if (said := _recipient(line)) is not None)


def _recipient(line: list[str]) -> RecipientStatus | None:
    if len(line) != len(HEADER):
        return None
    address, code, reason = line
    try:
        recipient = Address.parse(address)
    except AddressError:
        return None
    if not (code.isascii() and code.isdigit() and len(code) == 3 and code[0] in "45"):
        return None
    permanent = code[0] == "5"
    return RecipientStatus(
        action="failed" if permanent else "delayed",
        status=f"{code[0]}.0.0",
        code=int(code),
        enhanced=f"{code[0]}.0.0",
        diagnostic=" ".join(reason.split())[:MAX_REASON],
        final_recipient=address,
        addresses=(recipient,),
        permanent=permanent,
    )
