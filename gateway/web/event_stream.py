"""The stream of events: a WebSocket that tells an account's events as they happen, and from a cursor on.

Nothing is kept for a client: the next page is read when it has taken the last, so one that is slow is behind,
and costs no memory. One that takes nothing for long is closed, and goes on from its cursor later.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import trio

from gateway.errors import GatewayError, StoreError
from gateway.offload import OffloadError
from gateway.web.admission import check_scope, log_in
from gateway.web.api.errors import ErrorAnswer, HttpError, error_answer
from gateway.web.api.queue import EVENT_NAMES
from gateway.web.api.services import Login, NoPayload, Services
from gateway.webhooks.event_log import make_cursor

PATH = "events"  # below the API's base path
PAGE = 100  # events read at a time
POLL = 2.0  # seconds; a hint of this process ends the wait
SLOW = 10.0  # seconds that a client may take for one event
CHECK = 60.0  # seconds after which credentials are looked at again: a key may have been revoked
MAX_STREAMS = 200
MAX_OF_ACCOUNT = 20
MAX_QUERY = 2000  # bytes
MAX_REASON = 60  # characters: a close frame has room for 123 bytes (RFC 6455, section 5.5)

# RFC 6455, section 7.4.1, and the IANA registry.
_UNSUPPORTED, _POLICY, _TRY_AGAIN = 1003, 1008, 1013

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _Closing(GatewayError):
    """The stream ends; the text is for the client."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class EventStreams:
    """An ASGI application for WebSockets."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._open: Counter[str] = Counter()  # by account

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        await receive()  # websocket.connect
        try:
            login = await log_in(self._services.accounts, scope, headers)
            check_scope(login, "events", "the stream of events")
            cursor, names = await self._wanted(scope["query_string"])
            self._check_room(login)
        except Exception as exc:
            await _refuse(send, error_answer(exc, "event stream"))
            return
        self._open[login.account] += 1
        try:
            await send({"type": "websocket.accept"})
            await self._stream(scope, headers, login, cursor, names, receive, send)
        finally:
            self._open[login.account] -= 1

    async def _wanted(self, query: bytes) -> tuple[str, tuple[str, ...]]:
        """The cursor to begin at, and the names of events. Raises HttpError, StoreError."""
        if len(query) > MAX_QUERY:
            raise HttpError(400, f"the query has more than {MAX_QUERY} bytes")
        given = parse_qs(query.decode("latin-1"), keep_blank_values=True)
        for name in given:
            if name not in ("cursor", "events"):
                raise HttpError(400, f"there is no parameter {name[:100]!a}; there are: cursor, events")
        names = tuple(filter(None, ",".join(given.get("events", ())).split(",")))
        for name in names:
            if name not in EVENT_NAMES:
                raise HttpError(400, f"events: {name[:100]!a} is none of {', '.join(EVENT_NAMES)}")
        events = self._services.events
        cursor = given["cursor"][-1] if "cursor" in given else await events.newest()
        try:
            events.check_cursor(cursor)
        except ValueError as exc:
            raise HttpError(400, str(exc)) from None
        return cursor, names

    def _check_room(self, login: Login) -> None:
        if self._open[login.account] >= MAX_OF_ACCOUNT or self._open.total() >= MAX_STREAMS:
            raise HttpError(
                503, "too many streams are open; close one, or call EventList", {"Retry-After": "5"}
            )

    async def _stream(
        self,
        scope: Message,
        headers: Mapping[bytes, bytes],
        login: Login,
        cursor: str,
        names: tuple[str, ...],
        receive: Receive,
        send: Send,
    ) -> None:
        closing: _Closing | None = None
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                """A client has nothing to say; it goes, or is sent away."""
                nonlocal closing
                message = await receive()
                if message["type"] == "websocket.receive":
                    closing = _Closing(_UNSUPPORTED, "this stream takes no messages")
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            try:
                await self._tell(scope, headers, login, cursor, names, send)
            except _Closing as exc:
                closing = exc
            nursery.cancel_scope.cancel()
        if closing is not None:
            await send({"type": "websocket.close", "code": closing.code, "reason": str(closing)})

    async def _tell(
        self,
        scope: Message,
        headers: Mapping[bytes, bytes],
        login: Login,
        cursor: str,
        names: tuple[str, ...],
        send: Send,
    ) -> None:
        """Send what happens, for ever. Raises _Closing."""
        events = self._services.events
        await _send(send, cursor, None)  # so that who is cut off before the first event knows where to go on
        checked = trio.current_time()
        while True:
            changed = events.changed  # before the reading: what comes after it ends the wait
            try:
                page = await events.page(login.account, cursor=cursor, maximum=PAGE, names=names)
            except (StoreError, OffloadError, NoPayload) as exc:
                raise _Closing(
                    _TRY_AGAIN, f"events can't be read now, connect again later: {exc}"[:120]
                ) from None
            for event in page.events:
                await _send(send, make_cursor(event.id), event.payload)
            cursor = page.cursor or cursor
            if not page.more:
                with trio.move_on_after(POLL):
                    await changed.wait()
            if trio.current_time() - checked > CHECK:
                await self._check_again(scope, headers)
                checked = trio.current_time()

    async def _check_again(self, scope: Message, headers: Mapping[bytes, bytes]) -> None:
        try:
            check_scope(
                await log_in(self._services.accounts, scope, headers), "events", "the stream of events"
            )
        except StoreError:
            return
        except GatewayError as exc:
            raise _Closing(_POLICY, f"the login is no longer valid: {exc}"[:MAX_REASON]) from None


async def _send(send: Send, cursor: str, event: Any) -> None:
    """Raises _Closing if the client took too long."""
    began = trio.current_time()
    text = json.dumps({"Cursor": cursor, "Event": event}, ensure_ascii=False)
    await send({"type": "websocket.send", "text": text, "bytes": None})
    if trio.current_time() - began > SLOW:
        raise _Closing(_TRY_AGAIN, "you read too slowly; connect again with the last cursor")


async def _refuse(send: Send, error: ErrorAnswer) -> None:
    """Instead of the upgrade, an answer as every method gives it."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in error.headers.items()]
    headers += [
        (b"content-type", b"application/json; charset=utf-8"),
        (b"content-length", b"%d" % len(error.body)),
        (b"connection", b"close"),  # what follows is neither HTTP nor WebSocket
    ]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": error.body, "more_body": False})
