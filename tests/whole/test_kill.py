"""kill -9 at random moments under load: what was acknowledged is delivered and reported in the end."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import subprocess
import time
from collections import Counter
from datetime import datetime
from functools import partial
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
import trio

from gateway.clock import Clock
from gateway.store import call_listing
from gateway.store.call_listing import CallFilter
from gateway.store.changes import Step
from gateway.store.store import Store
from tests.commands import PATIENCE, launch, start
from tests.under_load import Load, Webhooks, configured, drain, retired, wait_for


async def make_webhook_calls_due(data_dir: Path) -> None:
    """Interrupted ones would wait for 30 s."""
    clock = Clock()
    async with Store.open(data_dir, clock) as store:
        now, position = clock.now(), ""
        while True:
            step = await store.write(partial(_schedule, now=now, position=position))
            if step.position is None:
                return
            position = step.position


def _schedule(conn: sa.Connection, now: datetime, position: str) -> Step:
    return call_listing.schedule(conn, CallFilter(), now, position)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """The supervisor and its workers, if it has any: as when the power fails."""
    process.send_signal(signal.SIGSTOP)  # it starts no more of them
    try:
        workers = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:  # it has ended
        workers = []
    process.kill()
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    process.wait()
    psutil.wait_procs(workers, timeout=PATIENCE)


@pytest.mark.parametrize(("workers", "kills"), [(1, 20), (2, 3)])
def test_killed_again_and_again(tmp_path: Path, workers: int, kills: int) -> None:
    webhooks = Webhooks()
    rng = random.Random()
    directory = configured(tmp_path / "gw", webhooks.url, workers)
    gateway = start(directory)
    try:
        load = Load(gateway.api)
        for number in range(kills):
            load.wait_for_more()  # a slow machine may need a while for the first
            time.sleep(rng.uniform(0.0, 0.6))
            kill_all(gateway.process)
            if number % 5 == 0:  # killed while it starts
                starting, _, _ = launch(directory)
                time.sleep(rng.uniform(0.0, 1.0))
                kill_all(starting)
            gateway = start(directory)
        load.wait_for_large()
        load.stop()
        assert len(load.acknowledged) > kills
        drain(gateway)
        assert gateway.stop() == 0
        trio.run(make_webhook_calls_due, directory / "data")
        gateway = start(directory)

        def all_told() -> bool:
            return load.acknowledged.keys() <= webhooks.events("delivered").keys()

        def missing() -> object:
            return sorted(load.acknowledged.keys() - webhooks.events("delivered").keys())

        wait_for(all_told, missing)
        wait_for(
            lambda: set(load.acknowledged.values()) <= webhooks.subjects_received(),
            lambda: set(load.acknowledged.values()) - webhooks.subjects_received(),
        )
        messages = retired(gateway)
        assert all(m["RetiredAs"] == "delivered" for m in messages)
        recipients = Counter((m["SubmissionID"], m["Recipient"]) for m in messages)
        assert set(recipients.values()) == {1}, "something is twice in the queue"
        assert gateway.stop() == 0
    finally:
        kill_all(gateway.process)
        webhooks.shutdown()
        webhooks.server_close()
    assert "Traceback" not in re.sub(r"\x1b\[\d*m", "", gateway.log.read_text())
    left = [path for path in (directory / "data" / "content").rglob("*") if path.is_file()]
    assert left  # of what was received: these stay
