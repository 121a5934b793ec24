"""The processes that are measured: a gateway, and the yardsticks."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil

from benchmarks.load import post
from gateway.cli.common import ask
from gateway.cli.localserve import LOGIN, PASSWORD, PORTS, first_start
from gateway.datadir import control_socket

INHERITED: Mapping[str, str] = {}  # an environment with nothing of its own
STARTS = 5  # of a process that does not get its port
workers = 1  # processes of each gateway: as the command line has it
AUTHORIZATION = "Basic " + base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
TEXT = "All work and no play makes a dull message. " * 23  # about 1 kB


@dataclass(frozen=True, slots=True)
class Running:
    """A process that is measured, and where it listens."""

    address: tuple[str, int]
    process: subprocess.Popen[bytes]

    def cpu(self) -> float:
        """Seconds of processor time that it and its workers took so far."""
        own = psutil.Process(self.process.pid)
        times = [one.cpu_times() for one in (own, *own.children(recursive=True))]
        return float(sum(time.user + time.system for time in times))

    def rss(self) -> int:
        """Resident memory, bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


@dataclass(frozen=True, slots=True)
class GatewayProcess(Running):
    """A gateway; its `address` is the web API's."""

    directory: Path
    smtp: tuple[str, int]
    submissions: tuple[str, int]  # TLS from the first byte

    @property
    def web(self) -> tuple[str, int]:
        return self.address

    @property
    def control(self) -> str:
        """The path of the control socket."""
        return str(control_socket(self.directory / "data"))

    def wait_for_control(self) -> None:
        """It listens there after everywhere else."""
        deadline = time.monotonic() + 60
        while not Path(self.control).exists() and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)

    def ask(self, command: str, **request: Any) -> Any:
        """What it answers to a command on its control socket. Raises CommandError."""
        return ask(self.directory, command, request)


@contextmanager
def gateway(
    webhooks: str = "http://127.0.0.1:9/",
    *,
    settings: str = "",
    prepare: Callable[[Path], None] | None = None,
    at_least: int = 1,
    profile: Path | None = None,
    environment: Mapping[str, str] = INHERITED,
) -> Iterator[GatewayProcess]:
    """A gateway for development in a directory of its own; `settings` is appended to its configuration.

    `at_least`: workers, if the command line has fewer. `prepare` is given the data directory before the
    start. `profile`: the file of benchmarks.profiled; the gateway is one process then. `environment`: what
    its environment has beside ours.
    """
    directory = Path(tempfile.mkdtemp(prefix="gateway-bench-"))
    log = directory / "log"
    stopped_well = False
    try:
        first_start(directory, None, None, webhooks + "out", webhooks + "in")
        config = directory / "gateway.toml"
        config.write_text(_edited(config.read_text(), settings, 1 if profile else max(workers, at_least)))
        if prepare is not None:
            prepare(directory / "data")
        process, base = _started(
            partial(_start_gateway, directory, log, profile, environment), PORTS.values()
        )
        smtp, submissions, web = (
            ("127.0.0.1", base + PORTS[name]) for name in ("smtp", "submissions", "web")
        )
        try:
            running = GatewayProcess(web, process, directory, smtp, submissions)
            running.wait_for_control()
            yield running
        finally:
            process.terminate()
            stopped_well = process.wait(timeout=60) == 0
    finally:
        if not stopped_well and log.exists():
            sys.stderr.write(log.read_text()[-4000:])
        shutil.rmtree(directory)


def _start_gateway(
    directory: Path, log: Path, profile: Path | None, environment: Mapping[str, str], base: int
) -> subprocess.Popen[bytes]:
    program = ["benchmarks.profiled", str(profile)] if profile else ["gateway"]
    command = [sys.executable, "-m", *program, "localserve", "--dir", str(directory)]
    command += ["--port-base", str(base)]
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})


def _edited(config: str, settings: str, workers: int) -> str:
    """The configuration with tables of `settings` in place of those of the same name.

    At the end no benchmark waits for what is under way.
    """
    for table in re.findall(r"^\[[^\[\]]+\]$", settings, re.MULTILINE):
        config = re.sub(rf"^{re.escape(table)}\n(?:[^\[\n].*\n|\n)*", "", config, flags=re.MULTILINE)
    return f"grace = 0.5\nworkers = {workers}\n{config}\n{settings}"


@contextmanager
def quart_yardstick() -> Iterator[tuple[str, int]]:
    """An empty Quart-Trio endpoint on stock hypercorn-trio: POST / answers {}."""
    with script("benchmarks.empty_endpoint") as running:
        yield running.address


@contextmanager
def script(module: str, *arguments: str, environment: Mapping[str, str] = INHERITED) -> Iterator[Running]:
    """A module that is run with a port, on which it then listens, and `arguments`."""
    process, port = _started(partial(_start_script, module, arguments, environment), [0])
    try:
        yield Running(("127.0.0.1", port), process)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _start_script(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], port: int
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", module, str(port), *arguments]
    return subprocess.Popen(command, env={**os.environ, **environment})


def _started(
    start: Callable[[int], subprocess.Popen[bytes]], offsets: Collection[int]
) -> tuple[subprocess.Popen[bytes], int]:
    """A process that listens on a port plus each of `offsets`, and that port: another one where somebody
    took one of them before it could."""
    for _ in range(STARTS):
        port = _free_base()
        process = start(port)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if _listening(process) >= {port + offset for offset in offsets}:
                return process, port
            time.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait()
        if _is_free_base(port):
            break  # it has another reason
    raise RuntimeError(f"{process.args!r} does not start: it ended with status {process.returncode}")


def _listening(process: subprocess.Popen[bytes]) -> set[int]:
    """The ports of the process itself: what answers on one may be another."""
    try:
        opened = psutil.Process(process.pid).net_connections("tcp")
    except psutil.Error:  # it ended
        return set()
    return {one.laddr.port for one in opened if one.status == psutil.CONN_LISTEN}


def _free_base() -> int:
    """A port that is free, as are those that a gateway adds to it.

    Below those that the system gives to outgoing connections, of which benchmarks have thousands.
    """
    while True:
        base = random.randrange(10_000, 30_000)
        if _is_free_base(base):
            return base


def _is_free_base(base: int) -> bool:
    return all(_is_free(base + offset) for offset in (0, *PORTS.values()))


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as listeners do
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def batch_request(number: int, messages: int = 500) -> bytes:
    """A SendBatch, as JSON."""
    request = [
        {"To": [{"Address": f"u{number}-{n}x@example.org"}], "Subject": f"Message {n}", "Text": TEXT}
        for n in range(messages)
    ]
    body = json.dumps({"Messages": request}).encode()
    return post("/webapi/v0/SendBatch", body, "application/json", AUTHORIZATION)


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
