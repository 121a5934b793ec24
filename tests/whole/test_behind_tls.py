"""Behind a proxy that ends TLS: the stream of events over wss, and the link to unsubscribe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from gateway.client import Streamed, follow
from tests.cli.test_tail import end, lines, start
from tests.net.authority import root
from tests.running import PATIENCE, Receiver, Running, running


@asynccontextmanager
async def behind_tls(directory: Path, webhooks: Receiver) -> AsyncIterator[tuple[str, Running]]:
    """Where the proxy is, and the gateway behind it."""
    target: list[tuple[str, int]] = []

    async def pump(source: trio.abc.Stream, sink: trio.abc.Stream, done: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(65_536):
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        done.cancel()

    async def serve(client: trio.abc.Stream) -> None:
        async with client, await trio.open_tcp_stream(*target[0]) as server, trio.open_nursery() as nursery:
            nursery.start_soon(pump, client, server, nursery.cancel_scope)
            nursery.start_soon(pump, server, client, nursery.cancel_scope)

    tls = root().issue("localhost").server_context()
    listeners = await trio.open_ssl_over_tcp_listeners(0, tls, host="127.0.0.1", https_compatible=True)
    inner = listeners[0].transport_listener
    assert isinstance(inner, trio.SocketListener)
    port = inner.socket.getsockname()[1]

    def change(raw: dict[str, Any]) -> None:
        raw["web"]["base_url"] = f"https://localhost:{port}/"

    async with running(directory, webhooks, change=change) as gateway, trio.open_nursery() as nursery:
        web = gateway.gateway.addresses["web"][0]
        target.append((web.host, web.port))
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield f"https://localhost:{port}/", gateway
        nursery.cancel_scope.cancel()


async def test_tail_over_wss(tmp_path: Path, webhooks: Receiver) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(root().pem)
    async with behind_tls(tmp_path, webhooks) as (url, gateway):
        key = await gateway.gateway.authenticator.keys.add("mox", "mine", ["events"])
        options = ("--url", f"{url}webapi/v0/", "--cursor", "", "--event", "delivered")
        process = await start(gateway, *options, GATEWAY_KEY=key, SSL_CERT_FILE=str(ca_file))
        for number in (1, 2):
            await gateway.send(f"u{number}@example.org")
            [*_, shown] = await lines(process, 1)
            assert f" delivered    u{number}@example.org" in shown
        await end(process)


async def test_a_proxy_that_nobody_vouches_for_is_told_nothing(
    tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async def never(_streamed: Streamed) -> None:
        raise AssertionError

    async with behind_tls(tmp_path, webhooks) as (url, gateway):
        key = await gateway.gateway.authenticator.keys.add("mox", "mine", ["events"])
        with trio.fail_after(PATIENCE), trio.CancelScope() as enough:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: follow(f"{url}webapi/v0/", key, tell=never, cursor=""))
                while "certificate verify failed" not in caplog.text:  # noqa: ASYNC110 - nothing tells
                    await trio.sleep(0.05)
                enough.cancel()


async def test_one_click_over_https(tmp_path: Path, webhooks: Receiver) -> None:
    async with behind_tls(tmp_path, webhooks) as (url, gateway):
        await gateway.send("user@example.org", List="news", Unsubscribe=True)
        [arrived] = await webhooks.incoming()
        message = message_from_bytes(await gateway.raw(arrived["Meta"]["MsgID"]), policy=policy.default)
        link = str(message["List-Unsubscribe"]).strip("<>")
        assert link.startswith(url)
        assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        async with httpx.AsyncClient(verify=root().client_context(), timeout=PATIENCE) as provider:
            assert "Unsubscribe" in (await provider.get(link)).text
            assert (await gateway.call("SuppressionList", {}))["Suppressions"] == []
            done = await provider.post(link, data={"List-Unsubscribe": "One-Click"})
            assert (done.status_code, done.history) == (200, [])
        told = await webhooks.event("unsubscribed")
        assert told["Recipient"] == "user@example.org"
