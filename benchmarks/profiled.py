"""`python -m benchmarks.profiled FILE ...`: `gateway ...`, of which a part is profiled.

From SIGUSR1 to SIGUSR2; then FILE is there, as `pstats` reads it. It is of the event loop's thread, without
those of the store; and cProfile makes small functions of Python dearer than they are.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.table import Row

SHOWN = 8  # parts
# Where a file is, and what that part is called; the first that fits.
_PARTS = (
    ("/gateway/net/", "gateway/net"),
    ("/gateway/smtp/", "gateway/smtp"),
    ("/gateway/outbound/", "gateway/outbound"),
    ("/gateway/store/", "gateway/store"),
    ("/gateway/", "gateway, the rest"),
    ("/plugins/", "plugins"),
    ("/trio/", "trio"),
    ("/OpenSSL/", "OpenSSL"),
    ("/cryptography/", "OpenSSL"),
    ("/dns/", "dnspython"),
    ("/logging/", "logging"),
)


@contextmanager
def profiling(pid: int, file: Path) -> Iterator[None]:
    """Profiles that process of this module while the body runs."""
    os.kill(pid, signal.SIGUSR1)
    yield
    os.kill(pid, signal.SIGUSR2)
    deadline = time.monotonic() + 30
    while not file.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"process {pid} wrote no profile")
        time.sleep(0.05)


def rows(name: str, file: Path, messages: int) -> list[Row]:
    """Which part of the time each part of the code takes, without what it calls."""
    seconds: Counter[str] = Counter()
    for (where, _, function), (_, _, own, *_) in pstats.Stats(str(file)).stats.items():  # type: ignore[attr-defined]
        if "epoll" not in function:  # where the loop rests
            seconds[_part(where, function)] += own
    total = seconds.total()
    return [
        Row(f"{name}: CPU profile, {part}", f"{own / total:.0%}, {own / messages * 1000:.2f} ms a message")
        for part, own in seconds.most_common(SHOWN)
    ]


def _part(where: str, function: str) -> str:
    if where == "~":  # what is written in C
        return "OpenSSL" if "ssl" in function.lower() else "built-in functions"
    return next((part for path, part in _PARTS if path in where), "the rest")


def main() -> None:
    file, profile = Path(sys.argv.pop(1)), cProfile.Profile()

    def end(*_: object) -> None:
        profile.disable()
        part = file.with_suffix(".part")
        profile.dump_stats(part)
        part.rename(file)

    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    signal.signal(signal.SIGUSR2, end)

    from gateway.cli.main import main as gateway

    gateway(prog_name="gateway")


if __name__ == "__main__":
    main()
