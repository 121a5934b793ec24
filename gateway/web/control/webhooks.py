"""The control socket's commands about webhook calls."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field

from gateway.clock import Clock
from gateway.model import EventName
from gateway.store import call_listing
from gateway.store.changes import Call
from gateway.store.store import Store
from gateway.web.control.app import Command, CommandFailed, Request
from gateway.web.control.filters import TEN_YEARS, CallFilter, OneRequest, PageRequest, ReplayFilter
from gateway.webhooks.operations import CallOperations
from gateway.webhooks.urls import UrlReport, WebhookUrls

EXCERPT = 16 * 1024  # bytes of a payload that are shown


class ListRequest(PageRequest):
    Filter: CallFilter = CallFilter()
    Sort: Literal["NextAttempt", "Submitted"] = "NextAttempt"


class ActRequest(Request):
    Filter: CallFilter


class ScheduleRequest(ActRequest):
    Seconds: float = Field(ge=0, le=TEN_YEARS)  # from now


class ReplayRequest(Request):
    Filter: ReplayFilter


class UrlsRequest(Request):
    Account: str = ""


class EnableRequest(Request):
    URL: str
    Account: str = ""


class TestRequest(Request):
    Account: str
    URL: str = ""
    Event: EventName | Literal["incoming", ""] = ""


class WebhookCommands:
    def __init__(self, store: Store, clock: Clock, operations: CallOperations, urls: WebhookUrls) -> None:
        self._store, self._clock, self._operations, self._urls = store, clock, operations, urls

    def commands(self) -> dict[str, Command]:
        return {
            "webhook/list": Command(ListRequest, self._list),
            "webhook/show": Command(OneRequest, self._show),
            "webhook/cancel": Command(ActRequest, self._cancel),
            "webhook/schedule": Command(ScheduleRequest, self._schedule),
            "webhook/replay": Command(ReplayRequest, self._replay),
            "webhook/urls": Command(UrlsRequest, self._list_urls),
            "webhook/enable": Command(EnableRequest, self._enable),
            "webhook/test": Command(TestRequest, self._test),
        }

    async def _list(self, request: ListRequest) -> Mapping[str, Any]:
        sort: call_listing.CallSort = "next_attempt" if request.Sort == "NextAttempt" else "submitted"
        calls, cursor = await self._store.read(
            lambda conn: call_listing.page(
                conn,
                request.Filter.filter(),
                sort=sort,
                ascending=request.Asc,
                cursor=request.Cursor,
                maximum=request.Max,
            )
        )
        return {"Calls": [_call(call) for call in calls], "NextCursor": cursor}

    async def _show(self, request: OneRequest) -> Mapping[str, Any]:
        found = await self._store.read(lambda conn: call_listing.get(conn, request.ID))
        if found is None:
            raise CommandFailed(
                f"there is no webhook call {request.ID}, queued or kept; see gateway webhook list"
            )
        call, attempts = found
        return {
            "Call": _call(call),
            "Payload": _payload(call),
            "Attempts": [_attempt(attempt) for attempt in attempts],
        }

    async def _cancel(self, request: ActRequest) -> Mapping[str, Any]:
        return {"Affected": await self._operations.cancel(request.Filter.filter(), "canceled by admin")}

    async def _schedule(self, request: ScheduleRequest) -> Mapping[str, Any]:
        at = self._clock.now() + timedelta(seconds=request.Seconds)
        return {"Affected": await self._operations.schedule(request.Filter.filter(), at)}

    async def _replay(self, request: ReplayRequest) -> Mapping[str, Any]:
        return {"Affected": await self._operations.replay(request.Filter.filter())}

    async def _list_urls(self, request: UrlsRequest) -> Mapping[str, Any]:
        return {"URLs": [_url(url) for url in await self._urls.list(request.Account)]}

    async def _enable(self, request: EnableRequest) -> Mapping[str, Any]:
        return {"Accounts": list(await self._urls.enable(request.URL, request.Account))}

    async def _test(self, request: TestRequest) -> Mapping[str, Any]:
        trial = await self._urls.test(request.Account, request.URL, request.Event)
        answer = trial.answer
        return {
            "URL": trial.url,
            "Event": trial.event,
            "Payload": _excerpt(trial.payload, trial.content_type) if trial.payload else None,
            "Success": answer.success,
            "Code": answer.code,
            "Error": answer.error,
            "Response": answer.response,
            "Duration": answer.duration,
        }


def _url(report: UrlReport) -> dict[str, Any]:
    state = report.state
    return {
        "Account": report.account,
        "URL": report.url,
        "Events": list(report.events),
        "Format": report.format,
        "Signed": report.signed,
        "Disabled": state.disabled if state else None,
        "FailingSince": state.failing_since if state else None,
        "Error": state.error if state else "",
    }


def _call(call: Call) -> dict[str, Any]:
    """Without the value of Authorization: it is a secret."""
    return {
        "ID": call.id,
        "State": call.state,
        "Account": call.account,
        "Event": call.event_name,
        "EventID": call.event_id,
        "QueueMsgID": call.queue_msg_id,
        "URL": call.url,
        "Format": call.format,
        "Authorization": bool(call.authorization),
        "Submitted": call.submitted,
        "Attempts": call.attempts,
        "NextAttempt": call.next_attempt,
        "Calling": call.leased,
        "LastActivity": call.last_activity,
        "Success": call.success,
        "SupersededBy": call.superseded_by,
        "Error": call.error,
        "KeepUntil": call.keep_until,
    }


def _payload(call: Call) -> dict[str, Any] | None:
    """The beginning of it; None before the first call, which it is made for."""
    return None if call.payload is None else _excerpt(call.payload, call.content_type)


def _excerpt(payload: bytes, content_type: str) -> dict[str, Any]:
    return {
        "ContentType": content_type,
        "Text": payload[:EXCERPT].decode(errors="replace"),
        "Size": len(payload),
        "Complete": len(payload) <= EXCERPT,
    }


def _attempt(attempt: call_listing.CallAttempt) -> dict[str, Any]:
    return {
        "Start": attempt.start,
        "Duration": attempt.duration,
        "URL": attempt.url,
        "Success": attempt.success,
        "Code": attempt.code,
        "Error": attempt.error,
        "Response": attempt.response,
    }
