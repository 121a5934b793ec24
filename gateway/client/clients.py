"""The clients: `Client` blocks, `TrioClient` is for trio. This is the only module that knows httpx."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Self

import httpx
import trio

from gateway.client.endpoints import SEND, A, Endpoint, Q
from gateway.client.exchange import NotReached, Prepared, next_wait, prepare, read_answer
from gateway.web.api.models import SendRequest, SendResult

TRIES = 5
TIMEOUT = 30.0  # seconds, for connecting and for each piece of an answer

_Step = Generator[float, httpx.Response | httpx.TransportError, httpx.Response]


class _Login(httpx.Auth):
    """An API key alone, or as the password of an address."""

    def __init__(self, secret: str, login: str) -> None:
        basic = httpx.BasicAuth(login, secret)
        self._header = basic._auth_header if login else f"Bearer {secret}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = self._header
        yield request


def _steps(call: Prepared, tries: int) -> _Step:
    """What both clients do with the results of their tries: yields waits, 0 at first, and returns the answer.

    Raises NotReached.
    """
    wait, done = 0.0, 0
    while True:
        result = yield wait
        done += 1
        if isinstance(result, httpx.Response):
            status, retry_after = result.status_code, result.headers.get("Retry-After", "")
            again = None if status in (200, 400) else next_wait(call, done, status, retry_after, sent=True)
            if again is None or done >= tries:
                return result
        else:
            sent = not isinstance(result, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            again = next_wait(call, done, None, "", sent=sent)
            if again is None or done >= tries:
                raise NotReached(f"{call.path}: {type(result).__name__}: {result}") from result
        wait = again


class Client:
    """Calls the API; threads may share one. Use it as a context manager, or `close` it."""

    def __init__(self, url: str, secret: str, login: str = "", *, tries: int = TRIES) -> None:
        """`url` is the API's, such as "https://mail.example.org/webapi/v0/". `secret` is an API key; or, with
        an address of the account as `login`, its password."""
        self._tries = tries
        self._http = httpx.Client(base_url=url, auth=_Login(secret, login), timeout=TIMEOUT)

    def send(self, message: SendRequest, *, idempotency_key: str = "") -> SendResult:
        """As `call` with SEND."""
        return self.call(SEND, message, idempotency_key=idempotency_key)

    def call(self, endpoint: Endpoint[Q, A], request: Q, *, idempotency_key: str = "") -> A:
        """The answer. What fails for now is tried again, a Send with one Idempotency-Key in all tries.

        Raises ApiError, NotReached.
        """
        call = prepare(endpoint, request, idempotency_key)
        steps = _steps(call, self._tries)
        wait = next(steps)
        while True:
            time.sleep(wait)
            result: httpx.Response | httpx.TransportError
            try:
                result = self._http.post(call.path, content=call.body, headers=call.headers)
            except httpx.TransportError as exc:
                result = exc
            try:
                wait = steps.send(result)
            except StopIteration as done:
                answer: httpx.Response = done.value
                return read_answer(endpoint, answer.status_code, answer.content)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TrioClient:
    """The same for trio: use it as an async context manager."""

    def __init__(self, url: str, secret: str, login: str = "", *, tries: int = TRIES) -> None:
        self._tries = tries
        self._http = httpx.AsyncClient(base_url=url, auth=_Login(secret, login), timeout=TIMEOUT)

    async def send(self, message: SendRequest, *, idempotency_key: str = "") -> SendResult:
        """As `call` with SEND."""
        return await self.call(SEND, message, idempotency_key=idempotency_key)

    async def call(self, endpoint: Endpoint[Q, A], request: Q, *, idempotency_key: str = "") -> A:
        """As `Client.call`."""
        call = prepare(endpoint, request, idempotency_key)
        steps = _steps(call, self._tries)
        wait = next(steps)
        while True:
            await trio.sleep(wait)
            result: httpx.Response | httpx.TransportError
            try:
                result = await self._http.post(call.path, content=call.body, headers=call.headers)
            except httpx.TransportError as exc:
                result = exc
            try:
                wait = steps.send(result)
            except StopIteration as done:
                answer: httpx.Response = done.value
                return read_answer(endpoint, answer.status_code, answer.content)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
