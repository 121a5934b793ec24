"""The writer: nobody is told "done" falsely, nobody "failed" falsely, whatever the others and the disk do."""

from __future__ import annotations

import contextlib
import functools
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trio
import trio.testing

from gateway.clock import ManualClock
from gateway.errors import Stale, StoreBusy, StoreUnavailable
from gateway.store import pacing, tables
from gateway.store import store as store_module
from gateway.store import writer as writer_module
from gateway.store.store import Store
from tests.commands import PATIENCE

Work = Callable[[sa.Connection], Any]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path, ManualClock(), max_waiting=200) as store:
        yield store


def put(name: str, value: str = "") -> Work:
    """A write of one row, that answers its name."""

    def work(conn: sa.Connection) -> str:
        conn.execute(sa.insert(tables.fact), {"name": name, "value": value})
        return name

    return work


def names(conn: sa.Connection) -> list[str]:
    return list(conn.scalars(sa.select(tables.fact.c.name).order_by(tables.fact.c.name)))


def on_disk(store: Store) -> list[str]:
    """The rows as another program sees them."""
    with contextlib.closing(sqlite3.connect(store.path)) as other:
        return [name for (name,) in other.execute("SELECT name FROM fact ORDER BY name")]


class Gate:
    """A write that holds the writer until it is told to go on, so that others gather behind it."""

    def __init__(self) -> None:
        self._began, self._go_on = threading.Event(), threading.Event()

    def __call__(self, conn: sa.Connection) -> None:
        self._began.set()
        assert self._go_on.wait(PATIENCE)

    async def began(self) -> None:
        assert await trio.to_thread.run_sync(self._began.wait, 10)

    def open(self) -> None:
        self._go_on.set()


@contextlib.asynccontextmanager
async def gathered(store: Store) -> AsyncIterator[trio.Nursery]:
    """Writes that are started in this nursery come into one batch, as far as it takes them."""
    gate = Gate()  # so large that its batch takes no other
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(store.write, gate, size=writer_module.BATCH_BYTES))
        await gate.began()
        yield nursery
        await trio.testing.wait_all_tasks_blocked()
        gate.open()


class Callers:
    """What became of each write."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.done: list[str] = []
        self.failed: dict[str, BaseException] = {}

    async def write(self, name: str, work: Work, size: int = 0) -> None:
        try:
            assert await self.store.write(work, size=size) == name
        except BaseException as exc:
            self.failed[name] = exc
        else:
            self.done.append(name)


@pytest.fixture
def slow_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches end by number and size only."""
    monkeypatch.setattr(writer_module, "BATCH_TIME", 60.0)


@contextlib.asynccontextmanager
async def traced(store: Store) -> AsyncIterator[list[str]]:
    """The statements that the writer's connection runs."""
    seen: list[str] = []

    def trace(function: Callable[[str], None] | None) -> Work:
        return lambda conn: writer_module.driver_connection(conn).set_trace_callback(function)

    await store.write(trace(seen.append))
    yield seen
    await store.write(trace(None))


async def test_what_waits_is_written_with_one_commit(store: Store, slow_batches: None) -> None:
    callers = Callers(store)
    async with traced(store) as statements:
        async with gathered(store) as nursery:
            for name in "abcdef":
                nursery.start_soon(callers.write, name, put(name))
        assert statements.count("COMMIT") == 2 + 1  # two: the write that set the trace, and the gate
    assert sorted(callers.done) == list("abcdef") == await store.read(names)


async def test_who_is_woken_before_a_write_joins_its_transaction(store: Store) -> None:
    hint = trio.Event()
    found: list[str] = []

    async def claim() -> None:
        await hint.wait()
        time.sleep(0.02)  # noqa: ASYNC251 - the writer's thread has all the time that it wants
        found.extend(await store.write(names))

    async with traced(store) as statements, trio.open_nursery() as nursery:
        nursery.start_soon(claim)
        await trio.testing.wait_all_tasks_blocked(0.05)  # the writer waits too
        hint.set()
        await store.write(put("a"))
    assert found == ["a"]
    assert statements.count("COMMIT") == 1 + 1  # of the write that set the trace, and one for both


async def test_a_busy_loop_keeps_no_write_from_its_start(store: Store) -> None:
    async with trio.open_nursery() as nursery:

        async def spin() -> None:
            while True:
                await trio.lowlevel.checkpoint()

        nursery.start_soon(spin)
        with trio.fail_after(PATIENCE):
            assert await store.write(put("a")) == "a"
        nursery.cancel_scope.cancel()


async def test_nobody_goes_on_before_the_commit(store: Store) -> None:
    callers, gate = Callers(store), Gate()
    async with gathered(store) as nursery:
        nursery.start_soon(callers.write, "a", put("a"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(store.write, gate)
        nursery.start_soon(callers.write, "b", put("b"))

        @nursery.start_soon
        async def look() -> None:
            await gate.began()  # the write of "a" has run by now, if the batch took it
            assert set(callers.done) == set(on_disk(store))
            gate.open()

    assert on_disk(store) == ["a", "b"]


async def test_a_done_write_is_seen_by_other_programs(store: Store) -> None:
    for count in range(1, 6):
        await store.write(put(str(count)))
        assert len(on_disk(store)) == count


@pytest.mark.parametrize(
    ("callers", "size", "commits"), [(130, 0, 3), (64, 0, 1), (9, 1024 * 1024, 3), (3, 10**9, 3)]
)
async def test_batches_end(store: Store, slow_batches: None, callers: int, size: int, commits: int) -> None:
    async with traced(store) as statements:
        async with gathered(store) as nursery:
            for i in range(callers):
                nursery.start_soon(functools.partial(store.write, put(f"{i:03}"), size=size))
            await trio.testing.wait_all_tasks_blocked()
            assert store.writes_waiting == callers
        assert statements.count("COMMIT") == commits + 2
    assert len(await store.read(names)) == callers


async def test_a_long_batch_ends(store: Store) -> None:
    async with traced(store) as statements:
        async with gathered(store) as nursery:
            for _ in range(3):
                nursery.start_soon(store.write, lambda conn: time.sleep(0.006))
        assert statements.count("COMMIT") == 2 + 3


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), Stale("x"), SystemExit(3), KeyboardInterrupt(), MemoryError(), RecursionError()],
)
async def test_a_raising_write_is_undone_and_the_others_are_not(
    store: Store, slow_batches: None, error: BaseException
) -> None:
    def fails(conn: sa.Connection) -> None:
        put("bad")(conn)
        raise error

    callers = Callers(store)
    async with gathered(store) as nursery:
        for name in "abc":
            nursery.start_soon(callers.write, name, put(name))
            nursery.start_soon(callers.write, f"bad {name}", fails)
    assert sorted(callers.done) == list("abc") == on_disk(store)
    assert set(callers.failed.values()) == {error}
    await store.write(put("d"))


@pytest.mark.parametrize("order", [["bad"], ["bad", "a"], ["a", "bad"], ["bad", "a", "bad too", "b"]])
async def test_what_raises_is_undone_wherever_it_stands(
    store: Store, slow_batches: None, order: list[str]
) -> None:
    def write(name: str, conn: sa.Connection) -> str:
        put(name)(conn)
        if "bad" in name:
            raise ValueError(name)
        return name

    callers = Callers(store)
    async with gathered(store) as nursery:
        for name in order:
            nursery.start_soon(callers.write, name, functools.partial(write, name))
            await trio.testing.wait_all_tasks_blocked()
    good = [name for name in order if "bad" not in name]
    assert sorted(callers.done) == good == on_disk(store)
    assert set(callers.failed) == set(order) - set(good)


async def test_an_error_of_a_statement_is_its_callers(store: Store, slow_batches: None) -> None:
    callers = Callers(store)
    async with gathered(store) as nursery:
        nursery.start_soon(callers.write, "a", put("a"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(callers.write, "again", put("a"))
        nursery.start_soon(callers.write, "b", put("b"))
        nursery.start_soon(callers.write, "wrong", lambda conn: conn.exec_driver_sql("NONSENSE"))
    assert sorted(callers.done) == ["a", "b"] == on_disk(store)
    assert isinstance(callers.failed["again"], sa.exc.IntegrityError)
    assert isinstance(callers.failed["wrong"], sa.exc.OperationalError)


# --- Together ---------------------------------------------------------------------------------------


def put_all(conn: sa.Connection, items: Sequence[str]) -> list[str]:
    """Rows of these names; what a row's name says may come instead."""
    conn.execute(sa.insert(tables.fact), [{"name": name, "value": str(len(items))} for name in items])
    if "bad" in items:
        raise ValueError("a bad one")
    if "stale" in items:
        raise Stale("a stale one")
    return [f"{name} is there" for name in items]


async def hand_in(store: Store, name: str, answers: dict[str, object], size: int = 0) -> None:
    try:
        answers[name] = await store.write_together(put_all, name, size=size)
    except Exception as exc:
        answers[name] = exc


def run_with(conn: sa.Connection) -> list[int]:
    """How many were written together with each row, in the order of their names."""
    return [int(value) for value in conn.scalars(sa.select(tables.fact.c.value).order_by(tables.fact.c.name))]


async def test_writes_that_go_together_are_one_call(store: Store, slow_batches: None) -> None:
    answers: dict[str, object] = {}
    async with gathered(store) as nursery:
        for name in "abc":
            nursery.start_soon(hand_in, store, name, answers)
        nursery.start_soon(store.write, put("between", "9"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(hand_in, store, "d", answers)
    assert answers == {name: f"{name} is there" for name in "abcd"}
    assert await store.read(names) == ["a", "b", "between", "c", "d"]
    assert await store.read(run_with) == [4, 4, 9, 4, 4]


@pytest.mark.parametrize(("bad", "error", "logged"), [("bad", ValueError, 1), ("stale", Stale, 0)])
async def test_one_that_raises_leaves_the_others_to_be_written_alone(
    store: Store,
    slow_batches: None,
    caplog: pytest.LogCaptureFixture,
    bad: str,
    error: type[Exception],
    logged: int,
) -> None:
    answers: dict[str, object] = {}
    async with gathered(store) as nursery:
        for name in ("a", bad, "c"):
            nursery.start_soon(hand_in, store, name, answers)
    assert isinstance(answers.pop(bad), error)
    assert answers == {"a": "a is there", "c": "c is there"}
    assert on_disk(store) == ["a", "c"]
    assert await store.read(run_with) == [1, 1]
    # What nobody meant to raise might be raised only for several: then no caller hears of it.
    assert caplog.text.count("3 writes failed together") == logged


async def test_another_number_of_answers_is_an_error(store: Store, slow_batches: None) -> None:
    def first_only(conn: sa.Connection, items: Sequence[str]) -> list[str]:
        return put_all(conn, items)[:0]

    failed: list[str] = []
    async with gathered(store) as nursery:
        for name in "ab":

            @nursery.start_soon
            async def caller(name: str = name) -> None:
                with pytest.raises(ValueError, match="answered 0 times to 1 items"):
                    await store.write_together(first_only, name)
                failed.append(name)

    assert sorted(failed) == ["a", "b"]
    assert on_disk(store) == []


@pytest.mark.parametrize(("callers", "size", "together"), [(70, 0, {64, 6}), (9, 1024 * 1024, {4, 1})])
async def test_no_more_go_together_than_a_batch_has(
    store: Store, slow_batches: None, callers: int, size: int, together: set[int]
) -> None:
    answers: dict[str, object] = {}
    async with traced(store) as statements:
        async with gathered(store) as nursery:
            for number in range(callers):
                nursery.start_soon(hand_in, store, f"{number:02}", answers, size)
        assert statements.count("COMMIT") == 2 + (callers + max(together) - 1) // max(together)
    assert len(answers) == callers == len(on_disk(store))
    assert set(await store.read(run_with)) == together


async def test_who_is_cancelled_does_not_go_with_the_others(store: Store, slow_batches: None) -> None:
    answers: dict[str, object] = {}
    async with gathered(store) as nursery:
        nursery.start_soon(hand_in, store, "a", answers)
        with trio.move_on_after(0.01) as scope:
            await hand_in(store, "gone", answers)
        assert scope.cancelled_caught
        nursery.start_soon(hand_in, store, "b", answers)
    assert answers == {"a": "a is there", "b": "b is there"}
    assert on_disk(store) == ["a", "b"]


def ends_transaction(conn: sa.Connection) -> None:
    put("half")(conn)
    conn.exec_driver_sql("ROLLBACK")


def hides_the_end(conn: sa.Connection) -> None:
    put("half")(conn)
    with contextlib.suppress(sa.exc.IntegrityError):
        conn.exec_driver_sql("INSERT OR ROLLBACK INTO fact VALUES ('half', '')")


def commits(conn: sa.Connection) -> None:
    put("half")(conn)
    conn.commit()


@pytest.mark.parametrize("bug", [ends_transaction, hides_the_end, commits])
async def test_a_write_that_ends_the_transaction_fails_alone(
    store: Store, slow_batches: None, bug: Work
) -> None:
    callers = Callers(store)
    async with gathered(store) as nursery:
        for name in "abc":
            nursery.start_soon(callers.write, name, put(name))
            nursery.start_soon(callers.write, f"bad {name}", bug)
    assert sorted(callers.done) == list("abc") == on_disk(store)
    assert {type(exc) for exc in callers.failed.values()} == {RuntimeError}


async def test_a_failing_commit_fails_only_the_write_that_causes_it(store: Store, slow_batches: None) -> None:
    def broken_promise(conn: sa.Connection) -> None:
        conn.exec_driver_sql("INSERT INTO child VALUES (17)")

    def make(conn: sa.Connection) -> None:
        conn.exec_driver_sql("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        conn.exec_driver_sql("CREATE TABLE child (id REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)")

    await store.write(make)
    callers = Callers(store)
    async with gathered(store) as nursery:
        for name in "abc":
            nursery.start_soon(callers.write, name, put(name))
        nursery.start_soon(callers.write, "bad", broken_promise)
    assert sorted(callers.done) == list("abc") == on_disk(store)
    assert isinstance(callers.failed["bad"], sqlite3.IntegrityError)
    assert await store.read(lambda conn: conn.exec_driver_sql("SELECT id FROM child").all()) == []


async def test_an_open_result_is_refused(store: Store) -> None:
    with pytest.raises(TypeError, match="fetch its rows"):
        await store.write(lambda conn: conn.exec_driver_sql("SELECT 1"))


# --- Disks ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: writing more fails as on a failing disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_full_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_batches: None) -> None:
    async with Store.open(tmp_path, ManualClock()) as store:
        pages = await store.read(lambda conn: conn.exec_driver_sql("PRAGMA page_count").scalar_one())
    monkeypatch.setattr(store_module, "PRAGMAS", (*store_module.PRAGMAS, f"max_page_count = {pages + 20}"))
    async with Store.open(tmp_path, ManualClock()) as store:
        callers = Callers(store)
        async with gathered(store) as nursery:
            for i in range(60):
                nursery.start_soon(callers.write, f"{i:02}", put(f"{i:02}", "x" * 3000))
        assert sorted(callers.done) == on_disk(store)
        assert 10 < len(callers.done) < 30
        assert len(callers.done) + len(callers.failed) == 60
        for exc in callers.failed.values():
            assert isinstance(exc, StoreUnavailable)
            assert str(exc) == "disk full: database or disk is full"
        # What gives space back still works, and then everything does.
        await store.write(lambda conn: conn.execute(sa.delete(tables.fact)).close())
        await store.write(put("a"))
        assert on_disk(store) == ["a"]


async def test_failing_disk(tmp_path: Path, slow_batches: None) -> None:
    async with Store.open(tmp_path, ManualClock()) as store:
        callers = Callers(store)
        with largest_file(512 * 1024):
            for round_ in range(4):
                async with gathered(store) as nursery:
                    for i in range(60):
                        name = f"{round_} {i:02}"
                        nursery.start_soon(callers.write, name, put(name, "x" * 6000))
                assert sorted(callers.done) == on_disk(store)
        assert len(callers.done) + len(callers.failed) == 240
        assert len(callers.done) >= 10
        assert len(callers.failed) >= 10
        for exc in callers.failed.values():
            assert isinstance(exc, StoreUnavailable)
            assert str(exc) == "I/O error: disk I/O error"
        await store.write(put("after"))
        callers.done.append("after")
        assert sorted(callers.done) == on_disk(store)
    # Nor does anything come back when the log is read again.
    async with Store.open(tmp_path, ManualClock()) as store:
        assert sorted(callers.done) == await store.read(names)
        assert await store.read(lambda conn: conn.exec_driver_sql("PRAGMA integrity_check").scalar()) == "ok"


async def test_database_in_use_by_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PRAGMAS", (*store_module.PRAGMAS, "busy_timeout = 20"))
    async with Store.open(tmp_path, ManualClock()) as store:
        with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="in use by another program"):
                await store.write(put("a"))
            other.execute("ROLLBACK")
        await store.write(put("b"))
        assert on_disk(store) == ["b"]


async def test_several_processes_take_turns(tmp_path: Path) -> None:
    async with (
        Store.open(tmp_path, ManualClock(), shared=True) as one,
        Store.open(tmp_path, ManualClock(), shared=True) as two,
    ):

        async def writes(store: Store, who: str) -> None:
            async with trio.open_nursery() as nursery:
                for i in range(400):
                    nursery.start_soon(store.write, put(f"{who} {i:03}"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writes, one, "one")
            nursery.start_soon(writes, two, "two")
        assert len(on_disk(one)) == 800


async def test_database_that_cannot_be_opened_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, slow_batches: None
) -> None:
    await store.write(put("before"))
    callers = Callers(store)
    path = store.path.with_suffix(".away")

    def taken_away(conn: sa.Connection) -> None:
        if not path.exists():
            store.path.rename(path)
            store.path.mkdir()
        ends_transaction(conn)

    async with gathered(store) as nursery:
        nursery.start_soon(callers.write, "a", put("a"))
        nursery.start_soon(callers.write, "bad", taken_away)
    assert callers.done == []
    assert {str(exc) for exc in callers.failed.values()} == {
        "database not accessible: unable to open database file"
    }
    store.path.rmdir()
    path.rename(store.path)
    await store.write(put("b"))
    assert on_disk(store) == ["b", "before"]


WRITES_UNTIL_KILLED = """
import sys, trio
from pathlib import Path
import sqlalchemy as sa
from gateway.clock import Clock
from gateway.store import pacing, tables
from gateway.store.store import Store

async def caller(store, who):
    for i in range(100000):
        name = f"{who} {i}"
        def work(conn):
            conn.execute(sa.insert(tables.fact), {"name": name, "value": "x" * 500})
        await store.write(work)
        print(name, flush=True)

async def main():
    async with Store.open(Path(sys.argv[1]), Clock()) as store, trio.open_nursery() as nursery:
        for who in range(8):
            nursery.start_soon(caller, store, who)

trio.run(main)
"""


async def test_what_was_answered_survives_a_crash(tmp_path: Path) -> None:
    def run_and_kill() -> list[str]:
        with subprocess.Popen(
            [sys.executable, "-c", WRITES_UNTIL_KILLED, tmp_path], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            answered = [process.stdout.readline() for _ in range(500)]
            process.kill()
            answered += process.stdout.readlines()
        return [line.strip() for line in answered if line.endswith("\n")]

    answered = await trio.to_thread.run_sync(run_and_kill)
    async with Store.open(tmp_path, ManualClock()) as store:
        there = set(await store.read(names))
    assert len(answered) >= 500
    assert there >= set(answered)
    assert len(there - set(answered)) <= 8  # written, but killed before the answer


# --- Callers ----------------------------------------------------------------------------------------


async def test_cancelled_before_it_began(store: Store) -> None:
    ran: list[sa.Connection] = []
    async with gathered(store):
        with trio.move_on_after(0) as scope:
            await store.write(ran.append)
        assert scope.cancelled_caught
        assert store.writes_waiting == 0
        with trio.move_on_after(0.01) as scope:
            await store.write(ran.append)
        assert scope.cancelled_caught
        assert store.writes_waiting == 0
    await store.write(put("a"))
    assert ran == []


async def test_cancelled_after_it_began(store: Store) -> None:
    gate = Gate()
    result = None
    late: list[bool] = []

    def work(conn: sa.Connection) -> str:
        gate(conn)
        return str(put("a")(conn))

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        @nursery.start_soon
        async def caller() -> None:
            nonlocal result
            with scope:
                result = await store.write(work)
                late.append(scope.cancel_called)
                await trio.lowlevel.checkpoint()
                late.append(False)

        await gate.began()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not late  # it waits
        gate.open()
    assert result == "a"
    assert late == [True]
    assert scope.cancelled_caught
    assert on_disk(store) == ["a"]


async def test_too_many_writes(tmp_path: Path) -> None:
    async with Store.open(tmp_path, ManualClock(), max_waiting=3) as store:
        callers = Callers(store)
        scope = trio.CancelScope()
        async with gathered(store) as nursery:

            @nursery.start_soon
            async def gives_up() -> None:
                with scope:
                    await store.write(put("given up"))

            for name in "ab":
                nursery.start_soon(callers.write, name, put(name))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(StoreBusy, match="3 writes wait already"):
                await store.write(put("too many"))
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(callers.write, "c", put("c"))
        assert sorted(callers.done) == ["a", "b", "c"] == on_disk(store)


async def test_writes_of_many_callers(store: Store) -> None:
    """Some raise, some are cancelled at any moment: what each is told is what is there."""
    callers = Callers(store)
    withdrawn = []

    def fails(name: str) -> Work:
        def work(conn: sa.Connection) -> None:
            put(name)(conn)
            raise ValueError(name)

        return work

    async def caller(who: int) -> None:
        for i in range(40):
            name = f"{who:02} {i:02}"
            if i % 5 == 3:
                await callers.write(name, fails(name))
            else:
                with trio.CancelScope() as scope:
                    if i % 7 == 2:
                        scope.deadline = trio.current_time() + i * 1e-5
                    if await store.write(put(name)):
                        callers.done.append(name)
                        continue
                withdrawn.append(name)

    async with trio.open_nursery() as nursery:
        for who in range(30):
            nursery.start_soon(caller, who)
    assert sorted(callers.done) == on_disk(store)
    assert len(callers.done) + len(callers.failed) + len(withdrawn) == 30 * 40
    assert len(callers.failed) == 30 * 8


def test_a_busy_loop_gives_way_only_when_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    wanted = True
    give_way = pacing.GiveWay(lambda: wanted)
    for _ in range(pacing.BUSY_TURNS):
        give_way.before_io_wait(0)
    assert slept == []
    give_way.before_io_wait(0)
    assert len(slept) == 1
    wanted = False
    give_way.before_io_wait(0)
    wanted = True
    give_way.before_io_wait(1.0)  # the loop rests: it is not busy
    give_way.before_io_wait(0)
    assert len(slept) == 1
