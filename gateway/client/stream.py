"""The stream of events (docs/webapi.md), followed over breaks: each time it goes on from its cursor."""

from __future__ import annotations

import base64
import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Never
from urllib.parse import SplitResult, urlencode, urlsplit

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, wrap_client_stream

from gateway.client.exchange import ApiError

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before a connection is tried again
MAX_MESSAGE = 16 * 1024 * 1024  # bytes: incoming mail has its text in its event

CONNECT = 30.0  # seconds, to connect, and for the handshake

_TRY_AGAIN = (429, 502, 503, 504)  # statuses
_ENDS = (HandshakeError, ConnectionClosed, OSError, trio.BrokenResourceError, trio.TooSlowError, ssl.SSLError)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Streamed:
    """An event, and the cursor with which the stream goes on after it. No payload: where it begins."""

    cursor: str
    payload: dict[str, Any] | None


async def follow(
    url: str,
    secret: str,
    login: str = "",
    *,
    tell: Callable[[Streamed], Awaitable[None]],
    cursor: str | None = None,
    events: Sequence[str] = (),
) -> Never:
    """Tells the account's events, for ever: from now on, or after `cursor` ("": all that are kept).

    `url`, `secret` and `login` are as `Client` takes them. Raises ApiError for what another try does not
    mend, and what `tell` raises.
    """
    parts = urlsplit(url)
    base = parts._replace(scheme={"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)).geturl()
    credentials = base64.b64encode(f"{login}:{secret}".encode()).decode()
    authorization = f"Basic {credentials}" if login else f"Bearer {secret}"
    headers = [(b"Authorization", authorization.encode())]
    wait = FIRST_WAIT
    while True:
        query = {} if cursor is None else {"cursor": cursor}
        if events:
            query["events"] = ",".join(events)
        told: list[Streamed] = []  # the last
        refused: list[Exception] = []  # what `tell` raised; an OSError of its own is no broken connection

        async def tell_and_remember(
            streamed: Streamed, told: list[Streamed] = told, refused: list[Exception] = refused
        ) -> None:
            try:
                await tell(streamed)
            except Exception as exc:
                refused.append(exc)
                raise
            told[:] = [streamed]

        ended = await _once(urlsplit(f"{base}events?{urlencode(query)}"), headers, tell_and_remember)
        if refused:
            raise refused[0]
        if isinstance(ended, ConnectionRejected) and ended.status_code not in _TRY_AGAIN:
            raise _refusal(ended)
        if not isinstance(ended, _ENDS):
            raise ended
        if told:
            cursor, wait = told[0].cursor, FIRST_WAIT
        log.warning("the stream of events broke off: %s; again in %g s", _why(ended), wait)
        await trio.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)


async def _once(
    url: SplitResult, headers: list[tuple[bytes, bytes]], tell: Callable[[Streamed], Awaitable[None]]
) -> Exception:
    """Follow one connection to its end, which is answered: out of a nursery it would come as a group."""
    host, tls = url.hostname or "", url.scheme == "wss"
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    try:
        with trio.fail_after(CONNECT):
            stream = await (_connect_tls(host, url.port or 443) if tls else _connect(host, url.port or 80))
    except (OSError, trio.TooSlowError, trio.BrokenResourceError) as exc:
        return exc
    try:
        # Closed by us: trio-websocket leaves a connection open that the other side has ended.
        async with stream, trio.open_nursery() as nursery:
            with trio.fail_after(CONNECT):
                socket = await wrap_client_stream(
                    nursery,
                    stream,
                    url.netloc.rpartition("@")[2],
                    f"{url.path}?{url.query}",
                    extra_headers=headers,
                    max_message_size=MAX_MESSAGE,
                )
            while True:
                message = json.loads(await socket.get_message())
                await tell(Streamed(message["Cursor"], message["Event"]))
    except ExceptionGroup as group:
        ended: Exception = group
        while isinstance(ended, ExceptionGroup):  # the first says why
            ended = ended.exceptions[0]
        return ended


async def _connect(host: str, port: int) -> trio.SocketStream:
    return await trio.open_tcp_stream(host, port)


async def _connect_tls(host: str, port: int) -> trio.SSLStream[trio.SocketStream]:
    """With the handshake: trio-websocket would wait for ever for one that fails."""
    stream = await trio.open_ssl_over_tcp_stream(host, port)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _why(ended: Exception) -> str:
    if isinstance(ended, ConnectionRejected):
        return f"status {ended.status_code}"
    if isinstance(ended, ConnectionClosed):
        return (ended.reason.reason if ended.reason is not None else None) or "it was closed"
    return str(ended) or str(ended.__cause__ or "") or type(ended).__name__  # TLS's own words are the cause


def _refusal(exc: ConnectionRejected) -> ApiError:
    try:
        said = json.loads(exc.body or b"")
        return ApiError(exc.status_code, said["Code"], said["Message"])
    except (ValueError, KeyError, TypeError):
        return ApiError(exc.status_code, "", "the stream of events was refused")
