"""The command `gateway` in processes of its own, as its users run it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port_base
from tests.running import PATIENCE as PATIENCE

GATEWAY = [str(Path(sys.executable).with_name("gateway"))]


def environment() -> dict[str, str]:
    """Without what a developer's own settings could change."""
    unwanted = ("GATEWAY_DIR", "NO_COLOR", "XDG_CONFIG_HOME", "PYTHONWARNINGS")
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def gateway(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [*GATEWAY, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment() | variables,
        check=False,
    )


@dataclass
class Localserve:
    """`gateway localserve` in its process."""

    process: subprocess.Popen[bytes]
    directory: Path
    smtp_port: int
    web_port: int
    banner: str
    log: Path  # what it wrote to standard error

    @property
    def api(self) -> str:
        return f"http://localhost:{self.web_port}/webapi/v0/"

    def command(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Another command of the same directory."""
        return gateway(*arguments, "--dir", self.directory)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def launch(directory: Path, *options: object) -> tuple[subprocess.Popen[bytes], Path, Path]:
    """Start it, no more; its process, and the files of its standard output and error."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    output = directory.with_name(directory.name + ".out")
    log = directory.with_name(directory.name + ".log")
    with output.open("wb") as out, log.open("ab") as err:
        process = subprocess.Popen(
            [*GATEWAY, "localserve", "--dir", str(directory), *map(str, options)],
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env=environment() | {"SSL_CERT_FILE": os.devnull},  # authorities are long to read, and not asked
        )
    return process, output, log


def start(directory: Path, *options: object) -> Localserve:
    """Start it and wait until it serves. Fails with what it wrote when it does not."""
    process, output, log = launch(directory, *options)
    give_up = time.monotonic() + PATIENCE
    while "Ctrl-C" not in (banner := output.read_text()):
        if process.poll() is not None or time.monotonic() > give_up:
            process.kill()
            raise AssertionError(f"localserve did not start: {banner}{log.read_text()}")
        time.sleep(0.01)
    smtp = re.search(r"SMTP +\S+:(\d+)", banner)
    web = re.search(r"Web API +http://\S+:(\d+)/", banner)
    assert smtp is not None, banner
    assert web is not None, banner
    return Localserve(process, directory, int(smtp[1]), int(web[1]), banner, log)


@contextmanager
def localserve(directory: Path, *options: object) -> Iterator[Localserve]:
    """A gateway that is gone afterwards; on free ports, unless a configuration is there."""
    if "--port-base" not in options and not (directory / "gateway.toml").exists():
        options = (*options, "--port-base", free_port_base())
    running = start(directory, *options)
    try:
        yield running
    finally:
        running.kill()
