"""`direct`: from the queue to the MX hosts of many domains, with STARTTLS."""

from __future__ import annotations

import smtplib
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from benchmarks.backlog import fill
from benchmarks.load import drive, repeat
from benchmarks.mx_zone import SILENT_HOSTS
from benchmarks.processes import GatewayProcess, Running, gateway, script, send_request
from benchmarks.profiled import profiling, rows
from benchmarks.progress import counted, progress
from benchmarks.smtp_load import content
from benchmarks.smtp_sink import SinkStatistics
from benchmarks.table import Figure, Row, compared
from gateway.cli.localserve import ACCOUNT

COUNT = 5000
SILENT = 10_000
UNTIL_CROWDED = 30.0  # seconds until as many wait for silent servers as may
DOMAINS = 500
PLAIN_COUNT = 500
SETTINGS = """
[dns]
nameservers = ["127.0.0.1"]
port = {dns}

[dns.simulated_keys]

[accounts.mox.webhook_outgoing]
url = "http://127.0.0.1:9/"
events = ["unrecognized"]  # none of those that occur

[[accounts.mox.routes]]
transport = "mx"

[accounts.silent]
addresses = ["silent@localhost"]

[[accounts.silent.routes]]
transport = "mx"

[transports.mx]
type = "direct"
port = {port}
allow_networks = ["127.0.0.0/8"]
keep = {{ idle = {idle} }}
"""


def direct(rounds: int) -> list[Row]:
    """5,000 messages to 500 domains on 20 hosts, released from hold, until the hosts took the last.

    With a TLS connection for each message, and with connections that are kept, beside a loop with smtplib
    that does the same. And with 10,000 messages under way or due to as many domains whose servers accept a
    connection and never say anything, beside the same without these; all the healthy domains have taken mail
    before. And what the processor is used for, of one run each with new and kept connections.
    """
    new: list[Figure] = []
    kept: list[Figure] = []
    plain_new: list[Figure] = []
    plain_kept: list[Figure] = []
    behind: list[Figure] = []
    with script("benchmarks.mx_sinks") as sinks, script("benchmarks.mx_zone") as zone:
        taken = SinkStatistics(sinks.address)
        settings = partial(SETTINGS.format, dns=zone.address[1], port=sinks.address[1])
        with (
            gateway(settings=settings(idle=0)) as connecting,
            gateway(settings=settings(idle=10)) as keeping,
            gateway(settings=settings(idle=10), prepare=_fill) as burdened,
            _silence(sinks.address[1]),
        ):
            measured: list[tuple[str, GatewayProcess, list[Figure]]] = [
                ("new connections", connecting, new),
                ("kept connections", keeping, kept),
                (f"kept connections, {SILENT:,} silent", burdened, behind),
            ]
            for _, tested, _ in measured:
                tested.ask("queue/hold-rules/add", Account=ACCOUNT)
            progress(f"direct, {SILENT:,} silent domains")
            _released(burdened, taken)
            burdened.ask("queue/release", Filter={"Account": "silent"})
            progress(f"direct, {UNTIL_CROWDED:.0f} s until as many wait for silent servers as may")
            time.sleep(UNTIL_CROWDED)
            for number in range(rounds):
                progress(f"direct, round {number + 1} of {rounds}, the yardsticks")
                plain_new.append(_plain_loop(sinks, taken, messages_per_connection=1))
                plain_kept.append(_plain_loop(sinks, taken, messages_per_connection=100))
                for kind, tested, figures in measured:
                    progress(f"direct, round {number + 1} of {rounds}, {kind}")
                    figures.append(_released(tested, taken))
        profiles: list[Row] = []
        for kind, idle in (("new TLS connections", 0), ("kept connections", 10)):
            progress(f"direct, CPU profile, {kind}")
            profiles += _profile(f"direct, {kind}", settings(idle=idle), taken)
        taken.close()
    return [
        compared("direct, 500 domains, new TLS connections", new, plain_new, "600/s"),
        compared("direct, 500 domains, kept connections", kept, plain_kept, "2,000/s"),
        compared(f"direct, kept connections, {SILENT:,} silent domains", behind, kept, "0.90"),
        *profiles,
    ]


def _profile(name: str, settings: str, taken: SinkStatistics) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "profile"
        with gateway(settings=settings, profile=file) as tested:
            tested.ask("queue/hold-rules/add", Account=ACCOUNT)
            _released(tested, taken, profiling(tested.process.pid, file))
            return rows(name, file, COUNT)


def _fill(data_dir: Path) -> None:
    domains = [f"silent{number}.example" for number in range(SILENT)]
    fill(data_dir, SILENT, account="silent", domains=domains, hold=True)


@contextmanager
def _silence(port: int) -> Iterator[None]:
    """Servers that accept connections and say nothing: the system alone does that."""
    with ExitStack() as listeners:
        for number in range(1, SILENT_HOSTS + 1):
            listeners.enter_context(socket.create_server((f"127.0.2.{number}", port), backlog=1000))
        yield


def _released(
    tested: GatewayProcess, taken: SinkStatistics, beside: AbstractContextManager[None] | None = None
) -> Figure:
    """Submit, while all is held; then release. The processor time is that of the release too. `beside` is
    entered while it is measured."""
    submit: Callable[[int], bytes] = lambda n: send_request(n, f"u{n}@d{n % DOMAINS}.example")  # noqa: E731
    drive(tested.web, repeat(submit), 32, COUNT)
    taken.reset()
    before = tested.cpu()
    with beside or nullcontext():
        released = tested.ask("queue/release", Filter={"Account": ACCOUNT})["Affected"]
        if released != COUNT:
            raise RuntimeError(f"{released} messages were on hold in place of {COUNT}")
        seconds = taken.wait(COUNT)
        time.sleep(0.5)  # until the last ones are settled as well
    return Figure(COUNT / seconds, (tested.cpu() - before) / COUNT * 1000)


def _plain_loop(sinks: Running, taken: SinkStatistics, *, messages_per_connection: int) -> Figure:
    """smtplib in this process, one connection at a time, one message after the other."""
    contents = [content(number) for number in range(PLAIN_COUNT)]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    taken.reset()
    before = time.process_time()
    for first in range(0, PLAIN_COUNT, messages_per_connection):
        with smtplib.SMTP("127.0.1.1", sinks.address[1]) as client:
            client.starttls(context=context)
            for number in range(first, min(first + messages_per_connection, PLAIN_COUNT)):
                client.sendmail("u@example.org", [f"u{number}@example.com"], contents[number])
                counted(number + 1, PLAIN_COUNT)
    cpu = time.process_time() - before
    return Figure(PLAIN_COUNT / taken.wait(PLAIN_COUNT), cpu / PLAIN_COUNT * 1000)
