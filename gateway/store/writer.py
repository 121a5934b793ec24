"""The writer of an SQLite database: one thread, and one commit for whatever waits.

Three rules hold:

1. A caller goes on after the commit that holds its write, or with an error when nothing of it is written.
2. A write that raises is undone alone, by a savepoint (the first of a transaction, by beginning it anew); the
   others of its batch do not notice. Writes that are run together share one; if that raises, each of them
   runs by itself.
3. A failing disk rolls back the whole transaction, savepoints included (and a COMMIT that fails likewise).
   Nobody is answered then: each write of the batch runs once more, alone, and its own commit answers.

The third rule is why a write must be a function that can run again, without side effects. It relies on
another connection to the database being open all the time (Store.open keeps one): so what a failed COMMIT
left in the write-ahead log stays invisible and is overwritten, instead of being recovered by the next open.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import outcome
import sqlalchemy as sa
import trio

from gateway.errors import GatewayError, StoreBusy, StoreUnavailable
from gateway.store.faults import unavailable
from gateway.store.pacing import StartTogether
from gateway.store.writelock import WriteLock

log = logging.getLogger(__name__)

A = TypeVar("A")
T = TypeVar("T")
Together = Callable[[sa.Connection, Sequence[Any]], Sequence[Any]]

MAX_WAITING = 1000  # writes; more than that would wait longer than their callers do
BATCH_WRITES = 64
# As the callers announce them; keeps a commit, and so the next caller's wait, short.
BATCH_BYTES = 4 * 1024 * 1024
BATCH_TIME = 0.005  # seconds


def finished(result: T) -> T:
    """Refuses a result that still reads from its connection, which is somebody else's by then."""
    if isinstance(result, sa.Result):
        raise TypeError("a write or read must fetch its rows itself, not return the open result")
    return result


def driver_connection(conn: sa.Connection) -> sqlite3.Connection:
    """The driver's own connection: plain SQL through it costs a tenth of the way through SQLAlchemy."""
    return cast(sqlite3.Connection, conn.connection.dbapi_connection)


def usable(conn: sa.Connection) -> bool:
    """Whether SQLAlchemy still runs statements on it: after a refused commit, for one, it does not."""
    transaction = conn.get_transaction()
    return not conn.closed and not conn.invalidated and (transaction is None or transaction.is_active)


class _Write:
    """A caller and what it waits for."""

    __slots__ = ("item", "outcome", "size", "task", "together", "work")

    def __init__(
        self,
        work: Callable[[sa.Connection], Any],
        size: int,
        together: Together | None = None,
        item: Any = None,
    ) -> None:
        """`together` does what `work` does, for the items of any number of writes."""
        self.work = work
        self.size = size
        self.together = together
        self.item = item
        self.task = trio.lowlevel.current_task()
        self.outcome: outcome.Outcome[Any] = outcome.Error(StoreUnavailable("the writer failed"))

    def fail(self, exc: BaseException) -> None:
        self.outcome = outcome.Error(unavailable(exc) or exc)


def _answers(together: Together, items: Sequence[Any], conn: sa.Connection) -> Sequence[Any]:
    answers = together(conn, items)
    if len(answers) != len(items):
        raise ValueError(f"{together} answered {len(answers)} times to {len(items)} items")
    return [finished(answer) for answer in answers]


def _answer_to_one(together: Together, item: Any, conn: sa.Connection) -> Any:
    return _answers(together, [item], conn)[0]


class _TransactionLost(Exception):
    """The transaction is no longer open; the cause is what ended it."""


class Writer:
    """Group commit for an SQLite database. Made and used inside a trio run; `run` is its thread's work."""

    def __init__(
        self,
        connect: Callable[[], sa.Connection],
        *,
        max_waiting: int = MAX_WAITING,
        lock: WriteLock | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`lock`: where other processes write too. `check` is called before each batch, in the thread; what
        it raises fails the batch."""
        self._connect = connect
        self._check = check
        self._max_waiting = max_waiting
        self._lock = lock
        self._queue: deque[_Write] = deque()
        self._changed = threading.Condition(threading.Lock())  # guards the two around it
        self._closing = False
        self._unanswered = 0  # the loop's
        self._conn: sa.Connection | None = None  # the thread's, as is the next
        self._bytes = 0  # of the batch under way
        self._trio = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._starter = StartTogether(self._start)
        trio.lowlevel.add_instrument(self._starter)
        self._thread = threading.Thread(target=self._run, name="store writer", daemon=True)
        self._thread.start()

    # --- The callers' side, on the loop

    @property
    def waiting(self) -> int:
        """Writes that have not begun."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether the thread has something to do. What waits for its start needs no turn of it yet."""
        return self._unanswered > 0 and not self._starter.waiting

    async def write(self, work: Callable[[sa.Connection], T], size: int = 0) -> T:
        """See Store.write."""
        return cast(T, await self._hand_in(_Write(work, size)))

    async def write_together(
        self, work: Callable[[sa.Connection, Sequence[A]], Sequence[T]], item: A, size: int = 0
    ) -> T:
        """See Store.write_together."""
        return cast(T, await self._hand_in(_Write(partial(_answer_to_one, work, item), size, work, item)))

    @trio.lowlevel.enable_ki_protection
    async def _hand_in(self, write: _Write) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._changed:
            if self._closing:
                raise StoreUnavailable("the store is closed")
            if len(self._queue) >= self._max_waiting:
                raise StoreBusy(f"{len(self._queue)} writes wait already")
            self._queue.append(write)
        self._starter.expect()
        self._unanswered += 1

        def withdraw(_: object) -> trio.lowlevel.Abort:
            with self._changed:
                try:
                    self._queue.remove(write)
                except ValueError:  # it has begun
                    return trio.lowlevel.Abort.FAILED
            self._unanswered -= 1
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(withdraw)

    async def close(self) -> None:
        """Takes no more writes, and returns when those that wait are done and the connection is closed."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await self._ended.wait()
        self._thread.join()
        trio.lowlevel.remove_instrument(self._starter)

    def _start(self) -> None:
        with self._changed:
            self._changed.notify()

    def _answer(self, batch: list[_Write]) -> None:
        self._unanswered -= len(batch)
        for write in batch:
            trio.lowlevel.reschedule(write.task, write.outcome)

    # --- The thread's side

    def _run(self) -> None:
        while self._wait_for_work():
            batch: list[_Write] = []
            self._bytes = 0
            try:
                self._run_locked(batch)
            except BaseException:
                log.exception("the writer failed")
                self._disconnect()
            if batch:
                self._on_loop(self._answer, batch)
        self._disconnect()
        if self._lock is not None:
            self._lock.close()
        self._on_loop(self._ended.set)

    def _on_loop(self, function: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(trio.RunFinishedError):  # nobody waits any more
            self._trio.run_sync_soon(function, *args)

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            return bool(self._queue)

    def _run_locked(self, batch: list[_Write]) -> None:
        if self._lock is None:
            self._run_batch(batch)
            return
        self._lock.acquire()
        try:
            self._run_batch(batch)
        finally:
            self._lock.release()

    def _run_batch(self, batch: list[_Write]) -> None:
        """Runs what waits in one transaction. Fills `batch`; sets outcomes once they are certain."""
        end = time.monotonic() + BATCH_TIME
        results: list[outcome.Outcome[Any]] = []
        try:
            self._begin()
        except Exception as exc:
            # Nothing has run. The writes that would have been in this batch share its fate.
            self._disconnect()
            while writes := self._take(batch):
                for write in writes:
                    write.fail(exc)
            return
        try:
            while writes := self._take(batch):
                results += self._run_writes(writes, first=not results)
                if time.monotonic() >= end:
                    break
            self._sql("COMMIT")
        except Exception as exc:
            log.error("a transaction of %d writes failed, each is tried again alone: %s", len(batch), exc)
            self._repair()
            self._run_alone(batch)
        else:
            for write, result in zip(batch, results, strict=True):
                write.outcome = result

    def _run_alone(self, batch: list[_Write]) -> None:
        """Runs each write in a transaction of its own."""
        for index, write in enumerate(batch):
            try:
                self._begin()
            except Exception as exc:
                # Waiting for each of them would take as many time limits as there are writes.
                self._disconnect()
                for waiting in batch[index:]:
                    waiting.fail(exc)
                return
            try:
                result = self._run_one(write.work, first=True)
                self._sql("COMMIT")
            except Exception as exc:
                write.fail(exc.__cause__ or exc if isinstance(exc, _TransactionLost) else exc)
                self._repair()
            else:
                write.outcome = result

    def _take(self, batch: list[_Write]) -> list[_Write]:
        """The next write, now begun, with those that are run together with it; none if the batch is full, or
        nothing waits."""
        taken: list[_Write] = []
        with self._changed:
            together = self._queue[0].together if self._queue else None
            left: deque[_Write] = deque()
            while self._queue and len(batch) < BATCH_WRITES and self._bytes < BATCH_BYTES:
                write = self._queue.popleft()
                if taken and write.together != together:
                    left.append(write)
                    continue
                self._bytes += write.size
                batch.append(write)
                taken.append(write)
                if together is None:
                    break
            self._queue.extendleft(reversed(left))
        return taken

    def _run_writes(self, writes: Sequence[_Write], *, first: bool) -> list[outcome.Outcome[Any]]:
        """What became of a write, or of those that are run together."""
        together = writes[0].together
        if together is not None and len(writes) > 1:
            all_of_them = self._run_one(partial(_answers, together, [write.item for write in writes]), first)
            if isinstance(all_of_them, outcome.Value):
                return [outcome.Value(answer) for answer in all_of_them.value]
            if isinstance(all_of_them, outcome.Error) and not isinstance(all_of_them.error, GatewayError):
                # It may be raised for several only: then no caller hears of it.
                error = all_of_them.error
                log.error("%d writes failed together, each is tried by itself", len(writes), exc_info=error)
        return [self._run_one(write.work, first and write is writes[0]) for write in writes]

    def _run_one(self, work: Callable[[sa.Connection], object], first: bool) -> outcome.Outcome[Any]:
        """Runs one write in the open transaction, which holds all of it or nothing afterwards.

        The first of a transaction needs no savepoint, and many are the only one.

        Raises _TransactionLost, or sqlite3.Error, when the transaction cannot go on.
        """
        conn = self._conn
        assert conn is not None
        if not first:
            self._sql("SAVEPOINT one")
        result: outcome.Outcome[Any]
        try:
            result = outcome.Value(finished(work(conn)))
        except BaseException as exc:  # whatever it is, it is its caller's
            result = outcome.Error(exc)
        if not usable(conn) or not driver_connection(conn).in_transaction:
            # Either what was raised ended it, or the write did that itself or hid what was raised.
            bug = RuntimeError("a write ended its transaction, or hid the error that did")
            cause = result.error if isinstance(result, outcome.Error) else bug
            raise _TransactionLost(str(cause)) from cause
        if isinstance(result, outcome.Error):
            result = outcome.Error(unavailable(result.error) or result.error)
            if first:
                self._sql("ROLLBACK")
                self._sql("BEGIN IMMEDIATE")
            else:
                self._sql("ROLLBACK TO one")
        if not first:
            self._sql("RELEASE one")
        return result

    def _begin(self) -> None:
        if self._conn is None:
            self._conn = self._connect()
        self._check()
        self._sql("BEGIN IMMEDIATE")

    def _repair(self) -> None:
        """After a failed transaction: a new connection, and what it left in the log removed if possible.

        Beyond the last commit the log is invisible; but recovery after a crash might take a COMMIT whose
        fsync failed for a good one.
        """
        self._disconnect()
        try:
            self._conn = self._connect()
            timeout = self._conn.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
            self._sql("PRAGMA busy_timeout = 100")  # milliseconds: what a reader may hold this up
            self._sql("PRAGMA wal_checkpoint(TRUNCATE)")
            self._sql(f"PRAGMA busy_timeout = {timeout}")
        except Exception as exc:
            log.error("the database cannot be opened again: %s", exc)
            self._disconnect()

    def _disconnect(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            try:
                conn.close()
            except Exception as exc:
                log.error("closing the database: %s", exc)

    def _sql(self, statement: str) -> None:
        assert self._conn is not None
        driver_connection(self._conn).execute(statement)
