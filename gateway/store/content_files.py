"""The built-in content store: one file for each content, below the data directory.

A file is written under a temporary name, fsynced, renamed, and its directory fsynced. What is spooled on its
way to any store is a temporary file of the same directory.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import trio

from gateway.hookspecs.additions import NewContent

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

COPY = 1024 * 1024  # bytes: copied at a time
THREADS = 8  # for files; more would only wait for the same disk
BATCH = 500  # directory entries at a time
TEMPORARY = ".tmp"
_NAME = re.compile(r"[0-9a-f]{32}(\.tmp)?")


class FileStore:
    """A gateway.hookspecs.additions.ContentStore. Raises OSError; then no file of a new content is left."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._limiter = trio.CapacityLimiter(THREADS)

    async def put(self, name: str, content: NewContent) -> None:
        if content.file is not None:
            await self.in_thread(self._adopt, name, content.file)
        else:
            await self.in_thread(self._write, name, await content.read())

    async def open(self, name: str) -> FileReader:
        flags = os.O_RDONLY | os.O_CLOEXEC
        return FileReader(self, await self.in_thread(os.open, self.directory / name, flags))

    async def delete(self, names: Sequence[str]) -> None:
        await self.in_thread(self._delete, names)

    async def names(self, before: datetime) -> AsyncIterator[str]:
        """Those of temporary files too: what a crash cut off is one."""
        with await self.in_thread(os.scandir, self.directory) as entries:
            while (old := await self.in_thread(_next_old, entries, before.timestamp())) is not None:
                for name in old:
                    yield name

    async def in_thread(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)

    def _write(self, name: str, data: bytes) -> None:
        scratch = ScratchFile(self.directory, name)
        try:
            scratch.write(data)
            scratch.close()
        except BaseException:
            scratch.remove()
            raise
        self._adopt(name, scratch.path)

    def _adopt(self, name: str, path: Path) -> None:
        """Makes a file of the same file system durable under a name."""
        final = self.directory / name
        try:
            _fsync(path, os.O_RDONLY)
            path.replace(final)
            _fsync(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        except BaseException:
            for left in (path, final):
                left.unlink(missing_ok=True)
            raise

    def _delete(self, names: Sequence[str]) -> None:
        failed: OSError | None = None
        for name in names:
            try:
                (self.directory / name).unlink(missing_ok=True)
            except OSError as exc:
                failed = failed or exc
        if failed is not None:
            raise failed


class FileReader:
    """An open file. It stays open meanwhile, so that a removal of the message does not cut it short."""

    def __init__(self, store: FileStore, fd: int) -> None:
        self._store, self._fd = store, fd

    async def read(self, start: int, count: int) -> bytes:
        return await self._store.in_thread(self._read, start, count)

    def _read(self, start: int, count: int) -> bytes:
        pieces = []
        while count and (piece := os.pread(self._fd, count, start)):
            pieces.append(piece)
            start, count = start + len(piece), count - len(piece)
        return b"".join(pieces)

    def __del__(self) -> None:
        os.close(self._fd)


class ScratchFile:
    """A file that is written in pieces, under a temporary name. Its methods block; they raise OSError."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / (name + TEMPORARY)
        self._fd: int | None = None

    def write(self, data: bytes | bytearray) -> None:
        if self._fd is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(self.path, flags, 0o600)
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                written += os.write(self._fd, view[written:])

    def write_file(self, other: ScratchFile) -> None:
        """Writes all of another."""
        with other.path.open("rb", buffering=0) as source:
            while piece := source.read(COPY):
                self.write(piece)

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def remove(self) -> None:
        """Closes and removes it, if it is still there."""
        with contextlib.suppress(OSError):
            self.close()
        self.path.unlink(missing_ok=True)


def _fsync(path: Path, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _next_old(entries: Iterator[os.DirEntry[str]], before: float) -> list[str] | None:
    """The old files among the next few entries; None after the last. Blocks."""
    some = list(islice(entries, BATCH))
    if not some:
        return None
    old = []
    for entry in some:
        with contextlib.suppress(FileNotFoundError):
            if _NAME.fullmatch(entry.name) and entry.is_file() and entry.stat().st_mtime < before:
                old.append(entry.name)
    return old
