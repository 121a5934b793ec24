"""Who may write, where several processes write to one SQLite database.

SQLite's own lock is not fair, and who waits for it sleeps between its tries, for up to 100 ms. Here the
system wakes the one who waits, and who has just had the lock leaves a moment for it.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from pathlib import Path

PAUSE = 0.0002  # seconds between two turns of one process: a waiter needs them to wake up


class WriteLock:
    """For one thread. The system frees the lock of a process that dies."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._ended = 0.0  # our last turn, time.monotonic()
        _open.add(self)

    def acquire(self) -> None:
        """Waits for the others. Raises OSError."""
        if (pause := self._ended + PAUSE - time.monotonic()) > 0:
            time.sleep(pause)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._ended = time.monotonic()

    def close(self) -> None:
        _open.discard(self)
        os.close(self._file)


_open: weakref.WeakSet[WriteLock] = weakref.WeakSet()


def _close_all() -> None:
    """In a process that a plugin forked: it would keep the lock of one that is killed with it."""
    for lock in list(_open):
        lock.close()


os.register_at_fork(after_in_child=_close_all)
