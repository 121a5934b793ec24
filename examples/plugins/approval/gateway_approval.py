"""Mail to many recipients waits until a person releases it."""

from __future__ import annotations

import logging
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway import Address, Submission, hookimpl

log = logging.getLogger(__name__)


class ApprovalSettings(BaseModel):
    """[plugin."example.approval"]"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipients: Annotated[int, Field(ge=1)] = 100  # up to as many go out at once
    trusted: tuple[str, ...] = ()  # addresses that may log in and send to any number


class Approval:
    Settings = ApprovalSettings

    @hookimpl
    def hold(self, submission: Submission, recipient: Address, settings: ApprovalSettings) -> bool | None:
        count = len(submission.recipients)
        if count <= settings.recipients or str(submission.login) in settings.trusted:
            return None  # the next plugin decides, by hold rules for one
        if recipient == submission.recipients[0]:  # asked for each of them, and said once
            log.warning(
                "submission %s of %s to %d recipients waits for approval: %r",
                submission.id,
                submission.login,
                count,
                submission.subject,
            )
        return True
