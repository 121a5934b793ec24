"""Opening, reading and closing the store."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trio
import trio.testing

from gateway.clock import ManualClock
from gateway.errors import StartError, StoreBusy, StoreUnavailable
from gateway.store import store as store_module
from gateway.store import tables
from gateway.store.store import Store
from tests.commands import PATIENCE


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path, ManualClock()) as store:
        yield store


def put(conn: sa.Connection, name: str, value: str = "") -> None:
    conn.execute(sa.insert(tables.fact), {"name": name, "value": value})


def names(conn: sa.Connection) -> list[str]:
    return list(conn.scalars(sa.select(tables.fact.c.name).order_by(tables.fact.c.name)))


def pragma(conn: sa.Connection, name: str) -> Any:
    return conn.exec_driver_sql(f"PRAGMA {name}").scalar_one()


async def test_settings_of_the_database(store: Store) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 2, "auto_vacuum": 2, "foreign_keys": 1, "temp_store": 2}
    for run in (store.write, store.read):
        assert await run(lambda conn: {name: pragma(conn, name) for name in wanted}) == wanted


async def test_files_are_private(store: Store) -> None:
    await store.write(lambda conn: put(conn, "a"))
    files = sorted(store.path.parent.glob("gateway.db*"))
    assert [file.name for file in files] == ["gateway.db", "gateway.db-shm", "gateway.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(store.content.directory.stat().st_mode) == 0o700


async def test_what_was_written_is_there_after_closing(tmp_path: Path) -> None:
    def on_disk() -> list[str]:
        return [file.name for file in tmp_path.iterdir() if file.is_file()]

    for round_ in range(3):
        async with Store.open(tmp_path, ManualClock()) as store:
            assert await store.read(names) == [str(i) for i in range(round_)]
            await store.write(lambda conn: put(conn, str(round_)))  # noqa: B023
        # All is in the one file.
        assert on_disk() == ["gateway.db"]


async def test_data_directory_is_made(tmp_path: Path) -> None:
    directory = tmp_path / "100% new" / "data?mode=ro"
    async with Store.open(directory, ManualClock()) as store:
        await store.write(lambda conn: put(conn, "a"))
    assert (directory / "gateway.db").exists()


async def refuses(directory: Path, said: str) -> None:
    with pytest.raises(StartError, match=said) as caught:
        async with Store.open(directory, ManualClock()):
            pytest.fail("opened")
    assert "\n" not in str(caught.value)
    assert str(directory / "gateway.db") in str(caught.value)


async def test_start_fails_on_what_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_text("This is a letter, not a database.\n" * 100)
    await refuses(tmp_path, "not a database")
    assert (tmp_path / "gateway.db").read_text().startswith("This is a letter")


async def test_start_fails_on_a_newer_database(tmp_path: Path) -> None:
    async with Store.open(tmp_path, ManualClock()) as store:
        await store.write(
            lambda conn: conn.execute(sa.text("UPDATE alembic_version SET version_num = '9000'")).close()
        )
    await refuses(tmp_path, "newer version of the gateway")


async def test_start_fails_on_another_programs_database(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "gateway.db")
    other.execute("CREATE TABLE photos (id)")
    other.close()
    await refuses(tmp_path, "another program's database")


async def test_start_fails_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    await refuses(tmp_path / "data", "File exists")


async def test_start_fails_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PRAGMAS", (*store_module.PRAGMAS, "max_page_count = 10"))
    await refuses(tmp_path, "disk full")


async def test_json_is_compact(store: Store) -> None:
    row = {"time": store.clock.now(), "keep_until": store.clock.now(), "account": "a", "name": "failed"}
    await store.write(
        lambda conn: conn.execute(sa.insert(tables.event), row | {"data": {"a": [1, 2]}}).close()
    )
    raw = await store.read(lambda conn: conn.exec_driver_sql("SELECT data FROM event").scalar_one())
    assert raw == '{"a":[1,2]}'


async def test_reads_cannot_write(store: Store) -> None:
    with pytest.raises(StoreUnavailable, match="readonly"):
        await store.read(lambda conn: put(conn, "a"))
    assert await store.read(names) == []


async def test_reads_raise_what_their_function_raises(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        await store.read(lambda conn: 1 // 0)
    with pytest.raises(sa.exc.OperationalError, match="no such table"):
        await store.read(lambda conn: conn.exec_driver_sql("SELECT * FROM absent"))
    with pytest.raises(TypeError, match="fetch its rows"):
        await store.read(lambda conn: conn.exec_driver_sql("SELECT 1"))
    with pytest.raises(RuntimeError, match="must not commit"):
        await store.read(lambda conn: conn.commit())
    for _ in range(10):
        assert await store.read(names) == []


async def test_reader_opens_again_after_an_error_of_the_disk(tmp_path: Path) -> None:
    def fails(conn: sa.Connection) -> None:
        seen.append(conn)
        raise OSError(5, "Input/output error")

    seen: list[sa.Connection] = []
    async with Store.open(tmp_path, ManualClock(), readers=1) as store:
        with pytest.raises(StoreUnavailable, match="I/O error: Input/output error"):
            await store.read(fails)
        assert seen[0].closed
        assert await store.read(names) == []


async def test_a_read_sees_one_state_and_writes_go_on_meanwhile(store: Store) -> None:
    first, second = threading.Event(), threading.Event()

    def look_twice(conn: sa.Connection) -> tuple[list[str], list[str]]:
        before = names(conn)
        first.set()
        assert second.wait(PATIENCE)
        return before, names(conn)

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def reader() -> None:
            assert await store.read(look_twice) == ([], [])

        await trio.to_thread.run_sync(first.wait, 10)
        await store.write(lambda conn: put(conn, "a"))
        second.set()
    assert await store.read(names) == ["a"]


async def test_reads_go_on_during_a_write_and_see_none_of_it(store: Store) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow(conn: sa.Connection) -> None:
        put(conn, "a")
        began.set()
        assert go_on.wait(PATIENCE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, slow)
        await trio.to_thread.run_sync(began.wait, 10)
        assert await store.read(names) == []
        go_on.set()
    assert await store.read(names) == ["a"]


async def test_too_many_reads(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_WAITING_READS", 3)
    go_on = threading.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(2 + 3):  # two run, three wait
            nursery.start_soon(store.read, lambda conn: go_on.wait(PATIENCE))
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(StoreBusy):
            await store.read(names)
        go_on.set()
    assert await store.read(names) == []


async def test_closing_waits_and_then_refuses(tmp_path: Path) -> None:
    done = []
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with Store.open(tmp_path, ManualClock()) as store:
                slow = threading.Event()

                async def write(name: str) -> None:
                    def work(conn: sa.Connection) -> None:
                        slow.wait(PATIENCE)
                        put(conn, name)

                    await store.write(work)
                    done.append(name)

                for name in "abc":
                    nursery.start_soon(write, name)
                await trio.testing.wait_all_tasks_blocked(0.01)
                threading.Timer(0.02, slow.set).start()
                scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(done) == ["a", "b", "c"]
    for call in (store.write, store.read):
        with pytest.raises(StoreUnavailable, match="closed"):
            await call(names)
    async with Store.open(tmp_path, ManualClock()) as store:
        assert await store.read(names) == ["a", "b", "c"]


async def test_a_database_that_was_deleted_takes_no_more(tmp_path: Path) -> None:
    async with Store.open(tmp_path, ManualClock()) as store:
        await store.write(lambda conn: conn.exec_driver_sql("SELECT 1").all())
        (tmp_path / "gateway.db").rename(tmp_path / "elsewhere.db")
        with pytest.raises(StoreUnavailable):
            await store.write(lambda conn: conn.exec_driver_sql("SELECT 1").all())
        (tmp_path / "elsewhere.db").rename(tmp_path / "gateway.db")
        await store.write(lambda conn: conn.exec_driver_sql("SELECT 1").all())
