"""The methods about webhooks: make calls again; see an account's URLs, enable them, try one."""

from __future__ import annotations

from typing import get_args

from gateway.model import EventName
from gateway.store.call_listing import CallFilter
from gateway.web.api import models
from gateway.web.api.calls import Call
from gateway.web.api.errors import BadRequest
from gateway.web.api.services import TestUnderWay, UnknownUrl

MAX_IDS = 1000  # of one request
_EVENTS = (*get_args(EventName), "incoming")


async def webhook_replay(call: Call, request: models.WebhookReplayRequest) -> models.WebhookReplayResult:
    """Raises BadRequest (user), StoreError."""
    if not request.WebhookIDs and request.After is None and request.Before is None:
        raise BadRequest("user", "say which: WebhookIDs, or a time range with After or Before")
    if len(request.WebhookIDs) > MAX_IDS:
        raise BadRequest("user", f"WebhookIDs: at most {MAX_IDS} at a time, not {len(request.WebhookIDs)}")
    _check_event(request.Event)
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


async def webhook_list(call: Call, _request: models.Empty) -> models.WebhookListResult:
    """Raises StoreError."""
    found = []
    for report in await call.services.webhook_urls.list(call.login.account):
        state = report.state
        found.append(
            models.WebhookURL(
                URL=report.url,
                Events=list(report.events),
                Format=report.format,
                Signed=report.signed,
                Disabled=state.disabled if state else None,
                FailingSince=state.failing_since if state else None,
                Error=state.error if state else "",
            )
        )
    return models.WebhookListResult(Webhooks=found)


async def webhook_enable(call: Call, request: models.WebhookEnableRequest) -> models.WebhookEnableResult:
    """Raises BadRequest (notFound), StoreError."""
    account, urls = call.login.account, call.services.webhook_urls
    # One URL may be configured more than once, with other events each time.
    wanted = {report.url for report in await urls.list(account) if request.URL in ("", report.url)}
    if request.URL and not wanted:
        raise BadRequest("notFound", "URL: your account has no such URL; WebhookList lists what it has")
    enabled = [url for url in wanted if await urls.enable(url, account)]
    return models.WebhookEnableResult(Affected=len(enabled))


async def webhook_test(call: Call, request: models.WebhookTestRequest) -> models.WebhookTestResult:
    """Raises BadRequest (user, notFound), StoreError."""
    _check_event(request.Event)
    try:
        trial = await call.services.webhook_urls.test(call.login.account, request.URL, request.Event)
    except TestUnderWay as exc:
        raise BadRequest("user", str(exc)) from None
    except UnknownUrl:
        what = " that is told of this event" if request.Event else ""
        raise BadRequest(
            "notFound", f"URL: your account has no such URL{what}; WebhookList lists what it has"
        ) from None
    answer = trial.answer
    return models.WebhookTestResult(
        URL=trial.url,
        Event=trial.event,
        Success=answer.success,
        Code=answer.code,
        Error=answer.error,
        Response=answer.response,
        Duration=answer.duration,
        Payload=trial.payload.decode(errors="replace"),
    )


def _check_event(name: str) -> None:
    if name and name not in _EVENTS:
        raise BadRequest("user", f"Event: must be one of {', '.join(_EVENTS)}")
