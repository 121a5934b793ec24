"""`memory`: what the process takes, and how long a look at a long queue."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

from benchmarks.backlog import fill
from benchmarks.load import drive, post, repeat
from benchmarks.processes import AUTHORIZATION, gateway, send_request
from benchmarks.progress import progress
from benchmarks.table import Row
from gateway.cli.localserve import ACCOUNT

HELD = 20_000
QUEUED = 100_000
LISTED = 100
LOOKS = 50


def memory(rounds: int) -> list[Row]:
    """Resident memory of the process: idle, with 20,000 messages that it was sent, with 100,000 in the queue.

    Of the last, the answer times of the API and of the control socket for the first 100 of them.
    """
    del rounds  # it does not vary
    progress("memory")
    with gateway() as tested:
        time.sleep(1)
        idle = tested.rss()
        tested.ask("queue/hold-rules/add")
        drive(tested.web, repeat(send_request), 16, HELD)
        held = tested.rss()
    progress(f"memory, {QUEUED:,} messages")
    request = post("/queue/list", json.dumps({"Max": LISTED}).encode(), "application/json")
    with gateway(prepare=_fill) as tested:
        assert len(tested.ask("queue/list", Max=LISTED)["Messages"]) == LISTED
        drive(tested.web, repeat(lambda _: _queue_list()), 1, 1)  # checks the password, which takes longer
        listed = drive(tested.web, repeat(lambda _: _queue_list()), 1, LOOKS)
        look = drive(tested.control, repeat(lambda _: request), 1, LOOKS)
        queued = tested.rss()
        assert tested.ask("queue/hold", Filter={})["Affected"] == QUEUED
        all_held = tested.rss()
    return [
        Row("memory, idle", _megabytes(idle), aim="130 MB"),
        Row(f"memory, {HELD:,} on hold", _megabytes(held)),
        Row(f"memory, {QUEUED:,} queued", _megabytes(queued)),
        Row(f"memory, {QUEUED:,} put on hold", _megabytes(all_held)),
        Row(
            f"QueueList, {LISTED} of {QUEUED:,}",
            f"p50 {listed.p50 * 1000:.1f} ms, most {listed.latencies[-1] * 1000:.1f} ms",
            aim="50 ms",
        ),
        Row(
            f"queue list, {LISTED} of {QUEUED:,}",
            f"p50 {look.p50 * 1000:.1f} ms, most {look.latencies[-1] * 1000:.1f} ms",
        ),
    ]


def _fill(data_dir: Path) -> None:
    """Not due for a day: they wait, and nothing else."""
    fill(
        data_dir,
        QUEUED,
        account=ACCOUNT,
        domains=[f"d{number}.example" for number in range(50)],
        due_in=timedelta(days=1),
    )


def _queue_list() -> bytes:
    """The API's: what the account sees of its own."""
    body = json.dumps({"Filter": {"State": "queued"}, "Max": LISTED}).encode()
    return post("/webapi/v0/QueueList", body, "application/json", AUTHORIZATION)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
