"""The one place that turns an exception into an SMTP reply, for mail that comes in and mail handed in."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from gateway.errors import (
    ApiCode,
    ContentUnavailable,
    OverQuota,
    PluginError,
    RejectedByPlugin,
    StoreError,
    SubmissionRefused,
)
from gateway.model import Reject
from gateway.smtp.replies import Reply

log = logging.getLogger(__name__)

OK = Reply(250, "2.0.0", ("OK",))
FULL = Reply(452, "4.2.2", ("The mailbox is full; try again later",))

# What a refused submission is answered with: the codes that SMTP has for what the API tells by a word.
_REFUSED: Mapping[ApiCode, tuple[int, str]] = {
    "badAddress": (501, "5.1.3"),
    "multipleFrom": (550, "5.7.1"),
    "badFrom": (550, "5.7.1"),
    "domainDisabled": (450, "4.2.1"),
    "noRecipients": (554, "5.5.1"),
    "messageLimitReached": (451, "4.7.1"),
    "recipientLimitReached": (451, "4.7.1"),
    "messageTooLarge": (552, "5.3.4"),
}
_REFUSED_ELSE = (554, "5.6.0")  # something in the message is not as it must be


def reply_to(exc: Exception) -> Reply:
    """What a peer is told. Nothing of ours shows in it, and the peer keeps its mail and tries again."""
    if isinstance(exc, RejectedByPlugin):
        return rejection(Reject(exc.smtp_code, exc.enhanced, exc.reason))
    if isinstance(exc, SubmissionRefused):
        return Reply(*_REFUSED.get(exc.code, _REFUSED_ELSE), (str(exc),))
    if isinstance(exc, OverQuota):
        return FULL
    if isinstance(exc, StoreError) and not isinstance(exc, ContentUnavailable):
        log.warning("answered 452: %s", exc)
        return Reply(452, "4.3.1", ("The message cannot be stored now; try again later",))
    if not isinstance(exc, PluginError | ContentUnavailable):  # those were logged where they happened
        log.error("answered 451", exc_info=exc)
    return Reply(451, "4.3.0", ("Local error; try again later",))


def rejection(reject: Reject) -> Reply:
    """A plugin's refusal. An enhanced status that does not go with the code is left out."""
    matches = reject.enhanced.startswith(f"{reject.code // 100}.")
    try:
        return Reply(reject.code, reject.enhanced if matches else None, (reject.reason,))
    except ValueError:
        return Reply(reject.code, None, (reject.reason,))
