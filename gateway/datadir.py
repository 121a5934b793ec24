"""The data directory: made, checked, and locked so that one gateway at a time uses it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import StartError


class Locked(StartError):
    """Another gateway uses the data directory."""


def control_socket(data_dir: Path) -> Path:
    """Where the commands of a running gateway are given."""
    return data_dir / "control" / "gateway.sock"


def user_of(data_dir: Path) -> int | None:
    """The process of the gateway that seems to use it: whoever locked it last, if there is such a process.

    After a crash, that may be another one, which has its number by now.
    """
    try:
        process = int((data_dir / "gateway.lock").read_text("ascii"))
        os.kill(process, 0)
    except (OSError, ValueError):
        return None
    return process


@contextmanager
def locked(data_dir: Path) -> Iterator[int]:
    """Hold the directory's lock; the system frees it however the process ends. Raises StartError.

    The body is given the lock's file descriptor: processes that inherit it hold the lock too.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data_dir / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StartError(
            f"{data_dir}: cannot be written ({exc.strerror}); give a directory that this user may write to"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
            raise Locked(
                f"{data_dir}: another gateway uses it (process {pid or 'unknown'}); stop that one, "
                "or give this one another directory"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        try:
            yield lock
        finally:
            os.ftruncate(lock, 0)
    finally:
        os.close(lock)
