"""The pages' buttons call methods and show the answers: the pages' scripts, run by Node.js."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.web.api.methods import METHODS
from tests.running import AUTH, PATIENCE, Receiver, receiving, running

SCRIPT = Path(__file__).with_name("press_buttons.mjs")
AUTHORIZATION = "Basic " + base64.b64encode(":".join(AUTH).encode()).decode()


@pytest.fixture
async def webhooks() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def test_every_button(tmp_path: Path, webhooks: Receiver) -> None:
    async with running(tmp_path, webhooks) as gateway:
        for msg_id in (1, 2):  # the examples are about them
            await gateway.send("mox@localhost")
            await webhooks.incoming(msg_id)
        urls = [str(gateway.api.base_url.join(name)) for name in METHODS]
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                ["node", str(SCRIPT), AUTHORIZATION, *urls],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr.decode()
    seen = json.loads(done.stdout)
    assert list(seen) == list(METHODS)
    for name, method in METHODS.items():
        answer = seen[name]
        assert answer["status"].split()[:1] == ["200"], (name, answer)
        assert (answer["shown"], answer["prevented"], answer["usable"]) == (True, True, True), name
        if name != "SuppressionList" and method.response is not None:
            assert list(json.loads(answer["body"])) == list(method.response.model_fields)
            assert answer["body"] == "{}" or answer["body"].startswith('{\n  "')
    assert seen["MessagePartGet"]["body"] == "hello\r\n"


async def test_the_page_about_webhooks(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["accounts"]["mox"]["webhook_incoming"] = None

    webhooks.status = 410
    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send()

        async def disabled() -> bool:
            [url] = (await gateway.call("WebhookList", {}))["Webhooks"]
            return bool(url["Disabled"])

        await gateway.until(disabled, True)
        page = str(gateway.api.base_url.join("webhooks"))
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                ["node", str(SCRIPT.with_name("webhook_page.mjs")), AUTHORIZATION, page],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr.decode()
        assert not await disabled()
    seen = json.loads(done.stdout)
    assert webhooks.url in seen["first"]
    assert "its receiver wants no more" in seen["first"]
    assert seen["first"].endswith("Enable")
    assert "delivered: status 410" in seen["test"]
    assert '"Event":"delivered"' in seen["test"].replace(": ", ":")
    assert seen["enable"] == f"{webhooks.url} is called again"
    assert "works, or was not called yet" in seen["last"]
    assert "Enable" not in seen["last"]
