"""The disk as it is, and as if its fsync took longer: what group commit is worth depends on it.

`python -m benchmarks.disk` prints the milliseconds that a commit takes.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

COMMITS = 500
_SOURCE = Path(__file__).with_name("slow_fsync.c")


@contextmanager
def slower_disk(milliseconds: float) -> Iterator[Mapping[str, str] | None]:
    """The environment of processes whose fsyncs take that much longer; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as directory:
        library = f"{directory}/slow_fsync.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, str(_SOURCE), "-ldl"], check=True)
        yield {"LD_PRELOAD": library, "FSYNC_MICROSECONDS": str(round(milliseconds * 1000))}


def commit_time(environment: Mapping[str, str]) -> float:
    """Milliseconds that a process with that environment needs to commit 1 kB to SQLite."""
    process = [sys.executable, "-m", "benchmarks.disk"]
    return float(
        subprocess.run(process, env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True).stdout
    )


def main() -> None:
    times = []
    with tempfile.TemporaryDirectory() as directory:
        connection = sqlite3.connect(f"{directory}/database", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, content)")
        for _ in range(COMMITS):
            started = time.perf_counter()
            connection.execute("INSERT INTO message (content) VALUES (?)", (bytes(1024),))
            times.append(time.perf_counter() - started)
        connection.close()
    print(statistics.median(times) * 1000)


if __name__ == "__main__":
    main()
