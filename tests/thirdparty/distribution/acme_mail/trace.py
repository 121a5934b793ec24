"""Stage `around_attempt`: a line in a file before each attempt, and one after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import BaseModel, ConfigDict

from gateway import ConfigPath, Delivery, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    file: ConfigPath


@hookimpl
@asynccontextmanager
async def around_attempt(delivery: Delivery, settings: Settings) -> AsyncIterator[None]:
    recipients = ",".join(str(message.recipient) for message in delivery.messages)
    with settings.file.open("a") as file:
        file.write(f"begin {recipients}\n")
        try:
            yield
        finally:
            file.write(f"end {recipients}\n")
