"""The control socket: what the commands of this machine's operators ask of a running gateway.

JSON over HTTP on a Unix socket that only the gateway's user can reach. `POST /<command>` with an object;
200 with an object, or 400 with `{"Message": ...}`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from gateway.accounts import Authenticator
from gateway.clock import Clock
from gateway.config.load import describe
from gateway.config.settings import Settings
from gateway.errors import GatewayError
from gateway.mail.address import parse_domain
from gateway.outbound.operations import HoldRules, QueueOperations
from gateway.store import listing
from gateway.store.store import Store

log = logging.getLogger(__name__)

MAX_BODY = 1024 * 1024  # bytes


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Empty(Request):
    pass


class Times(Request):
    Before: AwareDatetime | None = None
    After: AwareDatetime | None = None


class FilterModel(Request):
    """The conditions of webapi's Filter, as far as operators use them; all that are given must match."""

    IDs: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] | None = None
    Account: str = ""
    From: str = ""
    To: str = ""
    Hold: bool | None = None
    Submitted: Times = Times()
    NextAttempt: Times = Times()
    Transport: str | None = None
    State: Literal["queued", "retired"] | None = None

    def filter(self) -> listing.Filter:
        return listing.Filter(
            ids=self.IDs,
            account=self.Account,
            from_=self.From,
            to=self.To,
            hold=self.Hold,
            submitted_before=self.Submitted.Before,
            submitted_after=self.Submitted.After,
            next_attempt_before=self.NextAttempt.Before,
            next_attempt_after=self.NextAttempt.After,
            transport=self.Transport,
            state=self.State,
        )


class ListRequest(Request):
    Filter: FilterModel = FilterModel()
    Sort: Literal["NextAttempt", "Queued"] = "NextAttempt"
    Asc: bool = True
    Cursor: str = ""
    Max: int = Field(default=100, ge=1, le=1000)


class OneRequest(Request):
    ID: int = Field(ge=0, lt=2**63)


class ActRequest(Request):
    Filter: FilterModel


class ScheduleRequest(ActRequest):
    Seconds: float = Field(ge=0, le=10 * 365 * 86400)  # from now


class RuleRequest(Request):
    Account: str = ""
    SenderDomain: str = ""
    RecipientDomain: str = ""


class PasswordRequest(Request):
    Account: str
    Password: str = Field(min_length=8, max_length=1000)


class CommandFailed(GatewayError):
    """What was asked cannot be done; the text says why."""


@dataclass(frozen=True, slots=True)
class Command:
    request: type[Request]
    run: Callable[[Any], Awaitable[Mapping[str, Any]]]


class ControlApp:
    """The ASGI application of the control socket."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Clock,
        holding: HoldRules,
        operations: QueueOperations,
        authenticator: Authenticator,
    ) -> None:
        self._settings, self._store, self._clock = settings, store, clock
        self._holding, self._operations, self._authenticator = holding, operations, authenticator
        self._commands = {
            "queue/list": Command(ListRequest, self._list),
            "queue/show": Command(OneRequest, self._show),
            "queue/hold": Command(ActRequest, self._hold),
            "queue/release": Command(ActRequest, self._release),
            "queue/schedule": Command(ScheduleRequest, self._schedule),
            "queue/drop": Command(ActRequest, self._drop),
            "queue/hold-rules/list": Command(Empty, self._rules),
            "queue/hold-rules/add": Command(RuleRequest, self._add_rule),
            "queue/hold-rules/remove": Command(OneRequest, self._remove_rule),
            "account/password": Command(PasswordRequest, self._password),
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, answer = await self._answer(scope, receive)
        body = json.dumps(answer, default=_json).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Any, receive: Any) -> tuple[int, Mapping[str, Any]]:
        command = self._commands.get(scope["path"].strip("/"))
        if command is None or scope["method"] != "POST":
            return 404, {"Message": f"there is no command {scope['path']!r}"}
        body = bytearray()
        while True:
            event = await receive()
            body += event.get("body", b"")
            if len(body) > MAX_BODY:
                return 400, {"Message": "the request is too large"}
            if not event.get("more_body"):
                break
        try:
            return 200, await command.run(command.request.model_validate_json(bytes(body)))
        except ValidationError as exc:
            return 400, {"Message": describe(exc, command.request)}
        except (GatewayError, ValueError) as exc:
            return 400, {"Message": str(exc)}

    async def _list(self, request: ListRequest) -> Mapping[str, Any]:
        wanted = request.Filter.filter()
        sort: listing.Sort = "next_attempt" if request.Sort == "NextAttempt" else "queued"

        def read(conn: Any) -> tuple[listing.Page, dict[int, str]]:
            page = listing.page(
                conn, wanted, sort=sort, ascending=request.Asc, cursor=request.Cursor, maximum=request.Max
            )
            return page, listing.last_errors(conn, [item.message.id for item in page.items])

        page, errors = await self._store.read(read)
        return {
            "Messages": [_item(i) | {"LastError": errors.get(i.message.id, "")} for i in page.items],
            "NextCursor": page.cursor,
        }

    async def _show(self, request: OneRequest) -> Mapping[str, Any]:
        found = await self._store.read(lambda conn: listing.get(conn, request.ID))
        if found is None:
            raise CommandFailed(f"there is no message {request.ID}, queued or kept; see gateway queue list")
        item, attempts = found
        return {"Message": _item(item), "Attempts": [_attempt(attempt) for attempt in attempts]}

    async def _hold(self, request: ActRequest) -> Mapping[str, Any]:
        return {"Affected": await self._operations.hold(request.Filter.filter())}

    async def _release(self, request: ActRequest) -> Mapping[str, Any]:
        return {"Affected": await self._operations.release(request.Filter.filter())}

    async def _schedule(self, request: ScheduleRequest) -> Mapping[str, Any]:
        at = self._clock.now() + timedelta(seconds=request.Seconds)
        return {"Affected": await self._operations.schedule(request.Filter.filter(), at)}

    async def _drop(self, request: ActRequest) -> Mapping[str, Any]:
        return {"Affected": await self._operations.drop(request.Filter.filter(), "canceled by admin")}

    async def _rules(self, request: Empty) -> Mapping[str, Any]:
        rules, _ = await self._holding.refresh()
        return {
            "Rules": [
                {
                    "ID": rule.id,
                    "Account": rule.account,
                    "SenderDomain": rule.sender_domain,
                    "RecipientDomain": rule.recipient_domain,
                }
                for rule in rules
            ]
        }

    async def _add_rule(self, request: RuleRequest) -> Mapping[str, Any]:
        self._check_account(request.Account)
        sender, recipient = (d and parse_domain(d) for d in (request.SenderDomain, request.RecipientDomain))
        rule, affected = await self._holding.add(request.Account, sender, recipient)
        return {"ID": rule.id, "Affected": affected}

    async def _remove_rule(self, request: OneRequest) -> Mapping[str, Any]:
        if not await self._holding.remove(request.ID):
            raise CommandFailed(f"there is no hold rule {request.ID}; see gateway queue hold-rules list")
        return {}

    async def _password(self, request: PasswordRequest) -> Mapping[str, Any]:
        self._check_account(request.Account)
        await self._authenticator.set_password(request.Account, request.Password)
        log.info("password of account %s set", request.Account)
        return {}

    def _check_account(self, account: str) -> None:
        if account and account not in self._settings.accounts:
            raise CommandFailed(
                f"there is no account {account!r}; there are: {', '.join(self._settings.accounts) or 'none'}"
            )


def _json(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value))


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
        "Size": message.size,
        "Queued": message.queued,
        "Hold": message.hold,
        "Attempts": message.attempts,
        "LastAttempt": message.last_attempt,
        "NextAttempt": message.next_attempt,
        "Delivering": item.leased,
        "Transport": message.transport,
        "FromID": message.from_id,
        "RequireTLS": message.require_tls,
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
