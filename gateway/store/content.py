"""Messages' bytes: small ones in their row, large ones in a file that is durable before its row is.

A file belongs to the row that names it. It is written under a temporary name, fsynced, renamed, and its
directory fsynced; only then is its row written. The row goes in the transaction that removes its last
reference, the file after that commit. So a crash leaves no row without its file; files that no row names
are swept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar, TypeVarTuple

import sqlalchemy as sa
import trio

from gateway.errors import StoreError, StoreUnavailable
from gateway.store import tables
from gateway.store.content_files import TEMPORARY, ContentFile, begin_with, new_name, next_old
from gateway.store.statements import Statement
from gateway.store.writer import unavailable

if TYPE_CHECKING:
    from gateway.store.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SMALL = 128 * 1024  # bytes: from here on in a file (the two cost the same near twice that)
PIECE = 64 * 1024  # bytes: what a reader is given at a time
READ_AHEAD = 4 * PIECE  # bytes: read at a time, as the way to a thread and back costs more than reading them
THREADS = 8  # for files; more would only wait for the same disk
SWEEP_AGE = timedelta(hours=1)  # the row of a younger file may be on its way
BATCH = 500  # IDs at a time


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """Bytes that may get a row: in `data`, or durable in `file` (a name below the content directory)."""

    size: int
    data: bytes | None = None
    file: str | None = None


class Located(Protocol):
    """Where stored bytes are: a StoredBytes, or what was read from a row."""

    @property
    def size(self) -> int: ...
    @property
    def data(self) -> bytes | None: ...
    @property
    def file(self) -> str | None: ...


# --- In a transaction ---------------------------------------------------------------------------------

_INSERT = Statement(sa.insert(tables.content).returning(tables.content.c.id))
_DELETE_UNUSED = Statement(
    sa.delete(tables.content)
    .where(
        tables.content.c.id.in_(sa.bindparam("ids", expanding=True)),
        ~sa.exists().where(tables.message.c.content_id == tables.content.c.id),
        ~sa.exists().where(tables.received.c.content_id == tables.content.c.id),
    )
    .returning(tables.content.c.file)
)


def insert_content(conn: sa.Connection, stored: StoredBytes, now: datetime) -> int:
    """Writes the row of stored bytes; answers its ID. Store.write is told `size=stored.size` for it."""
    values = {"size": stored.size, "data": stored.data, "file": stored.file, "created": now}
    return int(_INSERT.scalar(conn, values))


def release_content(conn: sa.Connection, content_ids: Iterable[int]) -> list[str]:
    """Deletes those of the rows that nothing refers to any more.

    Answers the files to hand to ContentStore.unlink after the commit.
    """
    files: list[str] = []
    ids = iter(sorted(set(content_ids)))
    while some := list(islice(ids, BATCH)):
        files += [row.file for row in _DELETE_UNUSED.all(conn, {"ids": some}) if row.file is not None]
    return files


def files_with_row(conn: sa.Connection, names: list[str]) -> set[str]:
    """Those of at most a few hundred file names that a row has."""
    return set(conn.scalars(sa.select(tables.content.c.file).where(tables.content.c.file.in_(names))))


# --- Files --------------------------------------------------------------------------------------------


class ContentStore:
    """The content directory of a store (Store.content).

    Error handling: a full or failing disk is StoreUnavailable everywhere; then no file is left.
    """

    def __init__(self, directory: Path, store: Store) -> None:
        self.directory = directory
        self._store = store
        self._limiter = trio.CapacityLimiter(THREADS)
        self._spooling: set[str] = set()  # names that the sweep leaves alone, however old

    def spool(self) -> Spool:
        """For bytes that come in pieces: `async with content.spool() as spool`."""
        return Spool(self)

    async def put(self, data: bytes) -> StoredBytes:
        """Stores bytes that are at hand, for one Store.write with insert_content.

        If that write fails, `discard` gives the space back; else the next sweep does.
        """
        if len(data) < SMALL:
            return StoredBytes(len(data), data=data)
        file = ContentFile(self.directory, new_name())
        try:
            await self.in_thread(file.write_and_publish, data)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.in_thread(file.remove)
            raise
        return StoredBytes(len(data), file=file.name)

    async def discard(self, stored: StoredBytes) -> None:
        """Removes the file of stored bytes, unless a row has it: right in any doubt about a write."""
        if stored.file is None:
            return
        name = stored.file
        with trio.CancelScope(shield=True):
            try:
                if not await self._store.read(lambda conn: files_with_row(conn, [name])):
                    await self.unlink([name])
            except StoreError as exc:
                log.warning("content file %s is left for the next sweep: %s", name, exc)

    def open(self, where: Located) -> StoredContent:
        """A reader of stored bytes (a gateway.model.Content). Nothing is opened before it is read."""
        return StoredContent(self, where)

    async def unlink(self, files: Iterable[str]) -> None:
        """Removes files whose rows are gone. Does not raise: what cannot be removed now is swept later."""
        names = list(files)
        if names:
            await self.in_thread(self._unlink, names)

    async def sweep(self) -> int:
        """Removes files older than an hour that no row has; answers how many. May run at any time."""
        before = (self._store.clock.now() - SWEEP_AGE).timestamp()
        swept = 0
        entries = await self.in_thread(os.scandir, self.directory)
        with entries:
            while (old := await self.in_thread(next_old, entries, before)) is not None:
                names = [name for name in old if name.removesuffix(TEMPORARY) not in self._spooling]
                if not names:
                    continue
                kept = await self._store.read(partial(files_with_row, names=names))
                orphans = [name for name in names if name not in kept]
                await self.unlink(orphans)
                swept += len(orphans)
        if swept:
            log.info("removed %d content files that belonged to no message", swept)
        return swept

    async def in_thread(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        try:
            return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)
        except OSError as exc:
            raise unavailable(exc) or exc from exc

    def _unlink(self, names: list[str]) -> None:
        for name in names:
            try:
                (self.directory / name).unlink(missing_ok=True)
            except OSError as exc:
                log.error("content file %s cannot be removed: %s", name, exc)


class Spool:
    """Takes bytes in pieces: in memory while they are few, in a file from then on. Not for several tasks.

    What `finish` answers is for a Store.write inside the `async with`: leaving that removes a file that no
    row has by then, however it is left.
    """

    def __init__(self, owner: ContentStore) -> None:
        self.size = 0  # bytes so far
        self._owner = owner
        self._buffer = bytearray()  # at most SMALL and a piece
        self._file: ContentFile | None = None
        self._stored: StoredBytes | None = None

    async def __aenter__(self) -> Spool:
        return self

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Raises StoreUnavailable."""
        if self._stored is not None:
            raise ValueError("the spool is finished")
        self._buffer += data
        self.size += len(data)
        if len(self._buffer) >= SMALL:
            buffer, self._buffer = self._buffer, bytearray()
            await self._owner.in_thread(self._to_file().write, buffer)

    async def finish(self, head: bytes = b"") -> StoredBytes:
        """Makes what was written durable, if it is in a file, behind `head`. Raises StoreUnavailable.

        Once: later calls answer the same. A head costs a copy of the file, before its fsync.
        """
        if self._stored is None:
            self.size += len(head)
            if self._file is None and self.size < SMALL:
                self._stored = StoredBytes(self.size, data=head + bytes(self._buffer))
            else:
                if head:
                    await self._begin_with(head)
                file = self._to_file()
                await self._owner.in_thread(file.write_and_publish, self._buffer)
                self._stored = StoredBytes(self.size, file=file.name)
            self._buffer = bytearray()
        return self._stored

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """What leaving the `async with` does, for one that cannot have it in a single function."""
        self._buffer = bytearray()
        if self._file is None:
            return
        with trio.CancelScope(shield=True):
            try:
                if self._stored is None:
                    await self._owner.in_thread(self._file.remove)
                else:
                    await self._owner.discard(self._stored)
            finally:
                self._owner._spooling.discard(self._file.name)

    async def _begin_with(self, head: bytes) -> None:
        """Puts a head before what is in the file, in a new one."""
        body, self._file = self._file, None
        try:
            await self._owner.in_thread(begin_with, self._to_file(), head, body)
        finally:
            if body is not None:
                self._owner._spooling.discard(body.name)

    def _to_file(self) -> ContentFile:
        if self._file is None:
            self._file = ContentFile(self._owner.directory, new_name())
            self._owner._spooling.add(self._file.name)
        return self._file


class StoredContent:
    """A stored message's bytes: see gateway.model.Content.

    Error handling: a file that is missing or was cut short is StoreUnavailable, never a shorter message.
    """

    def __init__(self, owner: ContentStore, where: Located) -> None:
        self._owner = owner
        self._where = where

    @property
    def size(self) -> int:
        return self._where.size

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes in pieces of at most 64 KiB."""
        if self._where.file is None:
            return _Pieces(self._where.data or b"")
        return _FilePieces(self._owner, self._where.file, self.size)

    async def read(self) -> bytes:
        """All of the bytes."""
        if self._where.file is None:
            await trio.lowlevel.checkpoint()
            return self._where.data or b""
        path = self._owner.directory / self._where.file
        data = await self._owner.in_thread(path.read_bytes)
        if len(data) != self.size:
            raise _wrong_size(self._where.file, len(data), self.size)
        return data


class _Pieces:
    """Iterates over bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = self._data[self._at : self._at + PIECE]
        if not piece:
            raise StopAsyncIteration
        self._at += len(piece)
        return piece


class _FilePieces:
    """Iterates over a file. It stays open meanwhile, so that a removal of the message does not cut it short.

    A class instead of an async generator: one that is left early needs no closing in time.
    """

    def __init__(self, owner: ContentStore, name: str, size: int) -> None:
        self._owner, self._name, self._size = owner, name, size
        self._fd: int | None = None
        self._at = 0
        self._ahead = b""
        self._ahead_at = 0

    def __aiter__(self) -> _FilePieces:
        return self

    async def __anext__(self) -> bytes:
        if self._ahead_at == len(self._ahead):
            self._ahead = await self._owner.in_thread(self._read_ahead)
            self._ahead_at = 0
            self._at += len(self._ahead)
            if self._at > self._size or (not self._ahead and self._at < self._size):
                raise _wrong_size(self._name, self._at, self._size)
        else:
            await trio.lowlevel.checkpoint()
        piece = self._ahead[self._ahead_at : self._ahead_at + PIECE]
        if not piece:
            self._close()
            raise StopAsyncIteration
        self._ahead_at += len(piece)
        return piece

    def _read_ahead(self) -> bytes:
        if self._fd is None:
            self._fd = os.open(self._owner.directory / self._name, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._fd, READ_AHEAD, self._at)

    def __del__(self) -> None:
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _wrong_size(name: str, found: int, size: int) -> StoreUnavailable:
    return StoreUnavailable(f"content file {name} is damaged: {found} bytes instead of {size}")
