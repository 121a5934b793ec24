"""Builds and installs the distribution next to this file, as anyone would with a distribution of plugins."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.running import Receiver, receiving

collect_ignore = ["distribution"]  # its tests are run where it is installed: tests/packages
SOURCE = Path(__file__).parent / "distribution"


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the distribution's wheel is installed in; made once, without network."""
    base = tmp_path_factory.mktemp("acme")
    shutil.copytree(SOURCE, base / "source", ignore=shutil.ignore_patterns("__pycache__"))
    _pip("wheel", "--no-build-isolation", "--wheel-dir", base / "wheels", base / "source")
    [wheel] = (base / "wheels").glob("*.whl")
    _pip("install", "--target", base / "installed", wheel)
    return base / "installed"


def _pip(command: str, *arguments: str | Path) -> None:
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    done = subprocess.run(
        [*pip, command, "--no-deps", "--no-index", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(autouse=True)
def installed(installation: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For this test only, the distribution is among those that are installed."""
    monkeypatch.syspath_prepend(installation)
    return installation


@pytest.fixture
async def webhooks() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver
