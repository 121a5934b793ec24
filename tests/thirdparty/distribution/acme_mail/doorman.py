"""Stage `receive_policy`: refuses senders."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from gateway import Reception, Reject, hookimpl


class DoormanSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    refused: tuple[str, ...] = ()  # domains
    code: int = 550


class Doorman:
    Settings = DoormanSettings

    @hookimpl
    def receive_policy(self, reception: Reception, settings: DoormanSettings) -> Reject | None:
        sender = reception.reverse_path
        if reception.step != "mail" or sender is None or sender.domain not in settings.refused:
            return None
        return Reject(
            settings.code, f"{settings.code // 100}.7.1", f"acme takes no mail from {sender.domain}"
        )
