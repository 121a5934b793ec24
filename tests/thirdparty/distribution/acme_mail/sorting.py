"""Stage `mailbox`: a mailbox for each sender's domain."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from gateway import Address, Reception, hookimpl


class SortingSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    prefix: str = ""


class Sorting:
    Settings = SortingSettings

    @hookimpl
    async def mailbox(
        self, reception: Reception, recipient: Address, settings: SortingSettings
    ) -> str | None:
        sender = reception.reverse_path
        if sender is None or sender.domain == recipient.domain:
            return None
        return settings.prefix + sender.domain
