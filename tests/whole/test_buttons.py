"""The button on each method's page calls it and shows the answer: the pages' script, run by Node.js."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from gateway.web.api.methods import METHODS
from tests.running import AUTH, PATIENCE, Receiver, receiving, running

SCRIPT = Path(__file__).with_name("press_buttons.mjs")


@pytest.fixture
async def webhooks() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def test_every_button(tmp_path: Path, webhooks: Receiver) -> None:
    authorization = "Basic " + base64.b64encode(":".join(AUTH).encode()).decode()
    async with running(tmp_path, webhooks) as gateway:
        for msg_id in (1, 2):  # the examples are about them
            await gateway.send("mox@localhost")
            await webhooks.incoming(msg_id)
        urls = [str(gateway.api.base_url.join(name)) for name in METHODS]
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                ["node", str(SCRIPT), authorization, *urls],
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
