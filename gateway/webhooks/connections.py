"""Connections to receivers: to allowed addresses only, over TLS or not, kept for a while to be used again."""

from __future__ import annotations

import os
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import Any, NamedTuple

import trio

from gateway.net.addresses import Network, allowed
from gateway.net.streams import Stream
from gateway.webhooks.answers import AnswerReader, NotHttp, Received

_MAX_RECEIVED = 256 * 1024  # bytes that a receiver may send up to the end of the header section, 1xx included
_MAX_DRAIN = 16 * 1024  # bytes of a body that are read to have its connection back
_READ_SIZE = 16 * 1024
_CONNECT_TIME = 10.0  # seconds for each address but the last
# Below the 5 seconds after which common servers (Node.js) close: a request into a closing connection is lost.
_KEEP_ALIVE = 4.0
_MAX_IDLE = 20  # connections kept, of all origins
# Threads, each for a name that is looked up: more than the calls that wait at a time by default, so that
# names whose servers say nothing hold up no other's. Trio's own 40 are for all of the process.
_MAX_LOOKUPS = 200


class Origin(NamedTuple):
    """Where a URL is served: connections to it can carry requests for each of its URLs."""

    host: str  # ASCII name, or address without brackets
    port: int
    tls: bool


class Failed(Exception):
    """The request failed; the text is for people."""


class Unanswered(Failed):
    """The receiver closed the connection before the first byte of an answer."""


class Connection:
    """One connection. Makes one request at a time."""

    def __init__(self, origin: Origin, stream: Stream | trio.SSLStream[Stream]) -> None:
        self.origin = origin
        self.expires = 0.0  # trio time; of an idle one
        self._stream = stream
        self._socket = (stream.transport_stream if isinstance(stream, trio.SSLStream) else stream).socket
        self._answers = AnswerReader()

    async def ask(self, request: bytes, received: Received) -> None:
        """Send the request, and read until the status is known; more may be in `received`. Raises Failed."""
        self._answers.expect(received)
        # A receiver may refuse early, and close: its answer may be there nevertheless.
        with suppress(trio.BrokenResourceError):
            await self._stream.send_all(request)
        while not received.status:
            if received.size >= _MAX_RECEIVED:
                raise Failed("the answer is longer than any good answer")
            await self._read(received)

    async def drain(self, received: Received) -> None:
        """Read the rest of the body, unless it is long. Raises Failed."""
        end = received.size + _MAX_DRAIN
        while not received.complete:
            if received.size >= end:
                raise Failed("the body of the answer is long")
            await self._read(received)

    async def _read(self, received: Received) -> None:
        try:
            data = await self._stream.receive_some(_READ_SIZE)
        except trio.BrokenResourceError as exc:
            kind = Failed if received.size else Unanswered
            text = f"the connection broke before the answer was complete: {_reason(exc)}"
            raise kind(text) from None
        if not data:
            if received.size:
                raise Failed("the receiver closed the connection before the answer was complete")
            raise Unanswered("the receiver closed the connection without an answer")
        try:
            self._answers.feed(data)
        except NotHttp as exc:
            if not received.complete:  # what follows it only costs the connection
                raise Failed(f"the answer is no proper HTTP: {exc}") from None

    def gone(self) -> bool:
        """Of an idle one: the receiver has closed it, or says what nobody asked for."""
        return self._socket.is_readable()

    def close(self) -> None:
        """Without waiting. TLS gets no closing alert: HTTP says itself where an answer ends."""
        self._socket.close()


class Connections:
    """The idle connections, and the making of new ones."""

    def __init__(self, networks: Sequence[Network], tls: ssl.SSLContext) -> None:
        self._networks, self._tls = networks, tls
        self._tls.set_alpn_protocols(["http/1.1"])
        self._idle: deque[Connection] = deque()  # few; the one that became idle last is at the right
        self._max_idle = _MAX_IDLE
        self._lookups = trio.CapacityLimiter(_MAX_LOOKUPS)

    def take(self, origin: Origin) -> Connection | None:
        """The youngest idle connection to the origin that is still good; the caller keeps or closes it."""
        self._close_expired()
        for connection in [c for c in reversed(self._idle) if c.origin == origin]:
            self._idle.remove(connection)
            if not connection.gone():
                return connection
            connection.close()
        return None

    def keep(self, connection: Connection) -> None:
        """Take back a connection that can be used again."""
        self._close_expired()
        connection.expires = trio.current_time() + _KEEP_ALIVE
        self._idle.append(connection)
        while len(self._idle) > self._max_idle:
            self._idle.popleft().close()

    def close(self) -> None:
        """Close the idle ones, and from now on each that becomes idle."""
        self._max_idle = 0
        while self._idle:
            self._idle.popleft().close()

    def _close_expired(self) -> None:
        now = trio.current_time()
        while self._idle and self._idle[0].expires <= now:
            self._idle.popleft().close()

    async def connect(self, origin: Origin) -> Connection:
        """Connect to the first address of the host that answers, if all are allowed. Raises Failed."""
        stream = await self._connect_to_any(origin.host, origin.port)
        return Connection(origin, await self._start_tls(stream, origin.host) if origin.tls else stream)

    async def _connect_to_any(self, host: str, port: int) -> Stream:
        try:
            found = await self._look_up(host, port)
        except (OSError, UnicodeError) as exc:
            raise Failed(f"the host name {host} cannot be resolved: {_reason(exc)}") from None
        targets = {str(address[0]): (family, address) for family, _, _, _, address in found}
        # One bad address among good ones is reason enough: nobody who means well has such a name.
        bad = [name for name in targets if not allowed(ip_address(name), self._networks)]
        if bad:
            where = ", ".join(bad[:5])
            raise Failed(f"{host} is at {where}: not a public address, and not in an allowed network")
        good = [*targets.values()]
        for family, address in good[:-1]:
            try:
                with trio.fail_after(_CONNECT_TIME):
                    return await _connect(family, address)
            except (Failed, trio.TooSlowError):
                continue
        return await _connect(*good[-1])

    async def _look_up(self, host: str, port: int) -> list[Any]:
        """As getaddrinfo. Raises OSError, UnicodeError."""
        find = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        with suppress(socket.gaierror):
            return find(flags=socket.AI_NUMERICHOST)  # an address, for which nobody has to be asked
        return await trio.to_thread.run_sync(find, limiter=self._lookups, abandon_on_cancel=True)

    async def _start_tls(self, transport: Stream, host: str) -> trio.SSLStream[Stream]:
        stream = trio.SSLStream(transport, self._tls, server_hostname=host, https_compatible=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as exc:
            transport.socket.close()
            raise Failed(f"TLS with {host} failed: {_reason(exc)}") from None
        except BaseException:
            transport.socket.close()
            raise
        return stream


async def _connect(family: int, address: tuple[Any, ...]) -> Stream:
    sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        await sock.connect(address)
        return Stream(sock)
    except OSError as exc:
        sock.close()
        raise Failed(f"cannot connect to {address[0]}, port {address[1]}: {_reason(exc)}") from None
    except BaseException:
        sock.close()
        raise


def _reason(exc: BaseException) -> str:
    """The words of the system or the TLS library, without Python's decoration."""
    cause = exc.__cause__ or exc
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return cause.reason or str(cause)
    if isinstance(cause, OSError):
        if cause.errno is not None and cause.errno > 0:  # below zero: of getaddrinfo
            return os.strerror(cause.errno)
        return cause.strerror or str(cause)
    return str(cause)
