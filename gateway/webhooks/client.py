"""Makes one HTTP request of a webhook call, to a receiver that may do anything.

The only module that knows the HTTP client libraries: httpx reads URLs, httpcore speaks HTTP/1.1. httpx's own
client would cost twice the time of a call and leaves no place to check the address that is connected to.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
from collections.abc import AsyncIterable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

import httpcore
import httpx
import trio

from gateway.webhooks.addresses import Network, allowed

MAX_EXCERPT = 512  # bytes of an answer that are kept
_MAX_DRAIN = 16 * 1024  # bytes of an answer that are read to have its connection back
_DRAIN_TIME = 5.0  # seconds for that: the status is known, the call is decided
_MAX_RECEIVED = 256 * 1024  # bytes in all that a receiver may send to one request, 1xx answers included
_READ_SIZE = 16 * 1024
_CONNECT_TIME = 10.0  # seconds for each address but the last
# Below the 5 seconds after which common servers (Node.js) close: a request into a closing connection is lost.
_KEEP_ALIVE = 4.0
_MAX_IDLE = 20  # connections kept open

_MAX_ERROR = 1000  # characters
# What a database may refuse or a log be confused by. Line ends and tabs may stay in an answer.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request came to, whether anybody answered or not."""

    success: bool
    code: int  # HTTP status; 0 where no answer was had
    error: str  # for people; "" on success
    response: str  # from the start of the body: at most 512 bytes of it
    duration: float  # seconds


class WebhookClient:
    """Makes requests, keeping connections for a while. An async context manager.

    `timeout` is for a whole request, in seconds. `allow_networks` are networks that may be called although
    they are not public: by default loopback, private, link-local, multicast and reserved addresses are
    refused, judged by the address that is connected to. `tls` replaces the system's certificates.

    Redirects are not followed. Proxies of the environment are not used: they would hide the address.
    """

    def __init__(
        self,
        *,
        timeout: float = 60.0,
        allow_networks: Sequence[Network] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout = timeout
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            max_connections=None,  # the sender limits its calls
            max_keepalive_connections=_MAX_IDLE,
            keepalive_expiry=_KEEP_ALIVE,
            network_backend=_Backend(tuple(allow_networks)),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.aclose()

    async def post(self, url: str, body: bytes, headers: Headers, *, timeout: float | None = None) -> Answer:
        """POST `body`; `headers` are all but Host and Content-Length.

        Never raises for what the URL, the network or the receiver does: that becomes the result. `timeout`
        (seconds) shortens the client's own.
        """
        limit = self._timeout if timeout is None else min(timeout, self._timeout)
        start = trio.current_time()
        code, excerpt = 0, bytearray()
        response: httpcore.Response | None = None
        error = f"no answer within {limit:g} s"
        with trio.move_on_at(start + limit):
            try:
                response = await self._pool.handle_async_request(_request(url, body, headers))
            except _Failed as exc:
                error = str(exc)
            except httpcore.RemoteProtocolError as exc:
                error = f"the answer is no proper HTTP: {exc}"
            except httpcore.LocalProtocolError as exc:
                error = f"the request cannot be sent, for a wrong Authorization or URL: {exc}"
        if response is not None:
            # The status decides the call; whatever happens to the body after it only ends the excerpt.
            code, error = response.status, _describe(response.status)
            with trio.move_on_at(min(start + limit, trio.current_time() + _DRAIN_TIME)):
                await _read_excerpt(response, excerpt)
        return Answer(
            success=200 <= code < 300,
            code=code,
            error=clean(error),
            response=_CONTROL.sub("�", excerpt.decode("utf-8", "replace")),
            duration=trio.current_time() - start,
        )


def _request(url: str, body: bytes, headers: Headers) -> httpcore.Request:
    """Raises _Failed."""
    target, own = _target(url)
    names = {name.lower() for name, _ in headers}
    return httpcore.Request(
        "POST",
        target,
        headers=[
            *(header for header in own if header[0].lower() not in names),
            *headers,
            (b"Content-Length", b"%d" % len(body)),
        ],
        content=body,
    )


def clean(error: str) -> str:
    """The text of an error, whoever wrote it, as one line of bearable length."""
    return " ".join(_CONTROL.sub(" ", error[:_MAX_ERROR]).split())


async def _read_excerpt(response: httpcore.Response, excerpt: bytearray) -> None:
    """Reads the body if it is short, so that its connection can be used again, and keeps its start."""
    try:
        connection = response.extensions["network_stream"]
        assert isinstance(connection, _Stream)
        assert isinstance(response.stream, AsyncIterable)
        connection.read_no_more_than(_MAX_DRAIN)
        # Not left early by us, for httpcore's generators within would be left to the garbage collector.
        async for chunk in response.stream:
            excerpt += chunk[: MAX_EXCERPT - len(excerpt)]
    except (_Failed, httpcore.RemoteProtocolError):
        pass
    finally:
        # After the last byte this gives the connection back, else it closes it.
        await response.aclose()


def _describe(code: int) -> str:
    if 200 <= code < 300:
        return ""
    if 300 <= code < 400:
        return f"HTTP status {code}: redirects are not followed"
    return f"HTTP status {code}"


@lru_cache(maxsize=1024)
def _target(url: str) -> tuple[httpcore.URL, Headers]:
    """The URL as it is requested, and the headers that it gives: Host, and Authorization for user:password@.

    Raises _Failed.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as exc:
        raise _Failed(f"the URL is wrong: {exc}") from None
    if parsed.scheme not in ("http", "https") or not parsed.raw_host or b"%" in parsed.raw_host:
        raise _Failed("the URL is wrong: it must start with http:// or https:// and a host name")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise _Failed(f"the URL is wrong: there is no port {parsed.port}")
    own = [(b"Host", parsed.netloc)]
    if parsed.userinfo:
        user_and_password = f"{parsed.username}:{parsed.password}".encode()
        own.append((b"Authorization", b"Basic " + base64.b64encode(user_and_password)))
    return httpcore.URL(
        scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path
    ), own


class _Failed(Exception):
    """The request failed; the text is for people."""


class _Backend(httpcore.AsyncNetworkBackend):
    """Connects for the pool: to allowed addresses only. Time is limited around the whole request."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise _Failed(f"the host name {host} cannot be resolved: {_reason(exc)}") from None
        targets = {str(address[0]): (family, address) for family, _, _, _, address in found}
        good = [t for name, t in targets.items() if allowed(ip_address(name), self._networks)]
        if not good:
            where = ", ".join([*targets][:5])
            raise _Failed(f"{host} is at {where}: not a public address, and not in an allowed network")
        for family, address in good[:-1]:
            try:
                with trio.fail_after(_CONNECT_TIME):
                    return await _connect(family, address)
            except (_Failed, trio.TooSlowError):
                continue
        return await _connect(*good[-1])

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


async def _connect(family: int, address: tuple[Any, ...]) -> _Stream:
    sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        await sock.connect(address)
        return _Stream(trio.SocketStream(sock))
    except OSError as exc:
        sock.close()
        raise _Failed(f"cannot connect to {address[0]}, port {address[1]}: {_reason(exc)}") from None
    except BaseException:
        sock.close()
        raise


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that stops listening to a receiver that talks too much."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream
        self._left = _MAX_RECEIVED  # bytes that may come before the next request

    def read_no_more_than(self, size: int) -> None:
        """From now on to the next request."""
        self._left = size

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left <= 0:
            raise _Failed("the answer is longer than any good answer")
        try:
            data = bytes(await self._stream.receive_some(min(max_bytes, _READ_SIZE)))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise _Failed(f"the connection broke before the answer was complete: {_reason(exc)}") from None
        self._left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._left = _MAX_RECEIVED
        try:
            await self._stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            # The pool then looks for an answer nevertheless: a receiver may refuse early, and close.
            raise httpcore.WriteError(_reason(exc)) from None

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        assert isinstance(self._stream, trio.SocketStream)  # no TLS within TLS: there are no proxies
        stream = trio.SSLStream(
            self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True
        )
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as exc:
            await trio.aclose_forcefully(stream)
            raise _Failed(f"TLS with {server_hostname} failed: {_reason(exc)}") from None
        return _Stream(stream)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # asked of an idle connection: then the receiver has closed it
            stream = self._stream
            transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
            return transport.socket.is_readable()
        return None


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
