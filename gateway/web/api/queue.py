"""The methods about the account's own messages in the queue and its history, and about its events."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

from gateway.durations import parse_bound
from gateway.model import EventName
from gateway.store.listing import MAX_IDS, Attempt, Filter, Item
from gateway.store.pages import MAX_PAGE
from gateway.web.api import models
from gateway.web.api.calls import Call
from gateway.web.api.errors import BadRequest
from gateway.web.api.services import NoPayload

DEFAULT_PAGE = 100
MAX_WANTED = 500  # characters of a text that is looked for
EVENT_NAMES = (*get_args(EventName), "incoming")

_SORTS: dict[str, Literal["next_attempt", "queued"]] = {
    "": "next_attempt",
    "NextAttempt": "next_attempt",
    "Queued": "queued",
}


async def queue_list(call: Call, request: models.QueueListRequest) -> models.QueueListResult:
    """Raises BadRequest (user), StoreError."""
    sort = _SORTS.get(request.Sort)
    if sort is None:
        raise BadRequest("user", "Sort: must be NextAttempt or Queued")
    try:
        page = await call.services.queue.page(
            call.login.account,
            _filter(call, request.Filter),
            sort=sort,
            ascending=request.Asc,
            cursor=request.Cursor,
            maximum=_maximum(request.Max),
        )
    except ValueError as exc:
        raise BadRequest("user", f"Cursor: {exc}") from None
    return models.QueueListResult(Messages=[_message(item) for item in page.items], NextCursor=page.cursor)


async def queue_get(call: Call, request: models.QueueGetRequest) -> models.QueueGetResult:
    """Raises BadRequest (messageNotFound, server), StoreError."""
    found = await call.services.queue.get(call.login.account, request.QueueMsgID)
    if found is None:
        raise BadRequest("messageNotFound", "there is no message of this QueueMsgID, queued or kept")
    payloads = [await _payload(call, event) for event in found.events]
    return models.QueueGetResult(
        Message=_message(found.item),
        Attempts=[_attempt(attempt) for attempt in found.attempts],
        Events=[payload for payload in payloads if payload is not None],
    )


async def queue_cancel(call: Call, request: models.QueueActionRequest) -> models.QueueActionResult:
    """Raises BadRequest (user), StoreError."""
    affected = await call.services.queue.cancel(call.login.account, _not_empty(call, request.Filter))
    return models.QueueActionResult(Affected=affected)


async def queue_hold(call: Call, request: models.QueueActionRequest) -> models.QueueActionResult:
    """Raises BadRequest (user), StoreError."""
    affected = await call.services.queue.hold(call.login.account, _not_empty(call, request.Filter))
    return models.QueueActionResult(Affected=affected)


async def queue_release(call: Call, request: models.QueueActionRequest) -> models.QueueActionResult:
    """Raises BadRequest (user), StoreError."""
    affected = await call.services.queue.release(call.login.account, _not_empty(call, request.Filter))
    return models.QueueActionResult(Affected=affected)


async def event_list(call: Call, request: models.EventListRequest) -> models.EventListResult:
    """Raises BadRequest (user, server), StoreError, OffloadError."""
    for index, name in enumerate(request.Events):
        if name not in EVENT_NAMES:
            raise BadRequest("user", f"Events[{index}]: must be one of {', '.join(EVENT_NAMES)}")
    try:
        page = await call.services.events.page(
            call.login.account,
            cursor=request.Cursor,
            maximum=_maximum(request.Max),
            names=tuple(dict.fromkeys(request.Events)),
        )
    except NoPayload as exc:
        raise BadRequest("server", str(exc)) from None
    except ValueError as exc:
        raise BadRequest("user", f"Cursor: {exc}") from None
    return models.EventListResult(Events=[event.payload for event in page.events], NextCursor=page.cursor)


async def _payload(call: Call, event: Any) -> Any:
    try:
        return await call.services.events.payload(event)
    except NoPayload as exc:
        raise BadRequest("server", str(exc)) from None


def _maximum(wanted: int) -> int:
    if not 0 <= wanted <= MAX_PAGE:
        raise BadRequest("user", f"Max: must be 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}")
    return wanted or DEFAULT_PAGE


def _not_empty(call: Call, given: models.Filter) -> Filter:
    wanted = _filter(call, given)
    if wanted.empty:
        raise BadRequest(
            "user", 'Filter: is empty; to mean every message, say so: {"NextAttempt": ">-3650d"} does'
        )
    return wanted


def _filter(call: Call, given: models.Filter) -> Filter:
    """Raises BadRequest (user)."""
    if len(given.IDs) > MAX_IDS:
        raise BadRequest("user", f"Filter.IDs: at most {MAX_IDS} at a time")
    for name in ("From", "To", "MessageID", "FromID"):
        if len(getattr(given, name)) > MAX_WANTED or "\0" in getattr(given, name):
            raise BadRequest("user", f"Filter.{name}: must have at most {MAX_WANTED} characters, and no NUL")
    if given.State not in ("", "queued", "retired"):
        raise BadRequest("user", "Filter.State: must be queued or retired, or empty for both")
    message_id = given.MessageID
    if message_id and not message_id.startswith("<"):
        message_id = f"<{message_id}>"
    return Filter(
        ids=tuple(dict.fromkeys(given.IDs)) or None,
        from_=given.From,
        to=given.To,
        hold=given.Hold,
        message_id=message_id,
        from_id=given.FromID,
        state=cast("Literal['queued', 'retired'] | None", given.State or None),
        success=given.Success,
        **_bound(call, given.Submitted, "Submitted"),
        **_bound(call, given.NextAttempt, "NextAttempt"),
    )


def _bound(call: Call, text: str, field: Literal["Submitted", "NextAttempt"]) -> dict[str, Any]:
    if not text:
        return {}
    try:
        side, offset = parse_bound(text)
    except ValueError as exc:
        raise BadRequest("user", f"Filter.{field}: {exc}") from None
    name = {"Submitted": "submitted", "NextAttempt": "next_attempt"}[field]
    return {f"{name}_{'before' if side == '<' else 'after'}": call.services.clock.now() + offset}


def _message(item: Item) -> models.QueueMessage:
    message = item.message
    sender, recipient = message.sender, message.recipient
    return models.QueueMessage(
        ID=message.id,
        BaseID=message.base_id,
        State=cast("Literal['queued', 'retired']", item.state),
        Queued=message.queued,
        Hold=message.hold,
        SenderAccount=message.account,
        SenderLocalpart=sender.localpart if sender else "",
        SenderDomain=sender.domain if sender else "",
        FromID=message.from_id,
        EnvID=message.env_id,
        RecipientLocalpart=recipient.localpart,
        RecipientDomain=recipient.domain,
        Attempts=message.attempts,
        MaxAttempts=message.max_attempts,
        DialedIPs={host: list(addresses) for host, addresses in item.dialed_ips.items()},
        NextAttempt=message.next_attempt,
        LastAttempt=message.last_attempt,
        Has8bit=message.has_8bit,
        SMTPUTF8=message.smtputf8,
        Size=message.size,
        MessageID=message.message_id,
        Subject=message.subject,
        Transport=message.transport,
        RequireTLS=message.require_tls,
        FutureReleaseRequest=item.future_release,
        Extra=dict(message.extra),
        RET=item.dsn_ret,
        NOTIFY=item.dsn_notify,
        ORCPT=item.dsn_orcpt,
        IsReport=item.is_report,
        RetiredAs=item.retired_as,
        Success=item.success,
        LastActivity=item.last_activity,
        KeepUntil=item.keep_until,
    )


def _attempt(attempt: Attempt) -> models.Attempt:
    return models.Attempt(
        Start=attempt.start,
        Duration=attempt.duration,
        Success=attempt.success,
        Code=attempt.code,
        EnhancedCode=attempt.enhanced,
        Error=attempt.error,
        Transport=attempt.transport,
        RemoteMTA=attempt.remote_mta,
        RemoteIP=attempt.remote_ip,
        TLS=attempt.tls,
        Transcript=attempt.transcript,
    )
