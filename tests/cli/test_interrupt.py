"""Ctrl-C: quiet, while a command is still being imported, which takes most of a second, and later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import click
import pytest
from click.testing import CliRunner

from gateway.cli.main import main
from tests.commands import PATIENCE, environment

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
STALLS = "import sys, time\nsys.stdout.write('importing\\n')\nsys.stdout.flush()\ntime.sleep(600)\n"


def script() -> str:
    """What is installed as `gateway`."""
    module, name = tomllib.loads(PROJECT.read_text())["project"]["scripts"]["gateway"].split(":")
    return f"import sys; from {module} import {name}; sys.exit({name}())"


# The first is imported with the package `gateway`, the second with the command.
@pytest.mark.parametrize("imported", ["pydantic", "sqlalchemy"])
def test_it_ends_quietly(imported: str, tmp_path: Path) -> None:
    (tmp_path / f"{imported}.py").write_text(STALLS)
    own = environment()
    path = os.pathsep.join(filter(None, [str(tmp_path), own.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        [sys.executable, "-c", script(), "serve", "--dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=own | {"PYTHONPATH": path},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE) == ("", "")
        assert process.returncode == 130


def interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def interrupted_prompt(_: object) -> NoReturn:
    try:
        interrupted()
    except KeyboardInterrupt:
        raise click.Abort from None  # as click.prompt does


@pytest.mark.parametrize(
    ("where", "arguments", "status", "said"),
    [
        (interrupted, ["ask"], 130, ""),
        (interrupted_prompt, ["ask"], 130, ""),
        (interrupted, ["--help"], 130, ""),
        (click.Context.abort, ["ask"], 1, "Aborted!\n"),  # an input that ended, for one
    ],
)
def test_later_too(
    where: Callable[..., object],
    arguments: list[str],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asking = click.Command("ask", callback=partial(where, click.Context(main)))
    monkeypatch.setattr(
        "gateway.cli.main._of_plugins", interrupted if "--help" in arguments else lambda: {"ask": asking}
    )
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.output) == (status, said)
