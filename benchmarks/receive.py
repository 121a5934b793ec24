"""`inbound` and `submission`: messages that come in over SMTP, until they are durable."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.disk import commit_time, slower_disk
from benchmarks.processes import INHERITED, Running, gateway, script
from benchmarks.progress import progress
from benchmarks.smtp_load import Envelope, Login, content, hand_in
from benchmarks.table import Figure, Row, compared
from gateway.cli.localserve import LOGIN, PASSWORD
from gateway_dkim.signature import Signer, load_private_key

CONNECTIONS = 8
COUNT = 3000
SLOWER = 0.5  # milliseconds, of an fsync
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

    Where an fsync costs next to nothing, so does a commit for each message. The first is measured once more
    as if an fsync took half a millisecond longer, as on many SSDs and network volumes; that needs a C
    compiler (`cc`).
    """
    rows = [
        *_inbound("inbound", rounds, SETTINGS + UNVERIFIED, "1.5"),
        *_inbound("inbound, verified", rounds, SETTINGS, "400/s"),
        _commit("this disk", INHERITED),
    ]
    with slower_disk(SLOWER) as environment:
        if environment is None:
            return [*rows, Row("inbound, slower disk", "needs a C compiler (cc)")]
        return [
            *rows,
            *_inbound("inbound, slower disk", rounds, SETTINGS + UNVERIFIED, "1.5", environment),
            _commit("the slower disk", environment),
        ]


def _commit(disk: str, environment: Mapping[str, str]) -> Row:
    return Row(f"a commit of 1 kB to SQLite, {disk}", f"{commit_time(environment):.2f} ms")


def _inbound(
    name: str, rounds: int, settings: str, aim: str, environment: Mapping[str, str] = INHERITED
) -> list[Row]:
    figures: list[Figure] = []
    plain: dict[str, list[Figure]] = {"loop": [], "thread": []}
    envelope = Envelope("u@localhost", "quiet@localhost")
    yardstick = partial(script, "benchmarks.plain_smtp", environment=environment)
    with (
        tempfile.TemporaryDirectory() as directory,
        yardstick(f"{directory}/thread.db", "thread") as threaded,
        yardstick(f"{directory}/loop.db", "loop") as blocking,
        gateway(settings=settings, environment=environment) as tested,
    ):
        message = _signed(tested.directory / "dkim" / "localhost.pem")
        yardsticks = {"loop": blocking, "thread": threaded}
        for beside in yardsticks.values():
            _measure(beside, beside.address, envelope, 300, make=message)
        _measure(tested, tested.smtp, envelope, 300, make=message)
        for number in range(rounds):
            progress(f"{name}, round {number + 1} of {rounds}")
            for how, beside in yardsticks.items():
                plain[how].append(_measure(beside, beside.address, envelope, COUNT, make=message))
            figures.append(_measure(tested, tested.smtp, envelope, COUNT, make=message))
    return [
        compared(f"{name}, {CONNECTIONS} connections (aiosmtpd: {how})", figures, measured, aim)
        for how, measured in plain.items()
    ]


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
