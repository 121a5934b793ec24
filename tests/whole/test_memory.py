"""What a Send with a large file costs, in a process of its own: less than 150 MB at its peak, in any form."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import psutil
import pytest

from gateway.cli.common import ask
from tests.commands import PATIENCE, Localserve, localserve, start
from tests.ports import free_port_base
from tests.running import AUTH

SIZE = 25_000_000  # bytes
MOST = 150_000_000  # bytes
FILE = os.urandom(SIZE)
REQUEST: dict[str, Any] = {
    "To": [{"Address": "user@example.org"}],
    "Subject": "large",
    "Text": "see the file",
}


def with_data() -> str:
    return json.dumps(
        REQUEST | {"AttachedFiles": [{"Name": "large.bin", "Data": base64.b64encode(FILE).decode()}]}
    )


def body(form: str) -> dict[str, Any]:
    match form:
        case "json":
            return {"content": with_data(), "headers": {"Content-Type": "application/json"}}
        case "urlencoded":
            content_type = {"Content-Type": "application/x-www-form-urlencoded"}
            return {"content": urlencode({"request": with_data()}), "headers": content_type}
        case "multipart, in the object":
            return {"files": {"request": (None, with_data())}}
        case _:
            request = json.dumps(REQUEST | {"SaveSent": "Sent" in form})
            return {"data": {"request": request}, "files": {"attachedfile": ("large.bin", FILE)}}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Localserve]:
    """One that takes messages of 50 MB, and keeps them in its queue: what is measured is the Send."""
    directory = tmp_path_factory.mktemp("memory") / "gw"
    start(directory, "--port-base", free_port_base()).stop()
    config = directory / "gateway.toml"
    text = config.read_text()
    assert "max_message_size" not in text
    text = re.sub(r"(?m)^\[queue\]\n", "", text)
    config.write_text(text + "\n[queue]\nmax_message_size = 52428800\n")
    with localserve(directory) as gateway:
        ask(directory, "queue/hold-rules/add", {})
        with httpx.Client(base_url=gateway.api, auth=AUTH, timeout=PATIENCE) as client:
            assert client.post("Send", json=REQUEST).status_code == 200  # what is loaded once is
        yield gateway


def high_water(pid: int) -> int:
    """The most resident memory since it was last forgotten, bytes."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize(
    "form", ["json", "urlencoded", "multipart", "multipart, in the object", "multipart, with a copy in Sent"]
)
def test_a_large_file(gateway: Localserve, form: str) -> None:
    process = psutil.Process(gateway.process.pid)
    with httpx.Client(base_url=gateway.api, auth=AUTH, timeout=PATIENCE) as client:
        before = process.memory_info().rss
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # forget the high-water mark: proc(5)
        answer = client.post("Send", **body(form))
        assert answer.status_code == 200, answer.text
        assert high_water(process.pid) - before < MOST
        assert not process.children()  # no worker takes more beside it
        [submission] = answer.json()["Submissions"]
        message = client.post("QueueGet", json={"QueueMsgID": submission["QueueMsgID"]}).json()["Message"]
        assert message["Size"] > SIZE * 4 / 3
