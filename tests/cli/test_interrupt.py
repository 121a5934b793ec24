"""Ctrl-C while a command is still being imported, which takes most of a second."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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
