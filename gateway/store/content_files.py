"""The files of content: under a temporary name until they are durable. All of it blocks."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

COPY = 1024 * 1024  # bytes: copied at a time
LOOK_AT = 500  # names at a time
TEMPORARY = ".tmp"
_NAME = re.compile(r"[0-9a-f]{32}(\.tmp)?")


class ContentFile:
    """A file on its way into the content directory. Its methods raise OSError."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self._directory = directory
        self._final = directory / name
        self._temporary = directory / (name + TEMPORARY)
        self._fd: int | None = None

    def write(self, data: bytes | bytearray) -> None:
        if self._fd is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(self._temporary, flags, 0o600)
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                written += os.write(self._fd, view[written:])

    def write_and_publish(self, data: bytes | bytearray) -> None:
        """Writes the rest, and makes the whole durable under its name."""
        self.write(data)
        assert self._fd is not None
        os.fsync(self._fd)
        self._close()
        self._temporary.replace(self._final)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def write_file(self, other: ContentFile) -> None:
        """Writes all of another that is not published."""
        with other._temporary.open("rb", buffering=0) as source:
            while piece := source.read(COPY):
                self.write(piece)

    def remove(self) -> None:
        """Closes and removes whatever there is."""
        with contextlib.suppress(OSError):
            self._close()
        for path in (self._temporary, self._final):
            path.unlink(missing_ok=True)

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def begin_with(file: ContentFile, head: bytes, body: ContentFile | None) -> None:
    """A file of a head, and of what another has; that one goes, whatever happens."""
    try:
        file.write(head)
        if body is not None:
            file.write_file(body)
    finally:
        if body is not None:
            body.remove()


def new_name() -> str:
    return secrets.token_hex(16)


def next_old(entries: Iterator[os.DirEntry[str]], before: float) -> list[str] | None:
    """The old files among the next few entries; None after the last."""
    some = list(islice(entries, LOOK_AT))
    if not some:
        return None
    old = []
    for entry in some:
        with contextlib.suppress(FileNotFoundError):
            if _NAME.fullmatch(entry.name) and entry.is_file() and entry.stat().st_mtime < before:
                old.append(entry.name)
    return old
