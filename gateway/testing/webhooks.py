"""A receiver of webhooks on loopback, which keeps what it gets and answers as it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from gateway.testing.beside import beside
from gateway.web.server import HttpSettings, serve_http


@dataclass(frozen=True, slots=True)
class Webhook:
    """One call, as it came. Names of headers are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class WebhookReceiver:
    """`calls`: what came, in order. `status`: what it answers."""

    url: str
    status: int = 200
    calls: list[Webhook] = field(default_factory=list)
    _changed: trio.Event = field(default_factory=trio.Event)

    async def wait_for(self, count: int = 1, *, seconds: float = 20.0) -> list[Webhook]:
        """The calls so far, once there are as many. Raises trio.TooSlowError."""
        with trio.fail_after(seconds):
            while len(self.calls) < count:
                await self._changed.wait()
        return list(self.calls)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """As an ASGI application."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await send(
            {"type": "http.response.start", "status": self.status, "headers": [(b"content-length", b"0")]}
        )
        await send({"type": "http.response.body", "body": b""})
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.calls.append(Webhook(scope["path"], headers, body))
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def webhook_receiver() -> AsyncIterator[WebhookReceiver]:
    """One that listens on a free port of 127.0.0.1 while the body runs."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    receiver = WebhookReceiver(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/")
    async with beside() as nursery:
        settings = HttpSettings(grace=0.5)
        await nursery.start(partial(serve_http, listeners, receiver.app, settings, stopping=trio.Event()))
        yield receiver
