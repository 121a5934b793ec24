"""The control socket's commands about the queue: look at messages and act on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import Field, model_validator

from gateway.clock import Clock
from gateway.outbound.operations import QueueOperations
from gateway.store import listing
from gateway.store.store import Store
from gateway.web.control.app import Command, CommandFailed, Request
from gateway.web.control.filters import TEN_YEARS, MessageFilter, OneRequest, PageRequest

EXCERPT = 16 * 1024  # bytes of a message that are shown


class ListRequest(PageRequest):
    Filter: MessageFilter = MessageFilter()
    Sort: Literal["NextAttempt", "Queued"] = "NextAttempt"


class ShowRequest(OneRequest):
    Content: bool = False


class ActRequest(Request):
    Filter: MessageFilter
    Max: Annotated[int, Field(ge=1, lt=2**63)] | None = None  # of those queued first; null: all that match

    def wanted(self) -> listing.Filter:
        return replace(self.Filter.filter(), maximum=self.Max)


class ScheduleRequest(ActRequest):
    """When the next attempt is made: seconds from now, or from when it is due."""

    Seconds: float | None = Field(default=None, ge=0, le=TEN_YEARS)
    Add: float | None = Field(default=None, ge=0, le=TEN_YEARS)

    @model_validator(mode="after")
    def _one(self) -> ScheduleRequest:
        if (self.Seconds is None) == (self.Add is None):
            raise ValueError("give either Seconds or Add")
        return self


class TransportRequest(ActRequest):
    Transport: str  # empty: routes decide


class RequireTLSRequest(ActRequest):
    RequireTLS: bool | None


class QueueCommands:
    def __init__(self, store: Store, clock: Clock, operations: QueueOperations) -> None:
        self._store, self._clock, self._operations = store, clock, operations

    def commands(self) -> dict[str, Command]:
        return {
            "queue/list": Command(ListRequest, self._list),
            "queue/show": Command(ShowRequest, self._show),
            "queue/hold": Command(ActRequest, self._hold),
            "queue/release": Command(ActRequest, self._release),
            "queue/schedule": Command(ScheduleRequest, self._schedule),
            "queue/transport": Command(TransportRequest, self._transport),
            "queue/require-tls": Command(RequireTLSRequest, self._require_tls),
            "queue/fail": Command(ActRequest, self._fail),
            "queue/drop": Command(ActRequest, self._drop),
        }

    async def _list(self, request: ListRequest) -> Mapping[str, Any]:
        sort: listing.Sort = "next_attempt" if request.Sort == "NextAttempt" else "queued"
        page, errors = await self._store.read(
            partial(_page, wanted=request.Filter.filter(), sort=sort, request=request)
        )
        return {
            "Messages": [_item(i) | {"LastError": errors.get(i.message.id, "")} for i in page.items],
            "NextCursor": page.cursor,
        }

    async def _show(self, request: ShowRequest) -> Mapping[str, Any]:
        found = await self._store.read(lambda conn: listing.get(conn, request.ID))
        if found is None:
            raise CommandFailed(f"there is no message {request.ID}, queued or kept; see gateway queue list")
        item, attempts = found
        answer = {"Message": _item(item), "Attempts": [_attempt(attempt) for attempt in attempts]}
        return answer | {"Content": await self._content(request.ID)} if request.Content else answer

    async def _content(self, message_id: int) -> dict[str, Any] | None:
        """The beginning of a message, its header first; None when it is not kept any more."""
        where = await self._store.read(lambda conn: listing.content_of(conn, message_id))
        if where is None:
            return None
        shown = b""
        async for piece in self._store.content.open(where).chunks():
            shown = piece[:EXCERPT]
            break
        return {
            "Text": shown.decode(errors="replace"),
            "Size": where.size,
            "Complete": len(shown) == where.size,
        }

    async def _hold(self, request: ActRequest) -> Mapping[str, Any]:
        return {"Affected": await self._operations.hold(request.wanted())}

    async def _release(self, request: ActRequest) -> Mapping[str, Any]:
        return {"Affected": await self._operations.release(request.wanted())}

    async def _schedule(self, request: ScheduleRequest) -> Mapping[str, Any]:
        wanted = request.wanted()
        if request.Seconds is None:
            affected = await self._operations.postpone(wanted, timedelta(seconds=request.Add or 0))
        else:
            at = self._clock.now() + timedelta(seconds=request.Seconds)
            affected = await self._operations.schedule(wanted, at)
        return {"Affected": affected}

    async def _transport(self, request: TransportRequest) -> Mapping[str, Any]:
        changed = await self._operations.set_transport(request.wanted(), request.Transport)
        return {"Affected": changed}

    async def _require_tls(self, request: RequireTLSRequest) -> Mapping[str, Any]:
        changed = await self._operations.set_require_tls(request.wanted(), request.RequireTLS)
        return {"Affected": changed}

    async def _fail(self, request: ActRequest) -> Mapping[str, Any]:
        return {"Affected": await self._operations.fail(request.wanted(), "failed by admin")}

    async def _drop(self, request: ActRequest) -> Mapping[str, Any]:
        return {"Affected": await self._operations.drop(request.wanted(), "canceled by admin")}


def _page(
    conn: sa.Connection, wanted: listing.Filter, sort: listing.Sort, request: ListRequest
) -> tuple[listing.Page, dict[int, str]]:
    page = listing.page(
        conn, wanted, sort=sort, ascending=request.Asc, cursor=request.Cursor, maximum=request.Max
    )
    return page, listing.last_errors(conn, [item.message.id for item in page.items])


def _item(item: listing.Item) -> dict[str, Any]:
    message = item.message
    return {
        "ID": message.id,
        "BaseID": message.base_id,
        "State": item.state,
        "Account": message.account,
        "Sender": str(message.sender or ""),
        "Recipient": str(message.recipient),
        "Subject": message.subject,
        "MessageID": message.message_id,
        "SubmissionID": message.submission_id,
        "FromID": message.from_id,
        "EnvID": message.env_id,
        "Size": message.size,
        "Has8bit": message.has_8bit,
        "SMTPUTF8": message.smtputf8,
        "Queued": message.queued,
        "FutureRelease": item.future_release,
        "Hold": message.hold,
        "Attempts": message.attempts,
        "MaxAttempts": message.max_attempts,
        "LastAttempt": message.last_attempt,
        "NextAttempt": message.next_attempt,
        "Delivering": item.leased,
        "DialedIPs": {host: list(addresses) for host, addresses in item.dialed_ips.items()},
        "Transport": message.transport,
        "RequireTLS": message.require_tls,
        "RET": item.dsn_ret,
        "NOTIFY": item.dsn_notify,
        "ORCPT": item.dsn_orcpt,
        "IsReport": item.is_report,
        "Extra": dict(message.extra),
        "RetiredAs": item.retired_as,
        "Success": item.success,
        "LastActivity": item.last_activity,
        "KeepUntil": item.keep_until,
    }


def _attempt(attempt: listing.Attempt) -> dict[str, Any]:
    return {
        "Number": attempt.number,
        "State": attempt.state,
        "Start": attempt.start,
        "Duration": attempt.duration,
        "Success": attempt.success,
        "Code": attempt.code,
        "EnhancedCode": attempt.enhanced,
        "Error": attempt.error,
        "Transport": attempt.transport,
        "RemoteMTA": attempt.remote_mta,
        "RemoteIP": attempt.remote_ip,
        "TLS": attempt.tls,
        "Transcript": attempt.transcript,
    }
