"""Message content: durable before its row, gone after its last reference, and no file left over."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import trio

from gateway.clock import Clock, ManualClock
from gateway.errors import StoreUnavailable
from gateway.store import content_files, contents, tables
from gateway.store.content import SMALL, StoredBytes, insert_content, release_content
from gateway.store.store import Store

LARGE = bytes(range(256)) * 2000  # 512,000 bytes


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path, Clock()) as store:
        yield store


def files(store: Store) -> list[str]:
    return sorted(path.name for path in store.content.directory.iterdir())


async def insert(store: Store, stored: StoredBytes) -> int:
    return await store.write(lambda conn: insert_content(conn, stored, store.clock.now()), size=stored.size)


async def read_back(store: Store, content_id: int) -> bytes:
    """The bytes by all the ways there are to read them."""
    row = await store.read(
        lambda conn: conn.execute(sa.select(tables.content).where(tables.content.c.id == content_id)).one()
    )
    reader = store.content.open(row)
    pieces = [piece async for piece in reader.chunks()]
    assert all(0 < len(piece) <= 64 * 1024 for piece in pieces)
    assert b"".join(pieces) == await reader.read()
    assert reader.size == row.size == sum(map(len, pieces))
    return b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, 256 * 1024, len(LARGE)])
@pytest.mark.parametrize("piece", [5000, 10**6])
async def test_spooled_bytes_come_back(store: Store, size: int, piece: int) -> None:
    data = LARGE[:size]
    async with store.content.spool() as spool:
        for at in range(0, size, piece):
            await spool.write(data[at : at + piece])
        assert spool.size == size
        stored = await spool.finish()
        assert await spool.finish() is stored
        with pytest.raises(ValueError, match="finished"):
            await spool.write(b"more")
        content_id = await insert(store, stored)
    assert stored.size == size
    assert (stored.file is None) == (size < SMALL)
    assert (stored.data is None) == (stored.file is not None)
    assert files(store) == ([stored.file] if stored.file else [])
    assert await read_back(store, content_id) == data


@pytest.mark.parametrize("size", [0, SMALL - 1, SMALL, len(LARGE)])
async def test_put_bytes_come_back(store: Store, size: int) -> None:
    stored = await store.content.put(LARGE[:size])
    assert await read_back(store, await insert(store, stored)) == LARGE[:size]
    assert len(files(store)) == (size >= SMALL)
    await store.content.discard(stored)  # has its row: stays
    assert len(files(store)) == (size >= SMALL)


async def test_file_is_durable_before_its_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, str]] = []
    real_fsync, real_replace = os.fsync, os.replace

    def name_of(fd: int) -> str:
        return Path(f"/proc/self/fd/{fd}").readlink().name

    def fsync(fd: int) -> None:
        steps.append(("fsync", name_of(fd)))
        real_fsync(fd)

    def replace(source: Path, target: Path) -> None:
        steps.append(("replace", f"{Path(source).name} {Path(target).name}"))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    async with store.content.spool() as spool:
        await spool.write(LARGE)
        await spool.write(b"the end")
        assert steps == []
        stored = await spool.finish()
        name = stored.file
        wanted = [("fsync", f"{name}.tmp"), ("replace", f"{name}.tmp {name}"), ("fsync", "content")]
        assert steps == wanted
        await insert(store, stored)
    steps.clear()
    name = (await store.content.put(LARGE)).file
    assert steps == [("fsync", f"{name}.tmp"), ("replace", f"{name}.tmp {name}"), ("fsync", "content")]


async def test_files_are_private(store: Store) -> None:
    stored = await store.content.put(LARGE)
    assert stored.file
    assert (store.content.directory / stored.file).stat().st_mode & 0o777 == 0o600


# --- Spools that come to nothing ---------------------------------------------------------------------


@pytest.mark.parametrize("head", [b"", b"head", b"h" * SMALL])
@pytest.mark.parametrize("size", [0, 1, SMALL - 4, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL])
async def test_a_head_goes_before_what_was_spooled(store: Store, head: bytes, size: int) -> None:
    data = LARGE[:1] * size
    async with store.content.spool() as spool:
        await spool.write(data)
        stored = await spool.finish(head)
        assert await spool.finish(b"another") is stored
        assert stored.size == spool.size == len(head) + size
        assert (stored.file is None) == (stored.size < SMALL)
        assert files(store) == ([] if stored.file is None else [stored.file])
        assert await store.content.open(stored).read() == head + data
    assert files(store) == []


async def test_a_head_for_a_full_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async with store.content.spool() as spool:
        await spool.write(LARGE)
        monkeypatch.setattr(content_files.ScratchFile, "write_file", _full)
        with pytest.raises(StoreUnavailable):
            await spool.finish(b"head")
    assert files(store) == []


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "full")


async def test_abandoned_spools_leave_nothing(store: Store) -> None:
    async with store.content.spool() as spool:
        await spool.write(LARGE)
        assert len(files(store)) == 1
    assert files(store) == []

    with trio.CancelScope() as scope:
        async with store.content.spool() as spool:
            await spool.write(LARGE)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert files(store) == []

    async with store.content.spool() as spool:
        await spool.write(LARGE)
        await spool.finish()  # but no row
        assert len(files(store)) == 1
    assert files(store) == []

    with trio.CancelScope() as scope:
        async with store.content.spool() as spool:
            await spool.write(LARGE)
            await spool.finish()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert files(store) == []

    async def insert_fails() -> None:
        async with store.content.spool() as spool:
            await spool.write(LARGE)
            stored = await spool.finish()
            await store.write(lambda conn: insert_content(conn, stored, store.clock.now()) / 0)

    with pytest.raises(ZeroDivisionError):
        await insert_fails()
    assert files(store) == []


async def test_cancelled_after_the_commit_keeps_the_file(store: Store) -> None:
    with trio.CancelScope() as scope:
        async with store.content.spool() as spool:
            await spool.write(LARGE)
            content_id = await insert(store, await spool.finish())
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert await read_back(store, content_id) == LARGE


async def test_discard_without_the_database_leaves_the_file(tmp_path: Path) -> None:
    async with Store.open(tmp_path, Clock()) as store:
        stored = await store.content.put(LARGE)
    await store.content.discard(stored)  # closed: nobody knows whether there is a row
    assert files(store) == [stored.file]


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: writing more fails as on a failing disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def spool_large(store: Store) -> None:
    async with store.content.spool() as spool:
        for at in range(0, len(LARGE), 10_000):
            await spool.write(LARGE[at : at + 10_000])
        await spool.finish()


async def test_failing_disk(store: Store) -> None:
    with largest_file(300_000):
        with pytest.raises(StoreUnavailable, match="I/O error: File too large"):
            await store.content.put(LARGE)
        assert files(store) == []
        with pytest.raises(StoreUnavailable, match="I/O error: File too large"):
            await spool_large(store)
        assert files(store) == []


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
async def test_full_disk_at_any_step(store: Store, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StoreUnavailable, match="disk full: No space left on device"):
            await store.content.put(LARGE)
        with pytest.raises(StoreUnavailable, match="disk full: No space left on device"):
            await spool_large(store)
    assert files(store) == []


async def test_full_disk_at_the_last_step(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory's fsync fails: the file has its name already."""
    real = os.fsync
    calls = 0

    def fsync(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreUnavailable, match="I/O error"):
        await spool_large(store)
    assert files(store) == []


# --- Readers ------------------------------------------------------------------------------------------


async def test_missing_and_damaged_files_are_never_shorter_messages(store: Store) -> None:
    stored = await store.content.put(LARGE)
    assert stored.file
    path = store.content.directory / stored.file
    reader = store.content.open(stored)
    for data, said in (
        (LARGE[:-1], "damaged"),
        (LARGE + b"x", "damaged"),
        (b"", "damaged"),
        (None, rf"No such file or directory \({stored.file}\)$"),
    ):
        if data is None:
            await trio.Path(path).unlink()
        else:
            await trio.Path(path).write_bytes(data)
        with pytest.raises(StoreUnavailable, match=said):
            await reader.read()
        with pytest.raises(StoreUnavailable, match=said):
            async for _ in reader.chunks():
                pass


async def test_removal_does_not_cut_a_reader_short(store: Store) -> None:
    stored = await store.content.put(LARGE)
    assert stored.file
    pieces = store.content.open(stored).chunks()
    data = await anext(pieces)
    await store.content.unlink([stored.file])
    assert files(store) == []
    assert data + b"".join([piece async for piece in pieces]) == LARGE


async def test_readers_that_are_left_early_close_their_file(store: Store) -> None:
    def open_files() -> int:
        count = 0
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                count += link.readlink().is_relative_to(store.content.directory)
        return count

    stored = await store.content.put(LARGE)
    reader = store.content.open(stored)
    async for _ in reader.chunks():
        assert open_files() == 1
        break
    gc.collect()
    assert open_files() == 0
    async for _ in reader.chunks():
        pass
    assert open_files() == 0


# --- Release and sweep ----------------------------------------------------------------------------------


def message(content_id: int | None, now: object) -> dict[str, object]:
    return {
        "submission_id": "s", "account": "a", "recipient_localpart": "x", "recipient_domain": "example.org",
        "destination": "example.org", "message_id": "<m>", "size": 1, "queued": now, "next_attempt": now,
        "content_id": content_id,
    }  # fmt: skip


async def test_content_goes_with_its_last_reference(store: Store) -> None:
    now = store.clock.now()
    large = await store.content.put(LARGE)
    kept = await store.content.put(LARGE)
    ids = [await insert(store, stored) for stored in (large, kept, await store.content.put(b"small"))]

    def refer(conn: sa.Connection) -> None:
        for content_id in (ids[0], ids[0]):
            conn.execute(sa.insert(tables.message).values(message(content_id, now)))
        conn.execute(sa.insert(tables.message).values(message(None, now)))
        received = {"account": "a", "mailbox_id": 1, "received": now, "size": 1}
        conn.execute(sa.insert(tables.received).values(received | {"content_id": ids[1]}))

    def retire(conn: sa.Connection) -> list[str]:
        latest = sa.select(sa.func.max(tables.message.c.id)).where(tables.message.c.content_id == ids[0])
        row = tables.message.c.id == latest.scalar_subquery()
        conn.execute(sa.update(tables.message).where(row).values(content_id=None))
        return release_content(conn, [*ids, *ids, 4711])

    def left(conn: sa.Connection) -> set[int]:
        return set(conn.scalars(sa.select(tables.content.c.id)))

    await store.write(refer)
    assert await store.write(retire) == []
    assert await store.read(left) == {ids[0], ids[1]}  # the small one had no reference
    assert await store.write(retire) == [large.file]
    assert await store.read(left) == {ids[1]}
    assert await store.write(lambda conn: release_content(conn, [])) == []
    assert large.file
    await store.content.unlink([large.file, large.file])
    assert files(store) == [kept.file]


async def test_release_of_many(store: Store) -> None:
    def work(conn: sa.Connection) -> list[str]:
        ids = [insert_content(conn, StoredBytes(1, file=f"{i:032x}"), store.clock.now()) for i in range(1200)]
        return release_content(conn, ids)

    assert len(await store.write(work)) == 1200


async def test_sweep_leaves_what_was_just_put_whatever_the_clocks_say(tmp_path: Path) -> None:
    clock = ManualClock()
    async with Store.open(tmp_path, clock) as store:
        clock.advance(99 * 86_400)
        stored = await store.content.put(b"x" * 200_000)
        assert await store.content.sweep() == 0
        assert files(store) == [stored.file]


async def test_sweep_removes_only_old_files_without_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(content_files, "BATCH", 3)
    monkeypatch.setattr(contents, "BATCH", 3)
    clock = ManualClock()
    async with Store.open(tmp_path, clock) as store:
        directory = store.content.directory

        def make(name: str, age: float) -> str:
            (directory / name).write_bytes(b"x")
            written = clock.timestamp() - age
            os.utime(directory / name, (written, written))
            return name

        hour = 3600
        kept = [make(f"{i:032x}", 2 * hour) for i in range(10)]
        for name in kept:
            await insert(store, StoredBytes(1, file=name))
        kept += [make(f"{i:032x}", 0.9 * hour) for i in range(10, 14)]
        kept += [make(f"{14:032x}.tmp", 0.9 * hour), make("lost+found", 99 * hour), make("a.tmp", 99 * hour)]
        (directory / f"{15:032x}").mkdir()
        kept += [f"{15:032x}"]
        for i in range(16, 25):
            make(f"{i:032x}", 1.1 * hour)
        make(f"{25:032x}.tmp", 1.1 * hour)
        async with store.content.spool() as spool:
            await spool.write(LARGE)
            (spooling,) = [
                name
                for name in files(store)
                if name.endswith(".tmp") and len(name) == 36 and (directory / name).stat().st_size > 1
            ]
            make(spooling, 2 * hour)  # as slow as that
            assert await store.content.sweep() == 10
            assert files(store) == sorted([*kept, spooling])
        assert files(store) == sorted(kept)
        assert await store.content.sweep() == 0


WRITES_UNTIL_KILLED = """
import sys, trio
from pathlib import Path
from gateway.clock import Clock
from gateway.store.content import insert_content
from gateway.store.store import Store

async def caller(store):
    while True:
        async with store.content.spool() as spool:
            for _ in range(3):
                await spool.write(b"x" * 100_000)
            stored = await spool.finish()
            await store.write(lambda conn: insert_content(conn, stored, store.clock.now()))
            print(stored.file, flush=True)

async def main():
    async with Store.open(Path(sys.argv[1]), Clock()) as store, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(caller, store)

trio.run(main)
"""


async def test_a_crash_leaves_no_row_without_its_file(tmp_path: Path) -> None:
    def run_and_kill() -> list[str]:
        with subprocess.Popen(
            [sys.executable, "-c", WRITES_UNTIL_KILLED, tmp_path], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            answered = [process.stdout.readline() for _ in range(40)]
            process.kill()
        return [line.strip() for line in answered]

    answered = await trio.to_thread.run_sync(run_and_kill)
    clock = Clock()
    async with Store.open(tmp_path, clock) as store:
        rows = await store.read(lambda conn: conn.execute(sa.select(tables.content)).all())
        assert {row.file for row in rows} >= set(answered)
        for row in rows:
            assert len(await store.content.open(row).read()) == row.size == 300_000
        # What was on its way is swept once it is old.
        for name in files(store):
            os.utime(store.content.directory / name, (0, 0))
        await store.content.sweep()
        assert files(store) == sorted(row.file for row in rows)
