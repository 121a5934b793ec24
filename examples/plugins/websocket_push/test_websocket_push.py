import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from gateway_websocket_push import PushSettings, WebsocketPush
from pydantic import ValidationError
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from gateway.testing import MailGateway, permanent


class Dashboard:
    """A WebSocket server: `texts` has what it got, `tokens` what came with each connection."""

    def __init__(self) -> None:
        self.port = 0
        self.tokens: list[str] = []
        self._send, self.texts = trio.open_memory_channel[dict[str, Any]](100)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        async def handle(request: WebSocketRequest) -> None:
            self.tokens.append(dict(request.headers).get(b"authorization", b"").decode())
            connection = await request.accept()
            try:
                while True:
                    await self._send.send(json.loads(await connection.get_message()))
            except ConnectionClosed:
                pass

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_websocket, handle, "127.0.0.1", self.port, None)
            self.port = server.port
            yield
            nursery.cancel_scope.cancel()

    async def wait_for(self, event: str) -> dict[str, Any]:
        with trio.fail_after(20):
            while (got := await self.texts.receive())["event"] != event:
                pass
        return got


def settings(port: int) -> dict[str, Any]:
    own = {"url": f"ws://127.0.0.1:{port}/mail", "token": "secret", "on_error": {"event": "defer"}}
    return {"websocketpush": own}


async def test_events_are_pushed(mail_gateway: MailGateway) -> None:
    dashboard = Dashboard()
    async with (
        dashboard.up(),
        mail_gateway(WebsocketPush(), settings=settings(dashboard.port)) as gateway,
    ):
        gateway.transport().answer(permanent(550, "no such user"), to="gone@*")
        await gateway.deliver(to=["ada@example.com", "gone@example.com"])
        delivered, failed = await dashboard.wait_for("delivered"), await dashboard.wait_for("failed")
        assert delivered["recipient"] == "ada@example.com"
        assert (failed["recipient"], failed["code"], failed["error"]) == (
            "gone@example.com",
            550,
            "no such user",
        )
        assert delivered["id"] < failed["id"]
        await gateway.receive(b"From: <somebody@example.com>\r\nSubject: hello\r\n\r\nhi\r\n")
        assert (await dashboard.wait_for("incoming"))["subject"] == "hello"
        assert dashboard.tokens == ["Bearer secret"]


async def test_what_happens_while_the_server_is_away_is_pushed_later(mail_gateway: MailGateway) -> None:
    dashboard = Dashboard()
    async with dashboard.up():
        pass  # only to know a port that nobody listens on afterwards
    more = settings(dashboard.port)
    more["websocketpush"]["limits"] = {"event": 0.1}
    async with mail_gateway(WebsocketPush(), settings=more) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(gateway.deliver)
        await trio.sleep(0.3)  # the hook fails meanwhile
        async with dashboard.up():
            await dashboard.wait_for("delivered")
        nursery.cancel_scope.cancel()


def test_wrong_settings() -> None:
    with pytest.raises(ValidationError):
        PushSettings(url="https://example.com/")
