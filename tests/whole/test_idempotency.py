"""A gateway that dies between the commit and the answer: the repeated call sends nothing again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import PATIENCE, environment, localserve
from tests.ports import free_port_base
from tests.running import AUTH

# `gateway localserve`, which kills itself where it would answer a Send.
DIES = """
import os, signal
from gateway.cli.main import main
from gateway.web.api import send

async def dies(call, request, send=send.send):
    await send(call, request)
    os.kill(os.getpid(), signal.SIGKILL)

from gateway.web import app
from gateway.web.api import methods
from dataclasses import replace
methods.METHODS["Send"] = replace(methods.METHODS["Send"], handler=dies)
main()
"""
REQUEST = {
    "To": [{"Address": "one@example.org"}, {"Address": "two@example.org"}],
    "Subject": "once",
    "Text": "x",
}


def queued(gateway: Any) -> list[dict[str, Any]]:
    found = []
    for state in ((), ("--retired",)):
        found += json.loads(gateway.command("queue", "list", "--json", *state).stdout)["Messages"]
    return [message for message in found if message["Subject"] == "once"]


def test_killed_between_commit_and_answer(tmp_path: Path) -> None:
    directory, base = tmp_path / "gw", free_port_base()
    request = REQUEST | {"Text": "line of a message\n" * 20_000}  # its content is in a file
    headers = {"Idempotency-Key": "order 1001"}
    arguments = ("localserve", "--dir", str(directory), "--port-base", str(base))
    dying = subprocess.Popen(
        [sys.executable, "-c", DIES, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        text=True,
    )
    assert dying.stdout is not None
    try:
        while "Ctrl-C" not in dying.stdout.readline():
            assert dying.poll() is None
        api = f"http://localhost:{base + 80}/webapi/v0/"
        with httpx.Client(base_url=api, auth=AUTH, timeout=PATIENCE) as client:
            with pytest.raises(httpx.TransportError):
                client.post("Send", json=request, headers=headers)
            assert dying.wait(PATIENCE) < 0
    finally:
        dying.kill()
        dying.wait()
        dying.stdout.close()
    with (
        localserve(directory) as gateway,
        httpx.Client(base_url=gateway.api, auth=AUTH, timeout=PATIENCE) as client,
    ):
        answers = [client.post("Send", json=request, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].json() == answers[1].json()
        messages = queued(gateway)
        ids = [s["QueueMsgID"] for s in answers[0].json()["Submissions"]]
        assert sorted(message["ID"] for message in messages) == sorted(ids)
        assert {message["MessageID"] for message in messages} == {answers[0].json()["MessageID"]}
        other = client.post("Send", json=request | {"Text": "other"}, headers=headers)
        assert other.json()["Code"] == "badIdempotencyKey"
