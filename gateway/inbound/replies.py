"""The one place that turns an exception into an SMTP reply."""

from __future__ import annotations

import logging

from gateway.errors import PluginError, StoreError
from gateway.model import Reject
from gateway.smtp.replies import Reply

log = logging.getLogger(__name__)

OK = Reply(250, "2.0.0", ("OK",))


def reply_to(exc: Exception) -> Reply:
    """What a peer is told. Nothing of ours shows in it, and the peer keeps its mail and tries again."""
    if isinstance(exc, StoreError):
        log.warning("answered 452: %s", exc)
        return Reply(452, "4.3.1", ("The message cannot be stored now; try again later",))
    if not isinstance(exc, PluginError):  # those were logged where they happened
        log.error("answered 451", exc_info=exc)
    return Reply(451, "4.3.0", ("Local error; try again later",))


def rejection(reject: Reject) -> Reply:
    """A plugin's refusal. An enhanced status that does not go with the code is left out."""
    matches = reject.enhanced.startswith(f"{reject.code // 100}.")
    try:
        return Reply(reject.code, reject.enhanced if matches else None, (reject.reason,))
    except ValueError:
        return Reply(reject.code, None, (reject.reason,))
