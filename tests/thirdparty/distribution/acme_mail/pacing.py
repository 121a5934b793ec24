"""Stage `shape`: some recipients' domains get a few messages a minute, whatever servers they have."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from gateway import Limits, NextHop, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    per_minute: Mapping[str, float] = {}  # by domain
    wait: float = 0.0


@hookimpl
async def shape(hop: NextHop, settings: Settings) -> Limits | None:
    per_minute = settings.per_minute.get(hop.domain)
    if per_minute is None:
        return None
    return Limits(per_minute=per_minute, key=f"acme {hop.domain} by {hop.transport}", wait=settings.wait)
