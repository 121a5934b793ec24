"""Stage `event`: a line in a file for whatever becomes known, written in a thread."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict

from gateway import ConfigPath, Event, IncomingEvent, hookimpl


class JournalSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    file: ConfigPath


class Journal:
    Settings = JournalSettings

    @hookimpl(thread=True)
    def event(self, event: Event | IncomingEvent, settings: JournalSettings) -> None:
        if isinstance(event, Event):
            name, message = str(event.name), event.queue_msg_id
        else:
            name, message = "incoming", event.message.id
        line = {"id": event.id, "account": event.account, "event": name, "message": message}
        with settings.file.open("a") as file:
            file.write(json.dumps(line) + "\n")


journal = Journal()
