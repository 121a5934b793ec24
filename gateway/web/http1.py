"""The HTTP/1.1 protocol as this server speaks it: hypercorn's, without HTTP/2 and with its loose ends tied.

Also what stands on either side of it: the settings, and the inbox from which an application receives.
No sockets here; gateway/web/connection.py has them.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import EndBody, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.typing import H11SendableEvent
from wsproto.events import CloseConnection
from wsproto.frame_protocol import CloseReason

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]  # (Message, Receive, Send), typed by each its own way

INBOX_MESSAGES = 4  # messages that wait for a slow application; then reading stops


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """Limits of an HTTP server. Times in seconds, sizes in bytes."""

    scheme: str = "http"  # "https" if the listeners speak TLS; it only tells the application
    max_connections: int = 1000  # over it: 503 and close
    retry_after: int = 5  # what that 503 says in Retry-After
    max_head: int = 32 * 1024  # request line and header section (over it: 431); also chunk headers, trailers
    header_timeout: float = 10.0  # the whole head of a request, from its first byte (over it: 408)
    body_timeout: float = 30.0  # between two pieces of a request's body (over it: 408)
    keep_alive_timeout: float = 60.0  # between two requests
    write_timeout: float = 30.0  # for each WRITE_SIZE of an answer to be taken by the client
    grace: float = 10.0  # for requests under way once the server is stopping
    websocket_max_message: int = 1024 * 1024
    websocket_ping: float = 20.0  # between pings; a peer silent for twice that is gone


class ClientGone(OSError):
    """Raised by an application's `send` once its client can no longer be answered (ASGI, HTTP 2.4)."""


class Refused(Exception):
    """The request is not one that this server takes; `status` is the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ProtocolConfig(Config):
    """Hypercorn's settings, made from ours; its logging is off and its Date header made once a second."""

    def __init__(self, settings: HttpSettings) -> None:
        self.accesslog = self.errorlog = None
        self.include_server_header = False
        self.h11_max_incomplete_size = settings.max_head
        self.keep_alive_max_requests = 2**62  # no reason to end a healthy connection
        self.websocket_max_message_size = settings.websocket_max_message
        self.websocket_ping_interval = settings.websocket_ping
        self._second = 0
        self._headers: list[tuple[bytes, bytes]] = []

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._headers = [(b"date", formatdate(second, usegmt=True).encode())]
        return self._headers


class Inbox:
    """What an application's `receive` reads: a short queue with a "disconnect" at its end.

    A disconnect never waits for room (a trio memory channel would make the application wait for itself when
    it answers without reading a long body), and is handed out as often as it is asked for.
    """

    __slots__ = ("_end", "_messages", "_readers", "_writers")

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._end: Message | None = None
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    async def put(self, message: Message) -> None:
        if message["type"].endswith(".disconnect"):
            self.end(message)
            return
        while len(self._messages) >= INBOX_MESSAGES and self._end is None:
            await self._writers.park()
        if self._end is None:
            self._messages.append(message)
            self._readers.unpark()

    def end(self, message: Message) -> None:
        """Make `message` the last; later ones are dropped."""
        if self._end is None:
            self._end = message
            self._readers.unpark_all()
            self._writers.unpark_all()

    async def receive(self) -> Message:
        while not self._messages:
            if self._end is not None:
                await trio.lowlevel.checkpoint()  # an application that asks in a loop stalls only itself
                return self._end
            await self._readers.park()
        self._writers.unpark()
        return self._messages.popleft()


class Http1(H11Protocol):
    """Hypercorn's protocol without HTTP/2, with fewer writes, and with its loose ends tied."""

    connection: h11.Connection | H11WSConnection
    _unsent = b""

    async def handle(self, event: Event) -> None:
        # Nothing may follow an upgrade before its answer (RFC 6455 section 4.1). Hypercorn would answer 400
        # while the application, unaware, goes on to accept.
        stream = self.stream
        if isinstance(event, RawData) and isinstance(stream, WSStream) and not stream.handshake.accepted:
            raise Refused(400)
        await super().handle(event)

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and event.status_code >= 200 and self.context.terminated.is_set():
            event.headers.append((b"connection", b"close"))
        await super().stream_send(event)
        if isinstance(event, EndBody) and isinstance(self.connection, H11WSConnection):
            await self.send(Closed())  # a refused upgrade: what follows is neither HTTP nor WebSocket

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        # The head waits for the first piece of the body, so that both leave in one write. ASGI asks for
        # this too: a response starts with its first body message, not before.
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._unsent = data
            return
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        if data:
            await self.send(RawData(data))

    async def _check_protocol(self, event: h11.Request) -> None:
        # An h2c upgrade is simply not taken up (RFC 9110 section 7.8). A client that takes HTTP/2 for granted
        # sends "PRI * HTTP/2.0" (RFC 9113 section 3.4), which is an unknown version here.
        if event.http_version not in (b"1.0", b"1.1"):
            raise Refused(505)

    async def _create_stream(self, request: h11.Request) -> None:
        target = request.target
        if not target.startswith(b"/"):
            target = _origin_form(request.method, target)
        # permessage-deflate is not negotiated: wsproto inflates without a bound.
        headers = [item for item in request.headers if item[0] != b"sec-websocket-extensions"]
        if target is not request.target or len(headers) != len(request.headers):
            version = request.http_version
            request = h11.Request(method=request.method, target=target, headers=headers, http_version=version)
        await super()._create_stream(request)
        if isinstance(self.connection, H11WSConnection) and self.connection.buffer:
            raise Refused(400)  # see handle

    async def refuse(self, status: int) -> None:
        """Answer `status`, if an answer can still be given."""
        connection = self.connection
        if isinstance(connection, H11WSConnection):
            connection = connection.h11_connection
        if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._send_error_response(status)

    async def go_away(self) -> None:
        """Tell a WebSocket peer that the server is leaving (RFC 6455 section 7.4.1)."""
        if isinstance(self.stream, WSStream) and self.stream.state is ASGIWebsocketState.CONNECTED:
            await self.stream._send_wsproto_event(CloseConnection(code=CloseReason.GOING_AWAY))

    def websocket_too_big(self) -> bool:
        # Hypercorn announces the close and then goes on collecting the message.
        stream = self.stream
        return isinstance(stream, WSStream) and stream.buffer.length > stream.buffer.max_length


def _origin_form(method: bytes, target: bytes) -> bytes:
    """The path and query of a request target in absolute form (RFC 9112 section 3.2.2).

    Raises Refused for what has no path, except "*" for OPTIONS.
    """
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        authority = rest.split(b"/", 1)[0].split(b"?", 1)[0]
        path = rest[len(authority) :]
        return path if path.startswith(b"/") else b"/" + path
    if method == b"OPTIONS" and target == b"*":
        return target
    raise Refused(400)
