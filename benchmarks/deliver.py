"""`deliver`: from the queue to a smarthost."""

from __future__ import annotations

import smtplib
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.backlog import fill
from benchmarks.load import drive, repeat
from benchmarks.processes import GatewayProcess, Running, gateway, script, send_request
from benchmarks.progress import counted, progress
from benchmarks.smtp_load import Envelope, content, hand_in
from benchmarks.smtp_sink import SinkStatistics
from benchmarks.table import Figure, Row, compared
from gateway.cli.localserve import ACCOUNT, LOGIN, PASSWORD

COUNT = 2000
BACKLOG = 100_000
# With 20 deliveries each they leave the others 20 of the 100 that the gateway makes at a time.
SLOW_DOMAINS = tuple(f"d{number}.slow.example" for number in range(4))
STAGES = ("suppressed", "route", "around_attempt", "shape", "event")
# Plugins that have nothing to say, and the head of the function that each has.
NOTHING = {
    f"nothing{number}": f"{'async ' if number % 2 else ''}def {STAGES[number // 2 % len(STAGES)]}"
    for number in range(20)
}
PAIRS = 2  # rounds of its own for each: the difference is small
SETTINGS = """
[submission]
listen = ["127.0.0.1:0"]
max_recipients = {count}

[accounts.mox.webhook_outgoing]
url = "http://127.0.0.1:9/"
events = ["unrecognized"]  # none of those that occur

[[accounts.mox.routes]]
transport = "smarthost"

[accounts.slow]
addresses = ["slow@localhost"]

[[accounts.slow.routes]]
transport = "silent"

[transports.silent]
type = "smtp"
host = "127.0.0.1"
port = {silent}
tls = "none"

[transports.smarthost]
type = "smtp"
host = "127.0.0.1"
port = {sink}
tls = "none"
"""


def deliver(rounds: int) -> list[Row]:
    """2,000 messages that are released from hold, each a submission of its own, until a sink took the last.

    Beside a loop with smtplib on one connection; and with 100,000 messages in front of them, all due, for
    destinations that accept a connection and never answer, beside the same without these. And with 20 more
    plugins that have nothing to say, one implementation each: four at each of suppressed, route,
    around_attempt, shape and event, of which two are async; beside the same without them, in turns.
    """
    kinds: dict[str, Callable[[GatewayProcess], None]] = {
        "one domain": _to_one_domain,
        "50 domains": _to_50_domains,
        "2,000 recipients of one": _one_submission,
    }
    alone: list[float] = []
    plain: list[Figure] = []
    figures: dict[str, list[Figure]] = {kind: [] for kind in kinds}
    without: list[Figure] = []
    more: list[Figure] = []
    behind: dict[str, list[Figure]] = {kind: [] for kind in ("one domain", "50 domains")}
    with script("benchmarks.smtp_sink") as sink, _silence() as silent:
        taken = SinkStatistics(sink.address)
        settings = SETTINGS.format(count=COUNT, silent=silent, sink=sink.address[1])
        progress(f"deliver, queueing {BACKLOG:,} messages")
        with (
            gateway(settings=settings) as tested,
            gateway(settings=settings, prepare=_fill) as burdened,
            gateway(settings=settings + _asking(), prepare=_write_plugins) as asking,
        ):
            for one in (tested, burdened, asking):
                one.ask("queue/hold-rules/add", Account=ACCOUNT)  # so not the backlog
            for number in range(rounds):
                progress(f"deliver, round {number + 1} of {rounds}, the yardsticks")
                alone.append(_sink_alone(sink))
                plain.append(_plain_loop(sink, taken))
                for kind, submit in kinds.items():
                    progress(f"deliver, round {number + 1} of {rounds}, {kind}")
                    figures[kind].append(_released(tested, submit, taken))
                    if kind in behind:
                        progress(f"deliver, round {number + 1} of {rounds}, {kind}, behind {BACKLOG:,}")
                        behind[kind].append(_released(burdened, submit, taken))
                progress(f"deliver, round {number + 1} of {rounds}, {len(NOTHING)} more plugins")
                for _ in range(PAIRS):
                    without.append(_released(tested, _to_one_domain, taken))
                    more.append(_released(asking, _to_one_domain, taken))
        taken.close()
    rows = [Row("deliver, the sink alone", "", f"{statistics.median(alone):,.0f}/s")]
    rows += [compared(f"deliver, {kind}", measured, plain) for kind, measured in figures.items()]
    rows += [
        compared(f"deliver, {kind}, behind {BACKLOG:,} slow", measured, figures[kind])
        for kind, measured in behind.items()
    ]
    rows.append(compared(f"deliver, one domain, {len(NOTHING)} more plugins", more, without, "> 0.85"))
    return rows


def _asking() -> str:
    names = ", ".join(f'"{name}"' for name in NOTHING)
    return f"""
[plugins]
sets = ["nothing", "default", "localserve"]
directory = "plugins"

[plugin_sets.nothing]
plugins = [{names}]
"""


def _write_plugins(data_dir: Path) -> None:
    directory = data_dir.parent / "plugins"
    directory.mkdir()
    for name, hook in NOTHING.items():
        (directory / f"{name}.py").write_text(
            f"from gateway import hookimpl\n\n@hookimpl\n{hook}() -> None: ...\n"
        )


def _fill(data_dir: Path) -> None:
    fill(data_dir, BACKLOG, account="slow", domains=SLOW_DOMAINS)


@contextmanager
def _silence() -> Iterator[int]:
    """The port of a server that accepts connections and says nothing: the system alone does that."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        yield listener.getsockname()[1]


def _released(
    tested: GatewayProcess, submit: Callable[[GatewayProcess], None], taken: SinkStatistics
) -> Figure:
    """Submit, while all is held; then release. The processor time is that of the release too."""
    submit(tested)
    taken.reset()
    before = tested.cpu()
    released = tested.ask("queue/release", Filter={"Account": ACCOUNT})["Affected"]
    if released != COUNT:
        raise RuntimeError(f"{released} messages were on hold in place of {COUNT}")
    seconds = taken.wait(COUNT)
    time.sleep(0.5)  # until the last ones are settled as well
    return Figure(COUNT / seconds, (tested.cpu() - before) / COUNT * 1000)


def _to_one_domain(tested: GatewayProcess) -> None:
    drive(tested.web, repeat(send_request), 32, COUNT)


def _to_50_domains(tested: GatewayProcess) -> None:
    drive(tested.web, repeat(lambda n: send_request(n, f"u{n}@d{n % 50}.example")), 32, COUNT)


def _one_submission(tested: GatewayProcess) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP_SSL(*tested.submissions, context=context) as client:
        client.login(LOGIN.replace("@", "+x@"), PASSWORD)  # all recipients' messages have one sender
        client.sendmail(LOGIN, [f"u{n}@example.org" for n in range(COUNT)], content(0, LOGIN))


def _sink_alone(sink: Running) -> float:
    return hand_in(sink.address, Envelope("u@example.org", "u{number}@example.com"), 20, 5000).rate


def _plain_loop(sink: Running, taken: SinkStatistics) -> Figure:
    """smtplib in this process, one connection, one message after the other."""
    contents = [content(number) for number in range(COUNT)]
    taken.reset()
    before = time.process_time()
    with smtplib.SMTP(*sink.address) as client:
        for number, data in enumerate(contents):
            client.sendmail("u@example.org", [f"u{number}@example.com"], data)
            counted(number + 1, COUNT)
        cpu = time.process_time() - before
    return Figure(COUNT / taken.wait(COUNT), cpu / COUNT * 1000)
