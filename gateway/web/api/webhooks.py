"""The method that makes webhook calls again."""

from __future__ import annotations

from typing import get_args

from gateway.model import EventName
from gateway.store.call_listing import CallFilter
from gateway.web.api import models
from gateway.web.api.calls import Call
from gateway.web.api.errors import BadRequest

MAX_IDS = 1000  # of one request
_EVENTS = (*get_args(EventName), "incoming")


async def webhook_replay(call: Call, request: models.WebhookReplayRequest) -> models.WebhookReplayResult:
    """Raises BadRequest (user), StoreError."""
    if not request.WebhookIDs and request.After is None and request.Before is None:
        raise BadRequest("user", "say which: WebhookIDs, or a time range with After or Before")
    if len(request.WebhookIDs) > MAX_IDS:
        raise BadRequest("user", f"WebhookIDs: at most {MAX_IDS} at a time, not {len(request.WebhookIDs)}")
    if request.Event and request.Event not in _EVENTS:
        raise BadRequest("user", f"Event: must be one of {', '.join(_EVENTS)}")
    wanted = CallFilter(
        ids=tuple(request.WebhookIDs) or None,
        account=call.login.account,
        url=request.URL,
        event_name=request.Event,
        submitted_after=request.After,
        submitted_before=request.Before,
        success=False if request.OnlyFailed else None,
    )
    return models.WebhookReplayResult(Count=await call.services.webhooks.replay(wanted))
