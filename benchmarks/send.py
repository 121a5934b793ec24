"""`send`, `batch` and `roundtrip`: over the web API into the queue, and on to the webhooks."""

from __future__ import annotations

import statistics
import time

from benchmarks.load import Connection, drive, post, repeat
from benchmarks.processes import GatewayProcess, batch_request, gateway, quart_yardstick, send_request
from benchmarks.progress import counted, progress
from benchmarks.receiver import Receiver, receiving
from benchmarks.table import Row

# The receiver is this process: one connection a URL would measure its latency instead of the gateway.
ROUNDTRIP_SETTINGS = """
[webhooks]
max_calls = 32
max_calls_per_url = 16
allow_networks = ["127.0.0.0/8"]
"""
# Two workers that each do a half.
APART = """
[roles]
web = [0]
webhooks = [0]
smtp = [1]
deliver = [1]
"""
BATCH = 500  # messages
BATCHES = 12
EMPTY = repeat(lambda _: post("/", b"request=%7B%7D", "application/x-www-form-urlencoded"))


def send(rounds: int) -> list[Row]:
    """Send, 1 kB of text, RSA-2048, durable, every stage on; beside an empty Quart-Trio endpoint.

    A hold rule keeps the messages in the queue: what is measured is Send, not delivery.
    """
    figures: dict[int, list[tuple[float, float, float]]] = {1: [], 8: [], 32: [], 64: []}
    yardsticks: dict[int, list[float]] = {connections: [] for connections in figures}
    with quart_yardstick() as plain, gateway() as tested:
        tested.ask("queue/hold-rules/add")
        requests = repeat(send_request)
        drive(plain, EMPTY, 8, 500)
        drive(tested.web, requests, 8, 500)
        for number in range(rounds):
            for connections in figures:
                progress(f"send, round {number + 1} of {rounds}, {connections} connections")
                count = 1000 if connections == 1 else 3000
                yardsticks[connections].append(drive(plain, EMPTY, connections, count).rate)
                load = drive(tested.web, requests, connections, count)
                figures[connections].append((load.rate, load.p50 * 1000, load.p99 * 1000))
    rows = []
    for connections, measured in figures.items():
        rate, p50, p99 = (statistics.median(column) for column in zip(*measured, strict=True))
        ratios = [m[0] / y for m, y in zip(measured, yardsticks[connections], strict=True)]
        rows.append(
            Row(
                f"send, {connections} connections",
                f"{rate:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms",
                f"{statistics.median(yardsticks[connections]):,.0f}/s",
                f"{statistics.median(ratios):.2f}",
                "0.45" if connections == 32 else "",
            )
        )
    return rows


def batch(rounds: int) -> list[Row]:
    """SendBatch of 500 messages, 1 kB of text each, RSA-2048, durable; one call at a time, and four."""
    rates: dict[int, list[float]] = {1: [], 4: []}
    cpu: dict[int, list[float]] = {1: [], 4: []}
    longest: dict[int, list[float]] = {1: [], 4: []}
    with gateway() as tested:
        tested.ask("queue/hold-rules/add")
        requests = repeat(batch_request)
        drive(tested.web, requests, 1, 2)
        for number in range(rounds):
            for connections in rates:
                progress(f"batch, round {number + 1} of {rounds}, {connections} at a time")
                before = tested.cpu()
                load = drive(tested.web, requests, connections, BATCHES)
                cpu[connections].append((tested.cpu() - before) / (BATCHES * BATCH))
                rates[connections].append(load.rate * BATCH)
                longest[connections].append(load.p99)
    rows = []
    for connections, measured in rates.items():
        rate, seconds, p99 = map(statistics.median, (measured, cpu[connections], longest[connections]))
        figures = f"{rate:,.0f} messages/s, {seconds * 1000:.2f} ms CPU, p99 {p99 * 1000:.0f} ms"
        rows.append(Row(f"batches of {BATCH}, {connections} at a time", figures, aim="2,000/s"))
    return rows


def roundtrip(rounds: int) -> list[Row]:
    """From Send to the webhook: one at a time on an idle gateway, and 2,000 as fast as they go; these also
    through two workers, one for the API and webhooks, one for SMTP.

    The client keeps its connection, as HTTP clients do. An idle machine answers more slowly than a busy one;
    the yardstick, one request to an empty Quart-Trio endpoint between two messages, says by how much.
    """
    latencies: list[float] = []
    empty: list[float] = []
    rates, apart = [], []
    for number in range(rounds):
        progress(f"roundtrip, round {number + 1} of {rounds}")
        with (
            quart_yardstick() as plain,
            receiving() as webhooks,
            gateway(webhooks.url, settings=ROUNDTRIP_SETTINGS) as tested,
        ):
            drive(plain, EMPTY, 8, 100)
            drive(tested.web, repeat(send_request), 8, 100)
            webhooks.wait({"/out": 100, "/in": 100})
            first_id = 1 + max(webhooks.delivered_at)
            sending, asking = Connection(tested.web), Connection(plain)
            for one in range(100):
                counted(one, 100)
                time.sleep(0.02)
                sending.ask(send_request(one))
                latencies.append(webhooks.wait_delivered(first_id + one) - sending.sent_at)
                time.sleep(0.02)
                empty.append(asking.ask(next(EMPTY)))
            sending.close()
            asking.close()
            rates.append(_rate(tested, webhooks))
        with (
            receiving() as webhooks,
            gateway(webhooks.url, settings=ROUNDTRIP_SETTINGS + APART, at_least=2) as tested,
        ):
            drive(tested.web, repeat(send_request), 8, 100)
            webhooks.wait({"/out": 100, "/in": 100})
            apart.append(_rate(tested, webhooks))
    latencies.sort()
    p50, p99 = statistics.median(latencies), latencies[int(len(latencies) * 0.99) - 1]
    return [
        Row(
            "roundtrip, idle",
            f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms",
            f"p50 {statistics.median(empty) * 1000:.1f} ms",
            f"{p50 / statistics.median(empty):.1f}",
            "p50 8 ms",
        ),
        Row("roundtrip, 2,000 messages", f"{statistics.median(rates):,.0f}/s", aim="600/s"),
        Row("the same, two workers with roles", f"{statistics.median(apart):,.0f}/s", aim="600/s"),
    ]


def _rate(tested: GatewayProcess, webhooks: Receiver) -> float:
    """Round trips/s, of 2,000."""
    before = dict(webhooks.counts)
    started = time.perf_counter()
    drive(tested.web, repeat(send_request), 32, 2000)
    webhooks.wait({path: count + 2000 for path, count in before.items()})
    return 2000 / (time.perf_counter() - started)
