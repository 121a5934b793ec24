"""`gateway tail`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from gateway.cli.tail import line
from gateway_mox import webhook
from tests.hooks.helpers import an_event
from tests.running import PATIENCE, Running, receiving, running


async def lines(process: trio.Process, count: int) -> list[str]:
    assert process.stdout is not None
    data = b""
    with trio.fail_after(PATIENCE):
        while data.count(b"\n") < count:
            piece = await process.stdout.receive_some(4096)
            assert piece, data
            data += piece
    return data.decode().splitlines()


async def start(gateway: Running, *options: str, **environment: str) -> trio.Process:
    command = [sys.executable, "-m", "gateway", "tail", "--dir", str(gateway.directory), *options]
    process: trio.Process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, env={**os.environ, **environment}
    )
    return process


async def end(process: trio.Process, number: signal.Signals = signal.SIGINT) -> None:
    process.send_signal(number)
    with trio.fail_after(PATIENCE):
        assert await process.wait() == 0


async def test_for_people_and_for_scripts(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        await gateway.send("user@example.org")
        await webhooks.event("delivered")
        await webhooks.incoming()
        people = await start(gateway, "--cursor", "")
        shown = await lines(people, 2)
        [first] = [text for text in shown if " delivered    user@example.org  hi QueueMsgID=1" in text]
        [second] = [text for text in shown if " incoming     " in text]
        assert second.endswith("@localhost -> user@example.org  hi MsgID=1")
        assert "\x1b[" not in first  # no terminal
        await end(people)
        keys = gateway.gateway.authenticator.keys
        assert await keys.of_account("mox") == ()  # its key is gone with it
        key = await keys.add("mox", "mine", ["events"])
        scripts = await start(
            gateway,
            "--json",
            "--cursor",
            "",
            "--event",
            "delivered",
            "--url",
            str(gateway.api.base_url),
            GATEWAY_KEY=key,
        )
        [found] = await lines(scripts, 1)
        told = json.loads(found)
        assert told["Event"] == await webhooks.event("delivered")
        listed = await gateway.call("EventList", {"Cursor": told["Cursor"], "Events": ["delivered"]})
        assert listed["Events"] == []
        await end(scripts)


async def test_what_ends_it(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        terminated = await start(gateway, "--cursor", "")
        await gateway.send("user@example.org")
        await lines(terminated, 1)
        await end(terminated, signal.SIGTERM)
        unread = await start(gateway, "--cursor", "")
        assert unread.stdout is not None
        await unread.stdout.aclose()  # as with `gateway tail | head`
        with trio.fail_after(PATIENCE):
            assert await unread.wait() == 1
        assert await gateway.gateway.authenticator.keys.of_account("mox") == ()


async def test_a_wrong_key(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        process = await start(gateway, "--url", str(gateway.api.base_url), GATEWAY_KEY="wrong")
        with trio.fail_after(PATIENCE):
            assert await process.wait() == 1


def test_a_line() -> None:
    payload: dict[str, Any] = webhook.outgoing(an_event()) | {
        "Event": "failed",
        "SMTPCode": 550,
        "SMTPEnhancedCode": "5.1.1",
        "Error": "no\x1b[2J such user",
    }
    shown = line(payload)
    assert "\x1b[31m" in shown  # red
    assert "\x1b[2J" not in shown
    assert shown.endswith("550 5.1.1 no [2J such user")
