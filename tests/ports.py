"""Ports that are free now, and a moment later too, when whoever is to listen there begins.

They are below those that the system gives to others, and no other process of the tests looks there.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Iterable, Iterator

from gateway.cli.localserve import PORTS

MOST_SHARES = 16  # of more processes, some have the same: a smaller share has no room for a port base
_BASES = range(10_000, 31_500)  # and what is added to them
_SINGLE = range(31_500, 32_768)


def free_port() -> int:
    """A port that is free on all addresses; each call gives another."""
    while not _all_free([port := next(_singles)]):
        pass
    return port


def free_port_base() -> int:
    """A port base whose ports (SMTP +25, and the others) are free."""
    bases = _share(_BASES)[: -max(PORTS.values())]
    while not _all_free((base := random.choice(bases)) + port for port in PORTS.values()):
        pass
    return base


def _share(ports: range) -> range:
    """Those of this process."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    count = min(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), MOST_SHARES)
    width = len(ports) // count
    start = worker % count * width
    return ports[start : start + width]


def _all_free(ports: Iterable[int]) -> bool:
    with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
        for port in ports:
            taken.enter_context(socket.socket()).bind(("0.0.0.0", port))
        return True
    return False


def _in_turn(ports: range) -> Iterator[int]:
    """Without end, from any of them on: two runs of the tests at once seldom meet."""
    number = random.randrange(len(ports))
    while True:
        yield ports[number % len(ports)]
        number += 1


_singles = _in_turn(_share(_SINGLE))
