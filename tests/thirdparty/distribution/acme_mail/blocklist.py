"""Stage `suppressed`: a file of domains that nobody writes to; some mail goes out whatever the list says."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from gateway import ConfigPath, QueuedMessage, Suppression, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    file: ConfigPath
    always: str = ""  # a name in `extra`: such messages are sent unless a person suppressed the address


@hookimpl(thread=True)
def suppressed(message: QueuedMessage, entry: Suppression | None, settings: Settings) -> bool | None:
    if message.recipient.domain in settings.file.read_text().split():
        return True
    if entry is not None and not entry.manual and settings.always in message.extra:
        return False
    return None
