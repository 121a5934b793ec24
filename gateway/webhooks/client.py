"""Makes one HTTP request of a webhook call, to a receiver that may do anything.

An HTTP/1.1 client of our own, for one kind of request: a general one takes many times the CPU time, and
leaves no place to check the address that is connected to. target.py reads URLs, answers.py answers,
connections.py connects.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import trio

from gateway.net.addresses import Network
from gateway.webhooks.answers import Received
from gateway.webhooks.connections import Connection, Connections, Failed, Unanswered
from gateway.webhooks.target import Target, target

_DRAIN_TIME = 5.0  # seconds for the rest of an answer: the status is known, the call is decided

_MAX_ERROR = 1000  # characters
# What a database may refuse or a log be confused by. Line ends and tabs may stay in an answer.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_HEADER_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.1
_HEADER_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request came to, whether anybody answered or not."""

    success: bool
    code: int  # HTTP status; 0 where no answer was had
    error: str  # for people; "" on success
    response: str  # from the start of the body: at most 512 bytes of it
    duration: float  # seconds
    retry_after: str = ""  # the receiver's field of that name
    sent: bool = True  # or it was tried: the failure is the URL's or the receiver's


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
        self._connections = Connections(tuple(allow_networks), tls or ssl.create_default_context())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connections.close()

    async def post(self, url: str, body: bytes, headers: Headers, *, timeout: float | None = None) -> Answer:
        """POST `body`; `headers` are all but Host and Content-Length.

        Never raises for what the URL, the network or the receiver does: that becomes the result. `timeout`
        (seconds) shortens the client's own.

        A request is sent a second time in one case: a kept connection was closed without a byte of an answer.
        Nearly always the receiver had closed it before the request came (RFC 9112, 9.3.1); if not, it sees a
        call twice, as it may whenever an answer is lost.
        """
        limit = self._timeout if timeout is None else min(timeout, self._timeout)
        start = trio.current_time()
        received = Received()
        error = f"no answer within {limit:g} s"
        with trio.move_on_at(start + limit) as scope:
            try:
                await self._exchange(url, body, headers, received, scope)
            except Failed as exc:
                error = str(exc)
        # The status decides the call; whatever happens to the body after it only ends the excerpt.
        code = received.status
        return Answer(
            success=200 <= code < 300,
            code=code,
            error=_describe(code) if code else clean(error),
            response=_CONTROL.sub("�", received.excerpt.decode("utf-8", "replace")),
            duration=trio.current_time() - start,
            retry_after=received.retry_after,
        )

    async def _exchange(
        self, url: str, body: bytes, headers: Headers, received: Received, scope: trio.CancelScope
    ) -> None:
        """Raises Failed."""
        where = target(url)
        request = _request(where, body, headers)
        kept = self._connections.take(where.origin)
        if kept is not None:
            try:
                await self._ask(kept, request, received, scope)
                return
            except Unanswered:
                pass
        await self._ask(await self._connections.connect(where.origin), request, received, scope)

    async def _ask(
        self, connection: Connection, request: bytes, received: Received, scope: trio.CancelScope
    ) -> None:
        """Raises Failed."""
        try:
            await connection.ask(request, received)
            if not received.complete:
                scope.deadline = min(scope.deadline, trio.current_time() + _DRAIN_TIME)
                await connection.drain(received)
        finally:
            if received.reusable:
                self._connections.keep(connection)
            else:
                connection.close()


def clean(error: str) -> str:
    """The text of an error, whoever wrote it, as one line of bearable length."""
    return " ".join(_CONTROL.sub(" ", error[:_MAX_ERROR]).split())


def _describe(code: int) -> str:
    if 200 <= code < 300:
        return ""
    if 300 <= code < 400:
        return f"HTTP status {code}: redirects are not followed"
    return f"HTTP status {code}"


def _request(where: Target, body: bytes, headers: Headers) -> bytes:
    """The whole request, to be sent at once. Raises Failed."""
    lines = [where.start]
    authorization = where.authorization
    for name, value in headers:
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value) or value != value.strip():
            raise Failed(
                f"the request cannot be sent, for a wrong {name.decode('ascii', 'replace')}: "
                "a header has no line ends or control characters, and no spaces at its ends"
            )
        if name.lower() == b"authorization":
            authorization = b""
        lines.append(b"%s: %s\r\n" % (name, value))
    return b"%s%sContent-Length: %d\r\n\r\n%s" % (b"".join(lines), authorization, len(body), body)
