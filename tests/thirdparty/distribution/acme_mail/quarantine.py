"""Stage `hold`: mail to many recipients, or to some domains, waits for a person to release it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from gateway import Address, Submission, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    more_recipients_than: int = Field(default=100, ge=0)
    domains: tuple[str, ...] = ()


@hookimpl
async def hold(submission: Submission, recipient: Address, settings: Settings) -> bool | None:
    many = len(submission.recipients) > settings.more_recipients_than
    return True if many or recipient.domain in settings.domains else None
