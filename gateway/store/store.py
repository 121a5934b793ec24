"""The store: one SQLite database, written by one thread and read by a few.

Everything that reads or writes is a function of a connection (`gateway.store.queue` and its neighbours have
them), handed to `read` or `write`. The event loop never waits for the disk.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
import trio

from gateway.clock import Clock
from gateway.errors import StartError, StoreBusy, StoreUnavailable
from gateway.store import migrations
from gateway.store.content_stores import Registered
from gateway.store.contents import Contents
from gateway.store.faults import unavailable
from gateway.store.pacing import GiveWay
from gateway.store.writelock import WriteLock
from gateway.store.writer import (
    MAX_WAITING,
    Writer,
    driver_connection,
    finished,
    usable,
)

A = TypeVar("A")
T = TypeVar("T")

FILE = "gateway.db"
LOCK = "gateway.db-lock"  # see gateway.store.writelock
CONTENT = "content"  # directory of large messages
NO_MORE = Registered({})  # content stores than the built-in one
READERS = 2  # threads: reads of the hot path take well under a millisecond
MAX_WAITING_READS = 1000
_compact_json = json.JSONEncoder(separators=(",", ":")).encode
PRAGMAS = (
    "busy_timeout = 10000",  # milliseconds; only another process can make us wait
    "synchronous = FULL",  # in WAL mode: an fsync at each commit
    "foreign_keys = ON",
    "temp_store = MEMORY",
    "cache_size = -16384",  # KiB
    # A checkpoint every 16 MiB: four times the default, as messages of up to 128 kB pass through the log.
    "wal_autocheckpoint = 4096",  # pages
    "journal_size_limit = 67108864",  # bytes of log kept on disk after a burst
)


class Store:
    """The database of a gateway. `Store.open` makes one.

    Error handling: `read` and `write` raise what their function raises, but errors of the disk and the
    database as StoreUnavailable, and StoreBusy at once when too many wait.
    """

    def __init__(
        self, path: Path, clock: Clock, writer: Writer, readers: Readers, content_stores: Registered
    ) -> None:
        self.path = path
        self.clock = clock
        self.content = Contents(path.parent / CONTENT, self, content_stores)
        self._writer = writer
        self._readers = readers

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        data_dir: Path,
        clock: Clock,
        *,
        readers: int = READERS,
        max_waiting: int = MAX_WAITING,
        shared: bool = False,
        content_stores: Registered = NO_MORE,
    ) -> AsyncIterator[Store]:
        """Opens the database below `data_dir`, made and migrated as needed.

        Leaving waits for the writes that were handed in, also when cancelled. `shared`: other processes
        write to it too. `content_stores`: those of plugins, and which of all is chosen.

        Raises StartError when it cannot be opened.
        """
        path = (data_dir / FILE).absolute()
        engine = make_engine(path)
        # Nobody uses this connection: it is open as long as the writer works, which relies on that.
        anchor = await trio.to_thread.run_sync(_prepare, engine, path)
        pool = Readers(engine.connect, readers)
        writer = Writer(
            engine.connect,
            max_waiting=max_waiting,
            lock=WriteLock(data_dir / LOCK) if shared else None,
            check=partial(_check_is_there, path, path.stat().st_ino),
        )
        give_way = GiveWay(lambda: writer.busy or pool.busy)
        trio.lowlevel.add_instrument(give_way)
        try:
            yield cls(path, clock, writer, pool, content_stores)
        finally:
            with trio.CancelScope(shield=True):
                await writer.close()
                await pool.close()
                # The last connection that closes moves the log into the database.
                await trio.to_thread.run_sync(anchor.close)
                trio.lowlevel.remove_instrument(give_way)

    async def write(self, work: Callable[[sa.Connection], T], *, size: int = 0) -> T:
        """Runs `work` in a transaction, and returns its answer once that is durable.

        `work` runs in the writer's thread, in one transaction with other callers' writes: what it raises
        undoes all that it did, and nothing else, and is raised here. It may run twice, so it must have
        no effects but those on the database; it must not commit, nor catch OperationalError. `size` is about
        how many bytes it writes, where that is more than a few thousand.

        Cancellation: a write that has not begun is withdrawn. One that has begun is waited for; its result is
        returned, and the cancellation shows at the caller's next checkpoint. So whoever gets Cancelled from
        here knows that nothing was written.
        """
        return await self._writer.write(work, size)

    async def write_together(
        self, work: Callable[[sa.Connection, Sequence[A]], Sequence[T]], item: A, *, size: int = 0
    ) -> T:
        """As `write`, for what is quicker done for many at once: `work` gets this item and those of other
        callers that wait for the same `work`, and returns an answer to each, in their order. So it may come
        before writes that were handed in earlier.

        What it raises for several of them is undone, and it runs again for each of them by itself.
        """
        return await self._writer.write_together(work, item, size)

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Runs `work` on one consistent state of the database, without write access, in a reader's thread.

        Cancellation: is waited for, as in `write`; a read that has not begun is dropped.
        """
        return await self._readers.read(work)

    @property
    def writes_waiting(self) -> int:
        return self._writer.waiting


def prepare(data_dir: Path) -> None:
    """Makes and migrates the database, for processes that will open it. Raises StartError."""
    path = (data_dir / FILE).absolute()
    _prepare(make_engine(path), path).close()


class Readers:
    """Connections that only read, and as many threads that use them."""

    def __init__(self, connect: Callable[[], sa.Connection], number: int) -> None:
        self._connect = connect
        self._idle: list[sa.Connection | None] = [None] * number  # None: to be opened when it is needed
        self._limiter = trio.CapacityLimiter(number)
        self._closed = False

    @property
    def busy(self) -> bool:
        return self._limiter.borrowed_tokens > 0

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._limiter.statistics().tasks_waiting >= MAX_WAITING_READS:
            raise StoreBusy("too many reads wait already")
        return await trio.to_thread.run_sync(self._run, work, limiter=self._limiter)

    async def close(self) -> None:
        """Returns when the reads under way are done and the connections closed."""
        self._closed = True
        for _ in range(int(self._limiter.total_tokens)):
            await self._limiter.acquire_on_behalf_of(object())
        while self._idle:
            if (conn := self._idle.pop()) is not None:
                await trio.to_thread.run_sync(conn.close)

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        conn = self._idle.pop()  # there is one: the limiter sees to that
        try:
            if conn is None:
                conn = open_reader(self._connect)
            driver = driver_connection(conn)
            driver.execute("BEGIN")
            try:
                return finished(work(conn))
            finally:
                if driver.in_transaction:
                    driver.execute("ROLLBACK")
        except BaseException as exc:
            told = unavailable(exc)
            if conn is not None and (told or not usable(conn)):
                conn.close()
                conn = None
            if told:
                raise told from exc
            raise
        finally:
            self._idle.append(conn)


def _check_is_there(path: Path, inode: int) -> None:
    """Raises OSError when the file is gone: what is written to it while it is open would be lost."""
    if path.stat().st_ino != inode:
        raise FileNotFoundError(
            errno.ENOENT, "the database file was replaced; restart the gateway", str(path)
        )


def make_engine(path: Path) -> sa.Engine:
    """An engine whose connections begin and commit nothing by themselves; each is opened when asked for."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.pool.NullPool,
        connect_args={"isolation_level": None, "check_same_thread": False, "cached_statements": 512},
        json_serializer=_compact_json,
    )
    sa.event.listen(engine, "connect", _set_pragmas)
    sa.event.listen(engine, "commit", _refuse_commit)
    return engine


def open_reader(connect: Callable[[], sa.Connection]) -> sa.Connection:
    conn = connect()
    conn.exec_driver_sql("PRAGMA query_only = ON")
    return conn


def _set_pragmas(dbapi_connection: sqlite3.Connection, _record: object) -> None:
    for pragma in PRAGMAS:
        dbapi_connection.execute(f"PRAGMA {pragma}").close()


def _refuse_commit(_conn: sa.Connection) -> None:
    raise RuntimeError("a write or read must not commit: the store does")


def _prepare(engine: sa.Engine, path: Path) -> sa.Connection:
    """Makes and migrates the database, and answers a connection to it. Raises StartError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (path.parent / CONTENT).mkdir(mode=0o700, exist_ok=True)
        # The log and its index get the same permissions: messages and password hashes are nobody else's.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        conn = engine.connect()
        try:
            # Before the first table is made: so space can be given back later without copying the database.
            conn.exec_driver_sql("PRAGMA auto_vacuum = INCREMENTAL")
            mode = conn.exec_driver_sql("PRAGMA journal_mode = WAL").scalar_one()
            if mode != "wal":
                raise StartError(
                    f"{path}: write-ahead logging does not work on this file system; use a local one"
                )
            _migrate(conn, path)
        except BaseException:
            conn.close()
            raise
        return conn
    except (OSError, sa.exc.DBAPIError, sqlite3.Error) as exc:
        reason = unavailable(exc) or exc
        raise StartError(f"{path}: {reason}") from exc


def _migrate(conn: sa.Connection, path: Path) -> None:
    try:
        if migrations.stored_version(conn) != migrations.head():
            conn.exec_driver_sql("BEGIN IMMEDIATE")
            migrations.upgrade(conn)  # looks again: another process may have been faster
            conn.exec_driver_sql("COMMIT")
    except migrations.NotOurs as exc:
        raise StartError(f"{path}: {exc}") from None
