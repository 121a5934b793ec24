"""Stage `retry`: a schedule of one's own."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from gateway import GiveUp, QueuedMessage, RetryAt, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    intervals: tuple[float, ...] = (60.0,)  # seconds; one after the last, the message has failed


@hookimpl
def retry(message: QueuedMessage, now: datetime, settings: Settings) -> RetryAt | GiveUp:
    if message.attempts > len(settings.intervals):
        return GiveUp(f"acme waits {len(settings.intervals)} times only")
    return RetryAt(now + timedelta(seconds=settings.intervals[message.attempts - 1]))
