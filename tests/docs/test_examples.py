"""The packages in examples/plugins: they build, their own tests pass, and they do what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tomli

from gateway.config.settings import Settings
from gateway.plugins import load_plugins
from gateway.store.listing import Filter
from tests.docs.pages import ROOT, code, tables
from tests.docs.test_configuration import check
from tests.running import Receiver, free_port_base, receiving, running

FAILOVER = ROOT / "examples" / "plugins" / "failover"
README = (FAILOVER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the package is installed in, built as anyone would, without network."""
    base = tmp_path_factory.mktemp("failover")
    shutil.copytree(FAILOVER, base / "source", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index",
         "--disable-pip-version-check", "--target", base / "installed", base / "source")  # fmt: skip
    return base / "installed"


def _run(*command: str | Path, **variables: str) -> None:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=os.environ | variables, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def installed(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(installation)


@pytest.fixture
async def webhooks() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def test_its_own_tests(installation: Path, tmp_path: Path) -> None:
    test = shutil.copy(FAILOVER / "test_failover.py", tmp_path)
    _run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test, PYTHONPATH=str(installation))


@pytest.mark.usefixtures("installed")
def test_its_readme(tmp_path: Path) -> None:
    [example] = code("toml", README)
    raw: dict[str, Any] = {"hostname": "mail.example.org", **tomli.loads(example)}
    hooks = load_plugins(Settings.model_validate(raw), tmp_path)
    assert hooks.for_account("").plugins("route") == ("example.failover", "mox.routing")
    [rows] = tables(README)
    check(import_module("gateway_failover").FailoverSettings, rows)


@pytest.mark.usefixtures("installed")
async def test_a_message_takes_the_other_way(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["plugins"]["sets"].insert(0, "failover")
        raw["plugin_sets"]["failover"] = {"plugins": ["example.failover"]}
        order = {"transports": {".example.com": ["nobody", "localserve"]}}
        raw["plugin"]["example.failover"] = order
        nobody = {"type": "smtp", "host": "127.0.0.1", "port": free_port_base(), "tls": "none"}
        raw["transports"]["nobody"] = nobody

    async with running(tmp_path, webhooks, change=change) as gateway:
        answer = await gateway.send("ada@mail.example.com")
        message_id = answer["Submissions"][0]["QueueMsgID"]
        await webhooks.event("delayed", QueueMsgID=message_id, Attempt=1)
        await gateway.gateway.operations.schedule(
            Filter(), gateway.gateway.clock.now() - timedelta(seconds=1)
        )
        await webhooks.event("delivered", QueueMsgID=message_id, Attempt=2)
        _, attempts = await gateway.message(message_id)
        assert [attempt.transport for attempt in attempts] == ["nobody", "localserve"]
        # Others are not concerned.
        await gateway.send("ada@example.org")
        await webhooks.event("delivered", Recipient="ada@example.org", Attempt=1)
