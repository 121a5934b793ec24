"""A gateway that is told to stop ends, whatever its plugins do."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from gateway.ending import MARGIN
from tests.commands import PATIENCE, Localserve, localserve
from tests.running import AUTH, write_configuration
from tests.under_load import processes, wait_for, wait_for_workers

GRACE = 1
BEGIN = """
import logging, threading, time, trio
from gateway import hookimpl
log = logging.getLogger("acme")

"""
PLUGINS = {
    "shielded": """
@hookimpl(limit=600)
async def submission():
    log.warning("it hangs")
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()
""",
    "on-leaving": """
from contextlib import asynccontextmanager

@asynccontextmanager
async def around():
    yield
    log.warning("it hangs")
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

@hookimpl
def around_attempt():
    return around()
""",
    "service": """
async def for_ever(gateway, *, task_status):
    log.warning("it hangs")
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

@hookimpl
def services():
    return {"watch": for_ever}
""",
    "blocking": """
@hookimpl
def submission():
    log.warning("it hangs")
    while True:
        time.sleep(1)
""",
    "own-thread": """
def for_ever():
    while True:
        time.sleep(1)

@hookimpl
def start():
    log.warning("it hangs")
    threading.Thread(target=for_ever, name="acme's").start()
""",
}
BY_ITSELF = {
    "thread": """
@hookimpl(thread=True, limit=600)
def submission():
    log.warning("it hangs")
    while True:
        time.sleep(1)
""",
    "stop": """
@hookimpl
async def stop():
    log.warning("it hangs")
    await trio.sleep_forever()
""",
}
WELL = """
@hookimpl
def stop():
    pass
"""
SAID = {
    "shielded": "plugin 'acme.hangs', hook 'submission', which does not let itself be cancelled",
    "on-leaving": "plugin 'acme.hangs', hook 'around_attempt', which does not let itself be cancelled",
    "service": "plugin 'acme.hangs', service 'watch', which does not let itself be cancelled",
    "blocking": "plugin 'acme.hangs', hook 'submission', which blocks the event loop",
    "own-thread": 'the thread "acme\'s" (',
}


def with_plugin(directory: Path, source: str, workers: int = 1) -> Path:
    """A configuration with a plugin of one file, which hangs."""
    config = write_configuration(directory, "http://127.0.0.1:1/")
    (directory / "plugins").mkdir()
    (directory / "plugins" / "acme.hangs.py").write_text(BEGIN + source)
    sets = r'(?m)^sets = \["default", (.*)\]$'
    text, found = re.subn(sets, r'sets = ["hangs", "default", \1]\ndirectory = "plugins"', config.read_text())
    assert found == 1
    hangs = '\n[plugin_sets.hangs]\nplugins = ["acme.hangs"]\n'
    config.write_text(f"grace = {GRACE}\nworkers = {workers}\n{text}{hangs}")
    return directory


def send(running: Localserve) -> None:
    """Hands a message in, whatever is answered."""
    request = {"To": [{"Address": "user@example.org"}], "Text": "hi"}

    def post() -> None:
        with suppress(httpx.HTTPError):  # it stops meanwhile
            httpx.post(running.api + "Send", json=request, auth=AUTH, timeout=PATIENCE)

    threading.Thread(target=post, daemon=True).start()


def stop(running: Localserve) -> int:
    """The exit status, once the plugin hangs."""
    send(running)
    if "stop" not in (running.directory / "plugins" / "acme.hangs.py").read_text():
        wait_for(lambda: "it hangs" in running.log.read_text(), running.log.read_text)
    return running.stop()


@pytest.mark.parametrize("how", PLUGINS)
def test_it_ends_without_a_plugin_that_does_not(how: str, tmp_path: Path) -> None:
    directory = with_plugin(tmp_path / "gw", PLUGINS[how])
    with localserve(directory) as running:
        assert stop(running) == 1
        log = running.log.read_text()
        said = f"after the grace period of {GRACE} s and {MARGIN:g} s more there is still {SAID[how]}"
        assert f"CRITICAL gateway.ending: {said}" in log
        assert "Traceback" not in log


@pytest.mark.parametrize("how", BY_ITSELF)
def test_where_its_limit_helps_the_gateway_ends_as_always(how: str, tmp_path: Path) -> None:
    with localserve(with_plugin(tmp_path / "gw", BY_ITSELF[how])) as running:
        stop(running)
        log = running.log.read_text()
        assert "plugin 'acme.hangs', hook" in log or how == "thread"
        assert "Traceback" not in log


def test_what_was_taken_is_there_at_the_next_start(tmp_path: Path) -> None:
    directory = with_plugin(tmp_path / "gw", PLUGINS["on-leaving"])
    with localserve(directory) as running:
        assert stop(running) == 1
    (directory / "plugins" / "acme.hangs.py").write_text(BEGIN + WELL)
    with localserve(directory) as running:
        assert "user@example.org" in running.command("queue", "show", "1").stdout
        assert running.stop() == 0


@pytest.mark.parametrize("how", ["shielded", "blocking"])
def test_a_worker_too(how: str, tmp_path: Path) -> None:
    """The supervisor waits until the worker has said why, and leaves none behind."""
    with localserve(with_plugin(tmp_path / "gw", PLUGINS[how], workers=2)) as running:
        workers = processes(running)
        assert stop(running) == 1
        log = running.log.read_text()
        [number] = re.findall(r"worker (\d) CRITICAL gateway\.ending: .*" + re.escape(SAID[how]), log)
        assert f"gateway: worker {number} ended with status 1; its log says more" in log
        assert not any(worker.is_running() for worker in workers)


def test_a_worker_that_does_not_even_end_itself(tmp_path: Path) -> None:
    config = write_configuration(tmp_path / "gw", "http://127.0.0.1:1/")
    config.write_text(f"grace = {GRACE}\nworkers = 2\n{config.read_text()}")
    with localserve(tmp_path / "gw") as running:
        wait_for_workers(running)
        [(number, pid)] = re.findall(r"worker (1) serves, process (\d+)", running.log.read_text())
        os.kill(int(pid), signal.SIGSTOP)
        assert running.stop() == 1
        assert f"gateway: worker {number} did not end, and was killed" in running.log.read_text()
    with localserve(tmp_path / "gw") as running:
        assert running.stop() == 0


def test_a_second_signal_ends_it_at_once_also_while_the_loop_is_blocked(tmp_path: Path) -> None:
    with localserve(with_plugin(tmp_path / "gw", PLUGINS["blocking"])) as running:
        send(running)
        wait_for(lambda: "it hangs" in running.log.read_text(), running.log.read_text)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert running.process.poll() is None
        assert running.stop() == 1
        assert "CRITICAL" not in running.log.read_text()
