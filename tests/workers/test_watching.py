"""A worker that stands still is killed, and started again."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.cli.test_ending import PLUGINS, send, with_plugin
from tests.commands import Localserve, localserve
from tests.under_load import WORKERS, Load, Webhooks, configured, processes, wait_for, wait_for_workers

FORKS = """
import os, time
from pathlib import Path
from gateway import hookimpl

@hookimpl
def start():
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    with Path("PIDS").open("a") as file:
        print(pid, file=file)
"""


def timeout_of(seconds: int, directory: Path) -> Path:
    config = directory / "gateway.toml"
    config.write_text(f"worker_timeout = {seconds}\n{config.read_text()}")
    return directory


def may_write(process: psutil.Process, directory: Path) -> bool:
    """Whether it has the lock of the database, by what the system says."""
    inode = (directory / "data" / "gateway.db-lock").stat().st_ino
    held = re.compile(rf"\d+: FLOCK +ADVISORY +WRITE +{process.pid} +\S+:{inode} ")
    return any(held.match(line) for line in Path("/proc/locks").read_text().splitlines())


def starts(running: Localserve) -> int:
    return len(re.findall("worker . serves", running.log.read_text()))


def test_one_that_is_stopped(tmp_path: Path, webhooks: Webhooks) -> None:
    """While it may write: nobody else can, for as long as it lives."""
    directory = timeout_of(3, configured(tmp_path / "gw", webhooks.url))
    with localserve(directory) as running:
        wait_for_workers(running)
        load = Load(running.api)
        load.wait_for_more()
        victim = processes(running)[0]

        def stopped_with_the_lock() -> bool:
            victim.resume()
            time.sleep(0.001)
            victim.suspend()
            return may_write(victim, directory)

        wait_for(stopped_with_the_lock, running.log.read_text)
        wait_for(lambda: not victim.is_running(), running.log.read_text)
        wait_for_workers(running)
        load.wait_for_more()
        load.stop()
        assert running.stop() == 0
    assert re.search(r"worker \d gave no sign of life for 3 s, and is killed", running.log.read_text())


def test_one_that_a_plugin_blocks(tmp_path: Path) -> None:
    directory = timeout_of(3, with_plugin(tmp_path / "gw", PLUGINS["blocking"], workers=2))
    with localserve(directory) as running:
        wait_for_workers(running, 2)
        send(running)
        wait_for(lambda: starts(running) == 3, running.log.read_text)
        assert running.stop() == 0
        log = running.log.read_text()
    number = re.findall(r"worker (\d) gave no sign of life for 3 s, and is killed", log)
    assert number == re.findall(r"worker (\d) ended with status -9; .* it is started again", log)
    assert re.search(r'File ".*/acme\.hangs\.py", line \d+ in submission', log)


def test_one_that_ended_is_noticed_at_once(tmp_path: Path) -> None:
    """Also where a process that a plugin forked lives on, with all that the worker had open."""
    pids = tmp_path / "pids"
    directory = with_plugin(tmp_path / "gw", FORKS.replace("PIDS", str(pids)), workers=2)
    try:
        with localserve(directory) as running:
            wait_for_workers(running, 2)
            processes(running)[0].kill()
            wait_for(lambda: starts(running) == 3, running.log.read_text)
            assert running.stop() == 0
        assert "no sign of life" not in running.log.read_text()
    finally:
        for pid in pids.read_text().split():
            os.kill(int(pid), signal.SIGKILL)


END = "the reader may go"


class Reader(threading.Thread):
    """Reads what a gateway logs to a pipe, unless it pauses."""

    def __init__(self, pipe: int) -> None:
        super().__init__(daemon=True)
        self.log = ""
        self.reads = threading.Event()
        self.reads.set()
        self._pipe = pipe

    def run(self) -> None:
        while END not in self.log:
            self.reads.wait()
            self.log += os.read(self._pipe, 65536).decode(errors="replace")


@contextmanager
def reader(path: Path) -> Iterator[Reader]:
    os.mkfifo(path)
    with path.open("r+b", 0) as pipe:
        reading = Reader(pipe.fileno())
        reading.start()
        try:
            yield reading
        finally:
            reading.reads.set()
            pipe.write(END.encode())
            reading.join()


def test_all_that_waited_for_the_reader_of_the_log(tmp_path: Path, webhooks: Webhooks) -> None:
    """As after Ctrl-S in a terminal: nobody goes on, nor can be told of; then all are well."""
    directory = timeout_of(2, configured(tmp_path / "gw", webhooks.url))
    with reader(tmp_path / "gw.log") as reading, localserve(directory) as running:
        wait_for(lambda: reading.log.count(" serves, process ") == WORKERS, lambda: reading.log)
        workers = [worker.pid for worker in processes(running)]
        load = Load(running.api)
        load.wait_for_more()
        reading.reads.clear()
        time.sleep(6)
        reading.reads.set()
        wait_for(lambda: "no sign of life" in reading.log, lambda: reading.log)
        load.wait_for_more()
        time.sleep(2)
        load.stop()
        assert [worker.pid for worker in processes(running)] == workers
        assert running.stop() == 0
    assert "gives signs of life again, and is not killed" in reading.log
