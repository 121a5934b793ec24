"""One HTTP/1.1 connection: a trio stream on one side, an ASGI application on the other.

gateway/web/http1.py stands between them and does the translating; a WebSocket is one of
gateway/web/websocket.py. This file is what surrounds them, and holds to four rules:

1. One task reads from the client; one more runs the application for each request.
2. No error leaves a connection: `Connection.run` ends normally or by its own cancellation, nothing else
   (KeyboardInterrupt apart).
3. Whatever waits for the client has a deadline, which drips do not extend: the head of a request, each 64 KiB
   of its body, the next request, a write.
   What waits for the application has none; that is the application's business.
4. Nothing is shielded, so that cancelling a connection ends it whatever its client does.

Where the reading ends, for whichever reason, `_gone` is set, the application hears "disconnect" and its
sends raise `ClientGone`; the stream is closed; the connection ends when the application has ended.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any
from urllib.parse import unquote

import trio
from wsproto.frame_protocol import CloseReason

from gateway.net.streams import Stream
from gateway.web import http1
from gateway.web.http1 import (
    Answer,
    ASGIApp,
    Body,
    ClientGone,
    Head,
    HttpSettings,
    Inbox,
    Message,
    Receive,
    Refused,
    RequestReader,
)
from gateway.web.websocket import WebSocket

RECEIVE_SIZE = 64 * 1024  # bytes read at once; also bounds one body message
WRITE_SIZE = 64 * 1024  # bytes that have to go out within one write timeout
# Seconds to let a client read the last answer before the close (RFC 9112 section 9.6), and to let an
# application answer one that sends no more.
LINGER = 2.0
MAX_PEER_TEXT = 200  # characters of anything from outside in a log line

_DISCONNECT: Message = {"type": "http.disconnect"}

log = logging.getLogger(__name__)


class Connection:
    """Serves one client. `run` returns when the connection and its application have ended."""

    def __init__(self, app: ASGIApp, stream: trio.abc.Stream, settings: HttpSettings) -> None:
        self._app = app
        self._stream = stream
        self._settings = settings
        self._client, self._server = _addresses(stream)
        self._peer = self._client[0] if self._client else "unix"
        self._requests = RequestReader(settings.max_head)
        self._reading = trio.CancelScope()  # its deadline is what the client has to meet just now
        self._writing = trio.Lock()
        self._nursery: trio.Nursery
        self._app_ended: trio.Event | None = None  # while an application runs
        self._inbox = Inbox()
        self._answer: Answer | None = None  # to a request, until it is complete
        self._websocket: WebSocket | None = None
        self._head_by: float | None = None  # while a head is incomplete: when it has to be whole
        self._body_time, self._body_size = 0.0, 0  # waited for bytes of a body; since the last RECEIVE_SIZE
        self._stopping = False  # the server is
        self._gone = False
        self._closing = False  # we have said our last word
        self._eof = False  # the client has
        self._left = False  # something was read that nobody will look at

    # Life -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as self._nursery:
                await self._read()
                self._gone = True
                if self._websocket is None:
                    self._inbox.end(_DISCONNECT)
                else:
                    await self._websocket.gone()
                    self._inbox.end(
                        {"type": "websocket.disconnect", "code": CloseReason.ABNORMAL_CLOSURE.value}
                    )
                await close(self._stream, listen=self._closing and not self._eof and self._unread())
                if self._app_ended is not None:
                    await self._app_ended.wait()
                self._nursery.cancel_scope.cancel()  # pings
        except BaseException as error:
            failure = blame(error)
            if failure is not None:
                log.error("HTTP connection from %s failed: %s", self._peer, _one_line(failure))
            await trio.lowlevel.checkpoint_if_cancelled()

    def stop(self) -> None:
        """The server is stopping: end now if idle, otherwise after the request under way."""
        self._stopping = True
        if self._gone or self._closing:
            return  # it is at its end already
        if self._websocket is not None:
            self.spawn(self._websocket.go_away)
        elif self._answer is None and self._head_by is None:
            self.end()

    # Reading --------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Take what comes until the client ends, fails, is too slow, or we have said our last word."""
        reading = self._reading
        now = trio.current_time
        reading.deadline = now() + self._settings.header_timeout
        try:
            with reading:
                while not self._closing:
                    asked = now()
                    data = await self._stream.receive_some(RECEIVE_SIZE)
                    reading.deadline = inf
                    if self._requests.in_body:
                        self._note_body(now() - asked, len(data))
                    if not data:
                        self._eof = True
                        await self._answer_to_one_that_has_said_all()
                        return
                    self._left = True
                    await self._take(bytes(data))
                    self._left = False
                    reading.deadline = self._next_deadline(now())
            if reading.cancelled_caught and not self._closing and self._waits_for_request():
                await self._refuse(408)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ClientGone):
            self._eof = True
        except Refused as refused:
            await self._refuse(refused.status)
        except Exception as error:
            # What nobody expects of a client surfaces here.
            log.warning("HTTP request from %s refused: %s", self._peer, _one_line(error))
            await self._refuse(400)

    async def _answer_to_one_that_has_said_all(self) -> None:
        """Whether a client is gone or has only closed its own side (`nc` does that), nobody can tell."""
        if self._answer is not None and not self._requests.in_body and self._app_ended is not None:
            with trio.move_on_after(LINGER):
                await self._app_ended.wait()

    async def _take(self, data: bytes) -> None:
        """Raises Refused."""
        if self._websocket is not None:
            await self._websocket.receive(data)
            return
        events = self._requests.feed(data)
        for event in events:
            if isinstance(event, Body):
                await self._inbox.put({"type": "http.request", "body": event.data, "more_body": event.more})
                continue
            if isinstance(event, Refused) and (self._requests.in_body or self._websocket is not None):
                raise event  # it is about the request under way
            await self._previous_ended()
            if isinstance(event, Refused):
                raise event
            event.expects_continue = event.expects_continue and event is events[-1]  # it did not wait
            await self._begin(event)

    async def _previous_ended(self) -> None:
        """Pipelining buys no concurrency: an application has answered, and ended, before the next begins."""
        while self._app_ended is not None:
            await self._app_ended.wait()
        if self._closing:
            await trio.lowlevel.checkpoint()  # the reading is cancelled

    def _next_deadline(self, now: float) -> float:
        """When the client has to have sent something more; infinity while it is the application's turn."""
        if self._websocket is not None:  # which has to answer our pings
            if self._websocket.too_big:
                self._closing = True
            return now + 2 * self._settings.websocket_ping
        if self._answer is not None:
            return now + self._settings.body_timeout - self._body_time if self._requests.in_body else inf
        return self._idle_deadline(now)

    def _note_body(self, seconds: float, size: int) -> None:
        """What the application takes to look at it is not the client's time."""
        self._body_time += seconds
        self._body_size += size
        if self._body_size >= RECEIVE_SIZE:
            self._body_time, self._body_size = 0.0, 0

    def _idle_deadline(self, now: float) -> float:
        """The same, while no request is under way."""
        if not self._requests.in_head:
            return now + self._settings.keep_alive_timeout
        if self._head_by is None:
            self._head_by = now + self._settings.header_timeout
        return self._head_by

    def _waits_for_request(self) -> bool:
        """Whether a request has begun to arrive and is not yet whole."""
        return self._websocket is None and (self._requests.in_head or self._requests.in_body)

    def _unread(self) -> bool:
        """Whether the client may have sent, or be sending, what nobody has read."""
        return self._left or self._waits_for_request()

    async def _refuse(self, status: int) -> None:
        self._gone = self._closing = True  # the application can say no more
        if self._websocket is None:
            answered = self._answer is not None and self._answer.started
        else:
            answered = self._websocket.answered
        if not answered:
            with suppress(ClientGone):
                await self.write(http1.error(status))

    # Writing --------------------------------------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        """Send all of `data`, or raise ClientGone. What two tasks write never mixes."""
        try:
            self._writing.acquire_nowait()  # a lock that is free costs no turn of the loop
        except trio.WouldBlock:
            await self._writing.acquire()
        try:
            view = memoryview(data)
            for start in range(0, len(data), WRITE_SIZE):
                with trio.fail_after(self._settings.write_timeout):
                    await self._stream.send_all(view[start : start + WRITE_SIZE])
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            self._gone = self._eof = True
            self._reading.cancel()
            raise ClientGone(f"the client is gone or does not read: {error!r}") from None
        finally:
            self._writing.release()

    def end(self) -> None:
        """Nothing more is to be read or sent."""
        self._closing = True
        self._reading.cancel()

    # Requests -------------------------------------------------------------------------------------------

    async def _begin(self, request: Head) -> None:
        """Start the application for a request."""
        self._head_by, self._reading.deadline = None, inf
        self._body_time, self._body_size = 0.0, 0
        if request.is_websocket:
            self._websocket = WebSocket(self, request, self._settings, self._client, self._server)
            await self._websocket.begin()
            return
        path, _, query = request.target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.version,
            "method": request.method,
            "scheme": self._settings.scheme,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": request.headers,
            "client": self._client,
            "server": self._server,
            "state": {},
            "extensions": {},
        }
        self._answer = answer = Answer(request)

        async def send(message: Message | None) -> None:
            await self._send(answer, message)

        self._start_app(scope, send)
        if request.expects_continue:
            self._inbox.before_reading = partial(self._ask_for_body, answer)

    async def _ask_for_body(self, answer: Answer) -> None:
        """When the application wants it: what it refuses for its head is never sent (RFC 9110, 10.1.1)."""
        if not answer.started and not self._gone:
            with suppress(ClientGone):  # the application hears of it next
                await self.write(http1.CONTINUE)

    async def _send(self, answer: Answer, message: Message | None) -> None:
        """What the application has for the client; None: it has ended."""
        if message is None:
            if not answer.started:
                await self.write(http1.error(500))
            if not answer.complete:  # it is cut off
                self.end()
            return
        kind = message["type"]
        if kind == "http.response.start":
            status, headers = int(message["status"]), message.get("headers", ())
            answer.start(status, headers, is_last=self._stopping)
        elif kind == "http.response.body":
            piece = answer.piece(bytes(message.get("body", b"")), more=message.get("more_body", False))
            if piece:
                await self.write(piece)
            if answer.complete:
                self._answered(answer)
        else:
            raise RuntimeError(f"an application sends a message that does not belong to HTTP: {kind!r}")

    def _answered(self, answer: Answer) -> None:
        self._answer = None
        self._inbox.end(_DISCONNECT)  # that is all it gets
        if answer.is_last or self._stopping or self._requests.in_body:
            self.end()
        else:
            self._reading.deadline = self._idle_deadline(trio.current_time())

    # The application --------------------------------------------------------------------------------------

    def _start_app(self, scope: Message, send: Callable[[Message | None], Awaitable[None]]) -> None:
        self._inbox = inbox = Inbox()
        self._app_ended = trio.Event()
        self._nursery.start_soon(self._run_app, scope, inbox.receive, send)

    async def spawn_app(self, _app: object, _config: object, scope: Any, send: Any) -> Any:
        """Start the application for a WebSocket; called by it. Returns where its messages go."""
        self._start_app(scope, send)
        return self._inbox.put

    async def _run_app(
        self, scope: Message, receive: Receive, protocol_send: Callable[[Message | None], Awaitable[None]]
    ) -> None:
        async def send(message: Message) -> None:
            if self._gone:
                raise ClientGone("the client has closed the connection")
            await protocol_send(message)

        try:
            try:
                await self._app(scope, receive, send)
            except BaseException as error:
                failure = blame(error)
                if failure is not None:
                    method = scope.get("method", "WebSocket")
                    path = ascii(scope["path"])[:MAX_PEER_TEXT]
                    log.error("%s %s from %s failed", method, path, self._peer, exc_info=failure)
                await trio.lowlevel.checkpoint_if_cancelled()
            if not self._gone:
                await protocol_send(None)  # a 500, an incomplete answer cut off, or nothing to do
        except ClientGone:
            pass
        finally:
            if self._app_ended is not None:
                self._app_ended.set()
                self._app_ended = None

    def spawn(self, task: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Run a side task of the protocol (WebSocket pings) until the connection ends."""

        async def contained() -> None:
            with suppress(ClientGone):
                await task(*args)

        self._nursery.start_soon(contained)


async def close(stream: trio.abc.Stream, *, listen: bool) -> None:
    """Close `stream`; with `listen`, hear the client out first, for LINGER seconds at most.

    Closing a socket to which the client still sends resets the connection, and the reset can overtake the
    last answer. An application in the middle of a write is cut off.
    """
    gone = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)
    with trio.move_on_after(LINGER), suppress(*gone):
        if listen and isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
            while await stream.receive_some(RECEIVE_SIZE):
                pass
        await stream.aclose()
    await trio.aclose_forcefully(stream)


def blame(error: BaseException) -> BaseException | None:
    """What is left of `error` to report: not cancellation, and not the client's leaving.

    Whoever swallows the rest has to call `trio.lowlevel.checkpoint_if_cancelled()` next: it raises the task's
    own cancellation anew, if there is one, and so drops a Cancelled that strayed in from a scope long closed.
    KeyboardInterrupt and GeneratorExit, alone or in a group, are not for anyone here and are raised again.
    """
    if not isinstance(error, BaseExceptionGroup):
        if isinstance(error, KeyboardInterrupt | GeneratorExit):
            raise error
        return None if isinstance(error, trio.Cancelled | ClientGone) else error
    if error.subgroup((KeyboardInterrupt, GeneratorExit)) is not None:
        raise error
    return error.split((trio.Cancelled, ClientGone))[1]


def _one_line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):  # the first says enough for one line
        error = error.exceptions[0]
    return ascii(error)[:MAX_PEER_TEXT]


def _addresses(stream: trio.abc.Stream) -> tuple[tuple[str, int] | None, tuple[str, int | None] | None]:
    """The client's and the server's address as ASGI has them: no client and (path, None) on a Unix socket."""
    inner: Any = stream
    while not isinstance(inner, Stream | trio.SocketStream):
        inner = getattr(inner, "transport_stream", None)
        if inner is None:
            return None, None
    try:
        own, peer = inner.socket.getsockname(), inner.socket.getpeername()
    except OSError:  # already gone
        return None, None
    if inner.socket.family == socket.AF_UNIX:
        return None, (own, None)
    return (peer[0], peer[1]), (own[0], own[1])
