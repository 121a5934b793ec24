"""HTTP/1.1 (RFC 9112) as this server speaks it, without I/O: what a client sends becomes requests, what an
application sends becomes bytes. gateway/web/connection.py has the sockets.

httptools (llhttp, the parser of Node.js) does the reading, and is strict: line ends are CRLF, no header line
is folded, a length is there once. HTTP/2 is not spoken: an upgrade to it is not taken up (RFC 9110, 7.8).
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import Any

import httptools
import trio

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]  # (Message, Receive, Send), typed by each its own way
Headers = list[tuple[bytes, bytes]]

INBOX_MESSAGES = 4  # messages that wait for a slow application; then reading stops

_HEADER_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.1
_HEADER_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """Limits of an HTTP server. Times in seconds, sizes in bytes."""

    scheme: str = "http"  # "https" if the listeners speak TLS; it only tells the application
    max_connections: int = 1000  # over it: 503 and close
    retry_after: int = 5  # what that 503 says in Retry-After
    max_head: int = 32 * 1024  # request line and header section (over it: 431); also chunk headers, trailers
    header_timeout: float = 10.0  # the whole head of a request, from its first byte (over it: 408)
    body_timeout: float = 30.0  # for each 64 KiB of a request's body, or what is left of it (over it: 408)
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


# --- Requests -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Head:
    """The head of a request. Names of headers are in lower case."""

    method: str
    target: bytes  # path and query
    version: str  # "1.0" or "1.1"
    headers: Headers
    keep_alive: bool  # the client may send another one afterwards
    expects_continue: bool  # it waits for a 100 before it sends the body
    is_websocket: bool  # it asks for one (RFC 6455); no body follows


@dataclass(slots=True)
class Body:
    """A piece of a request's body; `more` follow, perhaps empty ones."""

    data: bytes
    more: bool


class RequestReader:
    """What one client sends. Once a Refused is among the answers of `feed`, nothing more is to be fed."""

    def __init__(self, max_head: int) -> None:
        self.in_head = self.in_body = False  # of a request that is not yet whole
        self._max_head = max_head
        self._parser = httptools.HttpRequestParser(self)
        self._events: list[Head | Body | Refused] = []
        self._target = b""
        self._headers: Headers = []
        self._head_size = 0  # bytes
        self._without_result = 0  # bytes fed since the last event
        self._upgrade = False  # the head asks for a protocol that we don't speak

    def feed(self, data: bytes) -> list[Head | Body | Refused]:
        """What comes with `data`, in pieces of any size."""
        try:
            self._feed(data)
        except Refused as refused:
            self._events.append(refused)
        events, self._events = self._events, []
        return events

    def _feed(self, data: bytes) -> None:
        """Raises Refused."""
        size = len(data)
        while True:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                rest = data[upgrade.args[0] :]
                if not self._upgrade:
                    if rest:  # nothing may follow before the answer (RFC 6455, 4.1)
                        raise Refused(400) from None
                    break
                # The parser would leave out the body that may be there.
                data = self._head_without_upgrade() + rest
                self._upgrade = False
                self._parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError as exc:
                raise _refusal(exc) from None
        self._without_result = 0 if self._events else self._without_result + size
        if self._without_result > self._max_head:
            raise Refused(431)

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%s: %s\r\n" % item for item in self._headers if item[0] != b"upgrade"]
        version = self._parser.get_http_version().encode()
        start = b"%s %s HTTP/%s\r\n" % (self._parser.get_method(), self._target, version)
        return b"%s%s\r\n" % (start, b"".join(lines))

    # --- Callbacks of httptools

    def on_message_begin(self) -> None:
        self.in_head = True
        self._target, self._headers, self._head_size = b"", [], 0

    def on_url(self, piece: bytes) -> None:
        self._target += piece
        self._count(len(piece))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if self.in_head:  # and no trailer
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self._max_head:
            raise Refused(431)

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        version, method = parser.get_http_version(), parser.get_method().decode("ascii")
        if version not in ("1.0", "1.1"):
            raise Refused(505)
        if method == "CONNECT":  # for proxies; the parser takes what follows for another protocol
            raise Refused(501)
        given = dict(headers)
        hosts = sum(name == b"host" for name, _ in headers)
        if hosts > 1 or (not hosts and version == "1.1"):  # RFC 9112, 3.2
            raise Refused(400)
        if b"transfer-encoding" in given:
            codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
            if codings != [b"chunked"]:
                raise Refused(501)
        target = self._target
        if not target.startswith(b"/"):
            target = _origin_form(method, target)
        is_websocket = False
        if parser.should_upgrade():
            is_websocket = method == "GET" and given[b"upgrade"].lower() == b"websocket"
            if not is_websocket:
                self._upgrade = True
                return
        self.in_head, self.in_body = False, not is_websocket
        self._events.append(
            Head(
                method=method,
                target=target,
                version=version,
                headers=headers,
                keep_alive=version == "1.1" and parser.should_keep_alive(),
                expects_continue=version == "1.1" and given.get(b"expect", b"").lower() == b"100-continue",
                is_websocket=is_websocket,
            )
        )

    def on_body(self, data: bytes) -> None:
        self._events.append(Body(data, more=True))

    def on_message_complete(self) -> None:
        if not self.in_body:
            return  # there is nothing like a body
        self.in_body = False
        last = self._events[-1] if self._events else None
        if isinstance(last, Body):
            last.more = False
        else:
            self._events.append(Body(b"", more=False))


def _refusal(exc: httptools.HttpParserError) -> Refused:
    ours = exc.__context__  # what a callback raises is the context of the library's own error
    if isinstance(ours, Refused):
        return ours
    # The latter is the preface of HTTP/2 (RFC 9113, 3.4).
    is_version = str(exc) in ("Invalid HTTP version", "Pause on PRI/Upgrade")
    return Refused(505 if is_version else 400)


def _origin_form(method: str, target: bytes) -> bytes:
    """The path and query of a request target in absolute form (RFC 9112 section 3.2.2).

    Raises Refused for what has no path, except "*" for OPTIONS.
    """
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        authority = rest.split(b"/", 1)[0].split(b"?", 1)[0]
        path = rest[len(authority) :]
        return path if path.startswith(b"/") else b"/" + path
    if method == "OPTIONS" and target == b"*":
        return target
    raise Refused(400)


# --- Answers ------------------------------------------------------------------------------------


class Answer:
    """The answer to one request, as bytes. Its methods raise RuntimeError for an application's mistakes."""

    __slots__ = ("_chunked", "_head", "_left", "_no_body", "_version", "complete", "is_last", "started")

    def __init__(self, request: Head) -> None:
        self.started = self.complete = False
        self.is_last = not request.keep_alive  # the connection ends with it
        self._version = request.version
        self._no_body = request.method == "HEAD"
        self._head = b""  # not yet sent
        self._left: int | None = None  # bytes of the body, where its length was given
        self._chunked = False

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]], *, is_last: bool) -> None:
        """The head, which waits for the first piece of the body, so that both leave in one write. ASGI asks
        for this too: a response starts with its first body message, not before."""
        if self.started:
            raise RuntimeError("the answer has begun already")
        self.is_last = self.is_last or is_last
        lines = []
        for given, value in headers:
            name = given.lower()
            if name == b"content-length":
                self._left = int(value)
            elif name == b"transfer-encoding":
                continue  # that is our business
            elif name == b"connection":
                self.is_last = self.is_last or b"close" in value.lower()
                continue
            lines.append(header_line(name, value))
        self._no_body = self._no_body or status < 200 or status in (204, 304)
        if self._no_body:
            self._left = None
        elif self._left is None and self._version == "1.1":
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        elif self._left is None:
            self.is_last = True
        if self.is_last:
            lines.append(b"connection: close\r\n")
        self._head = head(status, lines)
        self.started = True

    def piece(self, data: bytes, *, more: bool) -> bytes:
        """What to send for a piece of the body."""
        if not self.started or self.complete:
            raise RuntimeError("a piece of an answer's body without an answer that waits for it")
        if self._no_body:
            data = b""
        elif self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body of an answer is not as long as its Content-Length says")
        elif self._chunked:
            data = b"%x\r\n%s\r\n" % (len(data), data) if data else b""
            if not more:
                data += b"0\r\n\r\n"
        self.complete = not more
        if self._head:
            data, self._head = self._head + data, b""
        return data


def head(status: int, lines: Iterable[bytes]) -> bytes:
    """The head of an answer with these header lines, and Date."""
    return b"HTTP/1.1 %d \r\n%s%s\r\n" % (status, b"".join(lines), _date(int(time.time())))


def header_line(name: bytes, value: bytes) -> bytes:
    """Raises RuntimeError."""
    name, value = bytes(name), bytes(value).strip()
    if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
        raise RuntimeError(f"the answer has a header that cannot be sent: {name[:100]!r}")
    return b"%s: %s\r\n" % (name, value)


def error(status: int) -> bytes:
    """An answer that says no more, and with which the connection ends."""
    return head(status, (b"content-length: 0\r\n", b"connection: close\r\n"))


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return b"date: %s\r\n" % formatdate(second, usegmt=True).encode()


# --- What an application receives ---------------------------------------------------------------


class Inbox:
    """What an application's `receive` reads: a short queue with a "disconnect" at its end.

    A disconnect never waits for room (a trio memory channel would make the application wait for itself when
    it answers without reading a long body), and is handed out as often as it is asked for.
    """

    __slots__ = ("_end", "_messages", "_readers", "_writers", "before_reading")

    def __init__(self) -> None:
        self.before_reading: Callable[[], Awaitable[None]] | None = None  # called once
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
        if self.before_reading is not None:
            before, self.before_reading = self.before_reading, None
            await before()
        while not self._messages:
            if self._end is not None:
                await trio.lowlevel.checkpoint()  # an application that asks in a loop stalls only itself
                return self._end
            await self._readers.park()
        self._writers.unpark()
        return self._messages.popleft()
