"""One HTTP/1.1 connection: a trio stream on one side, an ASGI application on the other.

Hypercorn's H11 protocol stands between them and does the translating (h11 and wsproto inside). This
file is what surrounds it, and holds to four rules:

1. One task reads from the client and feeds the protocol; one more runs the application for each request.
2. No error leaves a connection: `Connection.run` ends normally or by its own cancellation, nothing else
   (KeyboardInterrupt apart).
3. Whatever waits for the client has a deadline: the head of a request, its body, the next request, a write.
   What waits for the application has none; that is the application's business.
4. Nothing is shielded, so that cancelling a connection ends it whatever its client does.

Where the reading ends, for whichever reason, `_gone` is set, the application hears "disconnect" and its
sends raise `ClientGone`; the stream is closed; the connection ends when the application has ended.
"""

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import h11
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup
from wsproto.frame_protocol import CloseReason

from gateway.net.streams import Stream
from gateway.web.http1 import (
    ASGIApp,
    ClientGone,
    Http1,
    HttpSettings,
    Inbox,
    Message,
    ProtocolConfig,
    Receive,
    Refused,
)

RECEIVE_SIZE = 64 * 1024  # bytes read at once; also bounds one body message
WRITE_SIZE = 64 * 1024  # bytes that have to go out within one write timeout
LINGER = 2.0  # seconds to let a client read the last answer before the close (RFC 9112 section 9.6)
MAX_PEER_TEXT = 200  # characters of anything from outside in a log line

log = logging.getLogger(__name__)


class Connection:
    """Serves one client. `run` returns when the connection and its application have ended."""

    def __init__(
        self,
        app: ASGIApp,
        stream: trio.abc.Stream,
        settings: HttpSettings,
        config: ProtocolConfig,
        context: WorkerContext,
    ) -> None:
        self._app = app
        self._stream = stream
        self._settings = settings
        self._context = context
        client, server = _addresses(stream)
        self._peer = client[0] if client else "unix"
        self._protocol = Http1(
            cast("AppWrapper", None),  # only handed through to spawn_app, which has its own
            config,
            context,
            cast("TaskGroup", self),  # spawn_app and spawn are all that is used of it
            ConnectionState({}),
            settings.scheme == "https",
            client,
            cast("tuple[str, int] | None", server),
            self._send_event,
        )
        self._reading = trio.CancelScope()  # its deadline is what the client has to meet just now
        self._writing = trio.Lock()
        self._nursery: trio.Nursery
        self._app_ended: trio.Event | None = None  # while an application runs
        self._inbox = Inbox()
        self._last_message: Message = {"type": "http.disconnect"}
        self._head_by: float | None = None  # while a head is incomplete: when it has to be whole
        self._gone = False
        self._closing = False  # the protocol has said its last word
        self._eof = False  # the client has

    # Life -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as self._nursery:
                await self._read()
                self._gone = True
                await self._protocol.handle(Closed())
                self._inbox.end(self._last_message)
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
        if self._protocol.stream is None and self._head_by is None:
            self._closing = True
            self._reading.cancel()
        elif isinstance(self._protocol.stream, WSStream):
            self.spawn(self._protocol.go_away)

    # Reading --------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Feed the protocol until the client ends, fails, is too slow, or the protocol closes."""
        protocol, reading = self._protocol, self._reading
        now = trio.current_time
        reading.deadline = now() + self._settings.header_timeout
        try:
            with reading:
                while not self._closing:
                    data = await self._stream.receive_some(RECEIVE_SIZE)
                    reading.deadline = float("inf")
                    if not data:
                        self._eof = True
                        return
                    await protocol.handle(RawData(bytes(data)))
                    reading.deadline = self._next_deadline(now())
            if reading.cancelled_caught and not self._closing and self._waits_for_request():
                await self._refuse(408)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ClientGone):
            self._eof = True
        except Refused as refused:
            await self._refuse(refused.status)
        except Exception as error:
            # What hypercorn does not expect of a client (a header that is not ASCII, say) surfaces here.
            log.warning("HTTP request from %s refused: %s", self._peer, _one_line(error))
            await self._refuse(400)

    def _next_deadline(self, now: float) -> float:
        """When the client has to have sent something more; infinity while it is the application's turn."""
        theirs = self._protocol.connection.their_state
        if theirs is h11.IDLE:
            if self._head_by is None:
                self._head_by = now + self._settings.header_timeout
            return self._head_by
        if theirs is h11.SEND_BODY:
            return now + self._settings.body_timeout
        if theirs is None:  # a WebSocket, which has to answer our pings
            if self._protocol.websocket_too_big():
                self._closing = True
            return now + 2 * self._settings.websocket_ping
        return float("inf")

    def _waits_for_request(self) -> bool:
        """Whether a request has begun to arrive and is not yet whole."""
        return self._head_by is not None or self._protocol.connection.their_state is h11.SEND_BODY

    def _unread(self) -> bool:
        """Whether the client may have sent, or be sending, what nobody has read."""
        connection = self._protocol.connection
        between = connection.their_state in (h11.IDLE, h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
        return not between or bool(connection.trailing_data[0])

    async def _refuse(self, status: int) -> None:
        self._gone = self._closing = True  # the application can say no more
        try:
            await self._protocol.refuse(status)
        except ClientGone:
            self._eof = True

    # Writing --------------------------------------------------------------------------------------------

    async def _send_event(self, event: Event) -> None:
        """What the protocol has for us: bytes, its end, or whether a request is under way."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            self._closing = True
            self._reading.cancel()
        elif isinstance(event, Updated):
            self._head_by = None
            idle = self._settings.keep_alive_timeout if event.idle else float("inf")
            self._reading.deadline = trio.current_time() + idle

    async def _write(self, data: bytes) -> None:
        """Send all of `data`, or raise ClientGone. Frames of two tasks never mix."""
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

    # The application --------------------------------------------------------------------------------------

    async def spawn_app(self, _app: object, _config: object, scope: Any, send: Any) -> Any:
        """Start the application for one request; called by the protocol. Returns where its messages go."""
        if self._app_ended is not None:
            await self._app_ended.wait()  # it has answered but not ended: pipelining buys no concurrency
        self._inbox = inbox = Inbox()
        if scope["type"] == "websocket":
            self._last_message = {"type": "websocket.disconnect", "code": CloseReason.ABNORMAL_CLOSURE.value}
        self._app_ended = trio.Event()
        self._nursery.start_soon(self._run_app, scope, inbox.receive, send)
        return inbox.put

    async def _run_app(self, scope: Message, receive: Receive, protocol_send: Any) -> None:
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
