"""Stage `suppress`: failures of some codes, for a while; never at one's own domains."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gateway import Earlier, FailureSource, Outcome, QueuedMessage, Suppress, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    codes: tuple[int, ...] = ()
    days: float = 30.0
    own: tuple[str, ...] = ()  # domains


@hookimpl
def suppress(
    message: QueuedMessage,
    outcome: Outcome,
    source: FailureSource,
    history: Sequence[Earlier],
    now: datetime,
    settings: Settings,
) -> Suppress | Literal[False] | None:
    if message.recipient.domain in settings.own:
        return False
    if outcome.code not in settings.codes:
        return None
    failures = 1 + sum(not earlier.success for earlier in history)
    return Suppress(
        f"acme: {outcome.code} from the {source}, failure {failures} of {len(history) + 1}",
        expires=now + timedelta(days=settings.days),
    )
