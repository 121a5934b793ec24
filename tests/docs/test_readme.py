"""The README's quick start, run as it stands but for its ports and its virtual environment."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.commands import GATEWAY, PATIENCE, environment
from tests.docs.pages import ROOT
from tests.ports import free_port, free_port_base

README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK_START = README.partition("## Quick start\n")[2].partition("\n## ")[0]
COMMANDS: list[str] = re.findall(r"(?m)^    (.+)$", QUICK_START)


@dataclass
class Terminals:
    """What a reader of the README has: a gateway, a receiver, and a shell."""

    base: int
    webhooks: int  # the receiver's port
    directory: Path

    def line(self, command: str) -> str:
        """A command of the README, for these ports."""
        return (
            command.replace(":1080/", f":{self.base + 80}/")
            .replace("--port 9090", f"--port {self.webhooks}")
            .replace("gateway ", f"{shlex.quote(GATEWAY[0])} ", 1 if command.startswith("gateway ") else 0)
        )

    def environment(self) -> dict[str, str]:
        return environment() | {"GATEWAY_DIR": str(self.directory), "PYTHONUNBUFFERED": "1"}

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", self.line(command)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=self.environment(),
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    @contextmanager
    def running(self, command: str, until: str) -> Iterator[Path]:
        """A command that runs on; the file with what it writes, once `until` is in it."""
        output = self.directory.with_name(re.sub(r"\W+", "-", command)[:30] + ".out")
        with output.open("wb") as file:
            process = subprocess.Popen(
                shlex.split(self.line(command)), stdout=file, stderr=file, env=self.environment()
            )
        try:
            self.wait_for(output, until)
            yield output
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0

    def wait_for(self, output: Path, pattern: str) -> re.Match[str]:
        give_up = time.monotonic() + PATIENCE
        while (found := re.search(pattern, text := output.read_text(encoding="utf-8"))) is None:
            assert time.monotonic() < give_up, f"{pattern} is not in: {text}"
            time.sleep(0.02)
        return found

    def queue(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.run("gateway queue list --json"))["Messages"]
        return found


@pytest.fixture
def terminals(tmp_path: Path) -> Terminals:
    return Terminals(free_port_base(), free_port(), tmp_path / "gw")


def of(pattern: str) -> str:
    """The one command of the quick start that matches."""
    [found] = (command for command in COMMANDS if re.match(pattern, command))
    return found


def test_quick_start(terminals: Terminals) -> None:
    there = terminals
    out = f"http://localhost:{there.webhooks}/"
    serve = f"gateway localserve --port-base {there.base} --webhook-out {out} --webhook-in {out}"
    send = of("curl .*/Send")
    with (
        there.running(serve, "Ctrl-C") as banner,
        there.running(of("gateway webhook-receiver"), "Ctrl-C") as shown,
    ):
        # The line that it prints is the line of the README.
        assert there.line(send) in banner.read_text()
        answer = json.loads(there.run(send))
        assert answer["Submissions"][0]["QueueMsgID"] == 1
        there.wait_for(shown, r'delivered +user@example\.org +"hi"')
        there.wait_for(shown, r'incoming +.*user@example\.org +"hi"\n +message +1 ')
        got = json.loads(there.run(of("curl .*/MessageGet")))
        assert (got["Message"]["Subject"], got["Message"]["Text"]) == ("hi", "hello\n")
        assert "DKIM-Signature: " in there.run(of("curl .*/MessageRawGet"))

        table = re.findall(r"(?m)^\| `(\S+@\S+)` \| .*`(\w+)`", QUICK_START)
        assert [event for _, event in table] == ["failed", "delayed"]
        for recipient, event in table:
            there.run(send.replace("user@example.org", recipient))
            there.wait_for(shown, rf"{event} +{re.escape(recipient)}")
        listed = there.run(of("gateway queue list"))
        waits = re.search(r"vtemperror@example\.org +1 +in (\d\.\d)m", listed)
        assert waits is not None, listed
        assert 7.3 <= float(waits[1]) <= 7.6
        assert "user550" not in listed

        there.run(of("gateway queue hold-rules add"))
        there.run(send)
        assert [message["Hold"] for message in there.queue()] == [True, True]
        there.run(of("gateway queue release"))
        there.wait_for(shown, r"(?s)delivered +user@example\.org.*delivered +user@example\.org")
        there.run(of("gateway queue hold-rules remove"))

        in_an_hour = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
        there.run(send.replace('"Subject"', f'"FutureRelease": "{in_an_hour}", "Subject"'))
        assert [message["Attempts"] for message in there.queue()] == [1, 0]
        assert re.search(r" 0 +in (59\.\d|60\.0)m ", there.run("gateway queue list"))


def test_every_command_of_the_quick_start_is_run() -> None:
    """By the test above; or it is how to start, which a test of the make targets' names covers."""
    run = ("curl .*/(Send|MessageGet|MessageRawGet)", "gateway (queue|webhook-receiver)")
    for command in COMMANDS:
        if not any(re.match(pattern, command) for pattern in run):
            assert command in ("make run", ". .venv/bin/activate"), command


def test_make_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?m)\bmake ([a-z]+)\b", README):
        assert re.search(rf"(?m)^{target}:", makefile), target
