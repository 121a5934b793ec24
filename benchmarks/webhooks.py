"""`webhooks`: calls from the queue to one receiver, behind many that wait for another, beside bad ones."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import sqlalchemy as sa
import trio

from benchmarks.bad_receivers import bad_receivers
from benchmarks.load import drive, post, repeat
from benchmarks.processes import GatewayProcess, gateway
from benchmarks.progress import counted, progress
from benchmarks.receiver import Receiver, receiving
from benchmarks.table import Figure, Row, compared
from gateway.cli.localserve import ACCOUNT
from gateway.clock import Clock
from gateway.store import webhook_calls
from gateway.store.changes import STEP, CallDraft
from gateway.store.events import NewEvent
from gateway.store.store import Store

COUNT = 5_000  # calls of a round
CONNECTIONS = 4
BACKLOG = 100_000
ONE_BY_ONE = 200  # calls of a round, each after the one before
LATER = timedelta(days=1)
SETTINGS = f"""
[webhooks]
max_calls_per_url = {CONNECTIONS}
allow_networks = ["127.0.0.0/8"]
"""
_BODY = b'{"Version":0,"Event":"delivered","QueueMsgID":1}' + b" " * 400  # as long as a payload


def webhooks(rounds: int) -> list[Row]:
    """5,000 calls that become due at once, four at a time, until the receiver took the last.

    Beside the receiver alone, asked on 4 connections. And with 100,000 others, all due, whose receiver
    accepts a connection and never answers, beside the same without these.
    """
    alone: list[Figure] = []
    figures: list[Figure] = []
    behind: list[Figure] = []
    with receiving() as receiver, _silence() as silent:
        progress(f"webhooks, queueing {BACKLOG:,} calls")
        ours = partial(_fill, count=COUNT * rounds, url=receiver.url + "calls", due_in=LATER)
        with (
            gateway(settings=SETTINGS, prepare=ours) as tested,
            gateway(settings=SETTINGS, prepare=lambda data_dir: _burden(data_dir, ours, silent)) as burdened,
        ):
            for number in range(rounds):
                progress(f"webhooks, round {number + 1} of {rounds}")
                alone.append(_receiver_alone(receiver))
                figures.append(_made(tested, receiver, number))
                progress(f"webhooks, round {number + 1} of {rounds}, behind {BACKLOG:,}")
                behind.append(_made(burdened, receiver, number))
    return [
        compared(f"webhooks, {CONNECTIONS} connections", figures, alone, aim="1,000/s"),
        compared(f"webhooks, behind {BACKLOG:,} for a silent receiver", behind, figures, aim="1.0"),
        _beside_bad_ones(rounds),
    ]


def _beside_bad_ones(rounds: int) -> Row:
    """From due to received, one call after the other, while each of eight bad receivers is called five times
    a second; beside the same without these."""
    count = ONE_BY_ONE * rounds
    with bad_receivers() as bad, receiving() as receiver:
        ours = partial(_fill, count=count, url=receiver.url + "out", due_in=LATER)

        def beside(data_dir: Path) -> None:
            ours(data_dir)
            for url in bad:
                _fill(data_dir, count=300 * rounds, url=url, due_in=timedelta(), apart=timedelta(seconds=0.2))

        progress("webhooks, bad receivers")
        slow: list[list[float]] = []
        usual: list[list[float]] = []
        with (
            gateway(settings=SETTINGS, prepare=ours) as tested,
            gateway(settings=SETTINGS, prepare=beside) as burdened,
        ):
            time.sleep(5)  # what is due since it was queued, and the first that hang
            for number in range(rounds):
                progress(f"webhooks, round {number + 1} of {rounds}, beside bad receivers")
                ids = range(number * ONE_BY_ONE + 1, (number + 1) * ONE_BY_ONE + 1)
                # By turns, so that whatever else the machine does meanwhile is in both.
                both = []
                for call_id in ids:
                    both.append([_taken(one, receiver, call_id) for one in (burdened, tested)])
                    counted(len(both), len(ids))
                slow.append([one for one, _ in both])
                usual.append([other for _, other in both])
    ratio = statistics.median(_p95(one) / _p95(other) for one, other in zip(slow, usual, strict=True))
    value, yardstick = (
        f"p95 {statistics.median(map(_p95, rounds_of)) * 1000:.1f} ms" for rounds_of in (slow, usual)
    )
    return Row("webhooks, beside bad receivers", value, yardstick, f"{ratio:.2f}", "1.2")


def _taken(tested: GatewayProcess, receiver: Receiver, call_id: int) -> float:
    """Seconds from when a call is due until it was received. Its QueueMsgID is its own ID."""
    receiver.delivered_at.pop(call_id, None)
    start = time.perf_counter()
    tested.ask("webhook/schedule", Filter={"IDs": [call_id]}, Seconds=0)
    return receiver.wait_delivered(call_id) - start


def _p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


def _made(tested: GatewayProcess, receiver: Receiver, number: int) -> Figure:
    """Have the round's calls become due, and wait for the last."""
    ids = range(number * COUNT + 1, (number + 1) * COUNT + 1)
    wanted = receiver.counts.get("/calls", 0) + COUNT
    before, start = tested.cpu(), time.perf_counter()
    for first in range(0, COUNT, 1000):
        tested.ask("webhook/schedule", Filter={"IDs": list(ids[first : first + 1000])}, Seconds=0)
    receiver.wait({"/calls": wanted})
    seconds = time.perf_counter() - start
    time.sleep(0.5)  # until the last ones are recorded as well
    return Figure(COUNT / seconds, (tested.cpu() - before) / COUNT * 1000)


def _receiver_alone(receiver: Receiver) -> Figure:
    host, port = receiver.url.removeprefix("http://").rstrip("/").split(":")
    request = post("/alone", _BODY, "application/json")
    before = time.process_time()
    load = drive((host, int(port)), repeat(lambda _: request), CONNECTIONS, COUNT)
    return Figure(load.rate, (time.process_time() - before) / COUNT * 1000)


@contextmanager
def _silence() -> Iterator[str]:
    """The URL of a server that accepts connections and says nothing: the system alone does that."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


# --- Calls that wait, written through the gateway's own store ---------------------------------------


def _burden(data_dir: Path, ours: partial[None], silent: str) -> None:
    ours(data_dir)
    _fill(data_dir, count=BACKLOG, url=silent, due_in=timedelta())


def _fill(data_dir: Path, *, count: int, url: str, due_in: timedelta, apart: timedelta = timedelta()) -> None:
    """`apart`: from one that is due to the next."""
    trio.run(partial(_queue_all, data_dir, count, url, due_in, apart))


async def _queue_all(data_dir: Path, count: int, url: str, due_in: timedelta, apart: timedelta) -> None:
    clock = Clock()
    async with Store.open(data_dir, clock) as store:
        for start in range(0, count, STEP):
            numbers = range(start, min(start + STEP, count))
            due = clock.now() + due_in
            await store.write(partial(_queue, numbers, url, due, apart))
            counted(numbers.stop, count)


def _queue(numbers: range, url: str, due: datetime, apart: timedelta, conn: sa.Connection) -> None:
    """The events are of when their calls are due."""
    told = []
    for number in numbers:
        data = {
            "from_id": "",
            "message_id": f"<{number}@example.org>",
            "subject": f"Message {number}",
            "recipient": f"u{number}@example.org",
            "attempt": 1,
        }
        time = due + number * apart
        event = NewEvent(time, ACCOUNT, "delivered", time + LATER, queue_msg_id=number + 1, data=data)
        told.append((event, [CallDraft(url=url, supersede=False)]))
    webhook_calls.tell(conn, told)
