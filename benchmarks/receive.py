"""`inbound` and `submission`: messages that come in over SMTP, until they are durable."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.processes import Running, gateway, script
from benchmarks.progress import progress
from benchmarks.smtp_load import Envelope, Login, content, hand_in
from benchmarks.table import Figure, Row, compared
from gateway.cli.localserve import LOGIN, PASSWORD
from gateway_dkim.signature import Signer, load_private_key

CONNECTIONS = 8
COUNT = 3000
# An account that no webhook tells of what came.
SETTINGS = """
[accounts.quiet]
addresses = ["quiet@localhost"]
"""
UNVERIFIED = """
[smtp]
listen = ["127.0.0.1:25"]
verify = false
"""


def inbound(rounds: int) -> list[Row]:
    """Messages of 1 kB for an account, from other servers, on 8 connections that are kept.

    Without verification, and with it: signed with RSA-2048, and DNS that answers at once. Beside aiosmtpd
    whose handler commits each message to SQLite, with an fsync as well: on its event loop, which does nothing
    else meanwhile, and in a thread beside it.
    """
    rows: list[Row] = []
    for name, settings, aim in (
        ("inbound", SETTINGS + UNVERIFIED, "1.5"),
        ("inbound, verified", SETTINGS, "400/s"),
    ):
        figures: list[Figure] = []
        plain: dict[str, list[Figure]] = {"loop": [], "thread": []}
        envelope = Envelope("u@localhost", "quiet@localhost")
        with (
            tempfile.TemporaryDirectory() as directory,
            script("benchmarks.plain_smtp", f"{directory}/thread.db", "thread") as threaded,
            script("benchmarks.plain_smtp", f"{directory}/loop.db", "loop") as blocking,
            gateway(settings=settings) as tested,
        ):
            message = _signed(tested.directory / "dkim" / "localhost.pem")
            yardsticks = {"loop": blocking, "thread": threaded}
            for yardstick in yardsticks.values():
                _measure(yardstick, yardstick.address, envelope, 300, make=message)
            _measure(tested, tested.smtp, envelope, 300, make=message)
            for number in range(rounds):
                progress(f"{name}, round {number + 1} of {rounds}")
                for how, yardstick in yardsticks.items():
                    plain[how].append(_measure(yardstick, yardstick.address, envelope, COUNT, make=message))
                figures.append(_measure(tested, tested.smtp, envelope, COUNT, make=message))
        rows += [
            compared(f"{name}, {CONNECTIONS} connections (aiosmtpd: {how})", figures, beside, aim)
            for how, beside in plain.items()
        ]
    return rows


def _signed(key: Path) -> Callable[[int], bytes]:
    """The same message each time, signed once: signing is not what is measured."""
    message = content(0, sender="u@localhost")
    message = Signer("localhost", "local", load_private_key(key.read_bytes())).sign(message) + message
    return lambda _: message


def submission(rounds: int) -> list[Row]:
    """The same from an account: TLS, logged in, signed with RSA-2048; the queue keeps them on hold.

    aiosmtpd has TLS and AUTH here too, but neither checks a password nor signs; it commits on its loop.
    """
    figures: list[Figure] = []
    plain: list[Figure] = []
    envelope, login = Envelope(LOGIN, "u{number}@example.org"), Login(LOGIN, PASSWORD)
    make = partial(content, sender=LOGIN)
    with tempfile.TemporaryDirectory() as directory, gateway() as tested:
        tls = tested.directory / "tls"
        certificate = (str(tls / "localhost.pem"), str(tls / "localhost.key"))
        with script("benchmarks.plain_smtp", f"{directory}/messages.db", "loop", *certificate) as yardstick:
            tested.ask("queue/hold-rules/add")
            _measure(yardstick, yardstick.address, envelope, 300, login, make)
            _measure(tested, tested.submissions, envelope, 300, login, make)
            for number in range(rounds):
                progress(f"submission, round {number + 1} of {rounds}")
                plain.append(_measure(yardstick, yardstick.address, envelope, COUNT, login, make))
                figures.append(_measure(tested, tested.submissions, envelope, COUNT, login, make))
    return [compared(f"submission, {CONNECTIONS} sessions", figures, plain, "800/s")]


def _measure(
    running: Running,
    address: tuple[str, int],
    envelope: Envelope,
    count: int,
    login: Login | None = None,
    make: Callable[[int], bytes] = content,
) -> Figure:
    before = running.cpu()
    load = hand_in(address, envelope, CONNECTIONS, count, login=login, make=make)
    return Figure(load.rate, (running.cpu() - before) / count * 1000)
