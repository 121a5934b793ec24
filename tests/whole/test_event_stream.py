"""The stream of events, as a WebSocket client meets it: filters, cursors, refusals, ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from gateway.web import event_stream
from tests.running import PATIENCE, Running, receiving, running


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        yield gateway


async def a_key(gateway: Running, *scopes: Any) -> str:
    keys = gateway.gateway.authenticator.keys
    name = f"k{len(await keys.of_account('mox'))}"
    return await keys.add("mox", name, scopes or ("events",))


@asynccontextmanager
async def stream(
    gateway: Running, key: str, query: str = "", **headers: str
) -> AsyncIterator[WebSocketConnection]:
    extra = [(b"Authorization", f"Bearer {key}".encode())]
    extra += [(name.encode(), value.encode()) for name, value in headers.items()]
    address = gateway.gateway.addresses["web"][0]
    path = f"{gateway.gateway.settings.web.base_path}events{query}"
    with trio.fail_after(PATIENCE):
        # Closed by us: trio-websocket leaves a connection open that the server has ended.
        async with (
            await trio.open_tcp_stream(address.host, address.port) as tcp,
            trio.open_nursery() as nursery,
        ):
            yield await wrap_client_stream(nursery, tcp, str(address), path, extra_headers=extra)
            nursery.cancel_scope.cancel()


async def refused(gateway: Running, key: str, query: str = "", **headers: str) -> tuple[int, str]:
    """As a WebSocket client asks; what is answered in place of the upgrade."""
    asked = {
        "Authorization": f"Bearer {key}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = await gateway.api.get(f"events{query}", headers=asked | headers, auth=lambda request: request)
    return answer.status_code, answer.json()["Message"]


async def told(socket: WebSocketConnection) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await socket.get_message())
    assert set(answer) == {"Cursor", "Event"}
    return answer


async def test_as_it_happens_and_from_a_cursor_on(gateway: Running) -> None:
    await gateway.send("before@example.org")
    await gateway.webhooks.event("delivered", Recipient="before@example.org")
    key = await a_key(gateway)
    async with stream(gateway, key) as socket:
        start = await told(socket)
        assert start["Event"] is None
        await gateway.send("user@example.org")
        delivered, incoming = await told(socket), await told(socket)
        if "Event" not in delivered["Event"]:  # what was delivered to localserve itself came in, too
            delivered, incoming = incoming, delivered
        # What the webhook says, and EventList.
        assert delivered["Event"] == await gateway.webhooks.event("delivered", Recipient="user@example.org")
        assert incoming["Event"]["Meta"]["RcptTo"] == "user@example.org"
    listed = await gateway.call("EventList", {"Cursor": start["Cursor"]})
    assert len(listed["Events"]) == 2
    assert delivered["Event"] in listed["Events"]
    assert incoming["Event"] in listed["Events"]
    first, second = sorted((delivered, incoming), key=lambda one: listed["Events"].index(one["Event"]))
    async with stream(gateway, key, f"?cursor={first['Cursor']}") as socket:
        assert (await told(socket))["Cursor"] == first["Cursor"]
        assert await told(socket) == second
    async with stream(gateway, key, "?cursor=&events=incoming") as socket:  # all that are kept
        assert await told(socket) == {"Cursor": "", "Event": None}
        assert (await told(socket))["Event"]["Meta"]["RcptTo"] == "before@example.org"
        assert await told(socket) == incoming


@pytest.mark.parametrize(
    ("query", "headers", "status", "said"),
    [
        ("?cursor=wrong!", {}, 400, "is none that a page ended with"),
        ("?events=exploded", {}, 400, "events: 'exploded' is none of delivered, "),
        ("?since=1", {}, 400, "there is no parameter 'since'"),
        ("?events=" + "x" * 3000, {}, 400, "more than 2000 bytes"),
        ("", {"Origin": "https://evil.example"}, 403, "another site"),
    ],
)
async def test_refusals(
    gateway: Running, query: str, headers: dict[str, str], status: int, said: str
) -> None:
    found, message = await refused(gateway, await a_key(gateway), query, **headers)
    assert found == status
    assert said in message


async def test_logins(gateway: Running) -> None:
    assert await refused(gateway, "nonsense") == (401, "no such API key, or it has expired or was revoked")
    status, message = await refused(gateway, await a_key(gateway, "send", "read"))
    assert (status, message[:43]) == (403, "the stream of events needs the scope events")
    await gateway.send()  # the gateway goes on


async def test_too_many(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "MAX_OF_ACCOUNT", 1)
    key = await a_key(gateway)
    async with stream(gateway, key) as first:
        await told(first)
        assert (await refused(gateway, key))[0] == 503
    monkeypatch.setattr(event_stream, "MAX_OF_ACCOUNT", 2)
    async with stream(gateway, key) as second:
        await told(second)


async def closed(socket: WebSocketConnection) -> tuple[int, str]:
    reason = None
    while reason is None:
        try:
            await socket.get_message()
        except ConnectionClosed as end:
            reason = end.reason
    return reason.code, reason.reason or ""


async def test_a_client_that_speaks(gateway: Running) -> None:
    async with stream(gateway, await a_key(gateway)) as socket:
        await told(socket)
        await socket.send_message("hello")
        assert await closed(socket) == (1003, "this stream takes no messages")


async def test_a_key_that_is_revoked(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "CHECK", 0.0)
    monkeypatch.setattr(event_stream, "POLL", 0.05)
    async with stream(gateway, await a_key(gateway)) as socket:
        await told(socket)
        await gateway.gateway.authenticator.keys.revoke("mox", "k0")
        code, reason = await closed(socket)
        assert (code, reason[:29]) == (1008, "the login is no longer valid:")


async def test_a_slow_reader(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent away with a reason, and its cursor is good."""
    monkeypatch.setattr(event_stream, "SLOW", -1.0)
    async with stream(gateway, await a_key(gateway)) as socket:
        start = await told(socket)
        assert await closed(socket) == (1013, "you read too slowly; connect again with the last cursor")
    monkeypatch.setattr(event_stream, "SLOW", 10.0)
    await gateway.send()
    async with stream(gateway, await a_key(gateway), f"?cursor={start['Cursor']}&events=delivered") as socket:
        await told(socket)
        assert (await told(socket))["Event"]["Event"] == "delivered"


async def test_the_gateway_stops(tmp_path: Path) -> None:
    async with receiving() as webhooks:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:

                async def watch(task_status: trio.TaskStatus[None]) -> None:
                    async with stream(gateway, key) as socket:
                        await told(socket)
                        task_status.started()
                        code, _ = await closed(socket)
                        assert code == 1001

                async with running(tmp_path, webhooks) as gateway:
                    key = await a_key(gateway)
                    await nursery.start(watch)
