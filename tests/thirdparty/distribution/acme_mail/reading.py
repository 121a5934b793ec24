"""Stage `read_report`: reads the bounces of an appliance, which are one line of text for machines.

ACME-BOUNCE user@example.org 550 5.1.1 no such user
"""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

from gateway import Address, AddressError, DeliveryStatus, RecipientStatus, ReportSource, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    word: str = "ACME-BOUNCE"


@hookimpl
def read_report(source: ReportSource, settings: Settings) -> DeliveryStatus | None:
    found = re.match(
        rf"{re.escape(settings.word)} (\S{{1,320}}) (\d{{3}}) (\S{{1,12}}) ([^\n]{{0,500}})", source.text
    )
    if found is None:
        return None
    address, code, enhanced, why = found.groups()
    try:
        addresses = (Address.parse(address),)
    except AddressError:
        return None
    said = RecipientStatus(
        action="failed",
        code=int(code),
        enhanced=enhanced,
        diagnostic=why,
        final_recipient=address,
        addresses=addresses,
        failure="bad-mailbox",
        permanent=code.startswith("5"),
    )
    return DeliveryStatus(
        reporting_mta="acme", envelope_id="", message_id=source.returned_message_id, recipients=(said,)
    )
