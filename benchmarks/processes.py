"""The processes that are measured: a gateway, and the yardsticks."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import psutil

from benchmarks.load import post

AUTHORIZATION = "Basic " + base64.b64encode(b"mox@localhost:moxmoxmox").decode()
TEXT = "All work and no play makes a dull message. " * 23  # about 1 kB


@dataclass(frozen=True, slots=True)
class GatewayProcess:
    directory: Path
    smtp: tuple[str, int]
    web: tuple[str, int]
    process: subprocess.Popen[bytes]

    def rss(self) -> int:
        """Resident memory, bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def command(self, *arguments: str) -> str:
        """What a `gateway` command answers."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments, "--dir", str(self.directory)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout


@contextmanager
def gateway(webhooks: str = "http://127.0.0.1:9/", *, settings: str = "") -> Iterator[GatewayProcess]:
    """A gateway for development in a directory of its own; `settings` is appended to its configuration."""
    directory = Path(tempfile.mkdtemp(prefix="gateway-bench-"))
    base = _free_base()
    log = (directory / "log").open("wb")
    command = [sys.executable, "-m", "gateway", "localserve", "--dir", str(directory)]
    command += ["--port-base", str(base), "--webhook-out", webhooks + "out", "--webhook-in", webhooks + "in"]
    if settings:
        _run_once(command, directory)
        config = directory / "gateway.toml"
        config.write_text(_edited(config.read_text(), settings))
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        smtp, web = ("127.0.0.1", base + 25), ("127.0.0.1", base + 80)
        _wait_for(web, process, directory / "log")
        yield GatewayProcess(directory, smtp, web, process)
    finally:
        process.terminate()
        process.wait(timeout=60)
        log.close()
        if process.returncode:
            sys.stderr.write((directory / "log").read_text()[-4000:])
        shutil.rmtree(directory)


def _run_once(command: list[str], directory: Path) -> None:
    """Have the first start write the configuration."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (directory / "gateway.toml").exists():
        time.sleep(0.05)
        if process.poll() is not None:
            raise RuntimeError("the gateway did not start")
    process.kill()
    process.wait()


def _edited(config: str, settings: str) -> str:
    """The configuration with tables of `settings` in place of those of the same name."""
    for table in re.findall(r"^\[[^\[\]]+\]$", settings, re.MULTILINE):
        config = re.sub(rf"^{re.escape(table)}\n(?:[^\[\n].*\n|\n)*", "", config, flags=re.MULTILINE)
    return config + "\n" + settings


@contextmanager
def quart_yardstick() -> Iterator[tuple[str, int]]:
    """An empty Quart-Trio endpoint on stock hypercorn-trio: POST / answers {}."""
    with _script("benchmarks.empty_endpoint") as address:
        yield address


@contextmanager
def _script(module: str, *arguments: str) -> Iterator[tuple[str, int]]:
    port = _free_base()
    process = subprocess.Popen([sys.executable, "-m", module, str(port), *arguments])
    try:
        _wait_for(("127.0.0.1", port), process, None)
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.wait(timeout=30)


def _free_base() -> int:
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        if port < 60000:
            return port


def _wait_for(address: tuple[str, int], process: subprocess.Popen[bytes], log: Path | None) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(log.read_text() if log else "the process did not start")
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nothing listens on {address}")


def send_request(number: int, to: str = "u{number}x@example.org", **fields: object) -> bytes:
    """A Send as an application makes it: a form, 1 kB of text."""
    request = {
        "To": [{"Address": to.format(number=number)}],
        "Subject": f"Message {number}",
        "Text": TEXT,
        **fields,
    }
    body = urlencode({"request": json.dumps(request)}).encode()
    return post("/webapi/v0/Send", body, "application/x-www-form-urlencoded", AUTHORIZATION)


PROCESSORS = os.cpu_count() or 1
