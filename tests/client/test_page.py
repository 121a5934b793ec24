"""docs/client.md: its application sends and hears of everything, and its examples work."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

from gateway.client import Client
from tests.docs.pages import code, text
from tests.ports import free_port
from tests.running import PATIENCE, receiving, running

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
APPLICATION, CALLS, STREAM = code("python", text("client.md"))


async def test_the_page(tmp_path: Path) -> None:
    assert len([line for line in APPLICATION.splitlines() if line.strip()]) <= 20
    port = free_port()

    def change(raw: dict[str, Any]) -> None:
        for name in ("webhook_outgoing", "webhook_incoming"):
            target = {"url": f"http://127.0.0.1:{port}/", "secrets": [SECRET]}
            raw["accounts"]["mox"][name] = target

    async with receiving() as webhooks, running(tmp_path, webhooks, change=change) as gateway:
        url = str(gateway.api.base_url)
        key = await gateway.gateway.authenticator.keys.add("mox", "app", ["send", "queue", "events"])
        environment = {"GATEWAY_URL": url, "GATEWAY_KEY": key, "PORT": str(port), "WEBHOOK_SECRET": SECRET}
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", APPLICATION], stdout=subprocess.PIPE, env={**os.environ, **environment}
        )
        assert process.stdout is not None
        shown = b""
        try:
            with trio.fail_after(PATIENCE):
                while shown.count(b"\n") < 3:
                    line = await process.stdout.receive_some(4096)
                    assert line, "the application ended"
                    shown += line
        finally:
            process.kill()
            await process.wait()
            await process.stdout.aclose()
        lines = shown.decode().splitlines()
        assert lines[0].startswith("sent <")
        assert "delivered ada@example.com  {'order': '1001'}" in lines
        assert any(line.startswith("mail from mox+") for line in lines)

        found: dict[str, Any] = {}
        exec(compile(CALLS, "docs/client.md", "exec"), found)
        await gateway.send("user550@example.org")
        await gateway.until(partial(_failed, found["failed"], url, key), ["user550"])

        exec(compile(STREAM, "docs/client.md", "exec"), found)
        seen: list[str] = []
        found["print"] = lambda cursor, name, flush: seen.append(name)
        with trio.move_on_after(PATIENCE) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(found["watch"], url, key, "")
                while len(seen) < 2:  # noqa: ASYNC110 - the page's function sets no event
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert not scope.cancelled_caught
        assert seen == ["delivered", "failed"]


async def _failed(failed: Any, url: str, key: str) -> list[str]:
    def ask() -> list[str]:
        with Client(url, key) as client:
            return [message.RecipientLocalpart for message in failed(client)]

    return await trio.to_thread.run_sync(ask)
