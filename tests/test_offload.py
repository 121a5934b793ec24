"""The pool of worker processes."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from gateway.offload import SMALL, WORKERS, Offload, OffloadError


class _Odd(Exception):
    """Pickles, but cannot be made again from what it pickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def _raise(text: str) -> None:
    raise ValueError(text)


def _raise_odd() -> None:
    raise _Odd("one", "two")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Stored:
    """A message that is counted while it is in memory."""

    def __init__(self, size: int) -> None:
        self.size, self.reads = size, 0

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b""

    async def read(self) -> bytes:
        self.reads += 1
        return bytes(self.size)


async def test_few_large_messages_are_read_at_a_time() -> None:
    async with Offload.open(limit=0.5) as pool, trio.open_nursery() as nursery:
        large = _Stored(SMALL + 1)
        for _ in range(3 * WORKERS):
            nursery.start_soon(pool.run_on, large, _wait)
        await trio.testing.wait_all_tasks_blocked()
        assert large.reads == 2 * WORKERS
        assert await pool.run_on(_Stored(SMALL), len) == SMALL  # small ones do not wait for them
        nursery.cancel_scope.cancel()


def _wait(_data: bytes) -> None:
    time.sleep(20)


class _SlowToImport:
    """Takes longer to be made in the worker than a call may take."""

    def __reduce__(self) -> tuple[object, ...]:
        return _slowly, (1.0,)


def _slowly(seconds: float) -> str:
    time.sleep(seconds)
    return "imported"


async def test_the_limit_is_the_calls_and_not_that_of_what_it_imports() -> None:
    async with Offload.open(limit=0.5) as pool:
        assert await pool.run(str, _SlowToImport()) == "imported"


async def test_many_addresses_make_a_message_large() -> None:
    """Of those in 64 KiB the loop would see nothing else for too long."""

    def here(data: bytes) -> int:  # cannot be handed to another process
        return len(data)

    async with Offload.open() as pool:
        assert await pool.run_on_message(b"x" * SMALL, here) == SMALL
        assert await pool.run_on_message(b"a@b.example, " * 1_000, here) == 13_000
        html = b"Subject: hi\r\n\r\n" + b"<p>hello</p>" * 4_000
        assert await pool.run_on_message(html, here) == len(html)
        for many in (b"To: " + b"a@b," * 15_000, b"To: " + b"a," * 15_000 + b"\r\n\r\nhi"):
            with pytest.raises((AttributeError, pickle.PicklingError)):
                await pool.run_on_message(many, here)
            assert await pool.run_on_message(many, len) == len(many)


async def test_answers_and_errors_come_back() -> None:
    async with Offload.open() as pool:
        assert await pool.run(len, b"x" * 3_000_000) == 3_000_000
        assert await pool.run(sorted, [3, 1, 2], reverse=True) == [3, 2, 1]
        assert await pool.run(bytes, 2_000_000) == bytes(2_000_000)
        with pytest.raises(ValueError, match="the reason"):
            await pool.run(_raise, "the reason")
        with pytest.raises(OffloadError, match="one"):
            await pool.run(_raise_odd)
        assert await pool.run(len, b"still works") == 11


async def test_a_worker_is_used_again() -> None:
    async with Offload.open() as pool:
        assert await pool.run(os.getpid) == await pool.run(os.getpid)


async def test_a_worker_that_hangs_is_killed() -> None:
    async with Offload.open(limit=1.0) as pool:
        worker = await pool.run(os.getpid)
        with pytest.raises(OffloadError, match="no answer"):
            await pool.run(time.sleep, 60)
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
        assert await pool.run(len, b"again") == 5


async def test_a_worker_that_dies_is_replaced() -> None:
    async with Offload.open() as pool:
        with pytest.raises(OffloadError, match="died"):
            await pool.run(_die)
        assert await pool.run(len, b"again") == 5


async def test_cancellation_kills_the_worker_and_passes() -> None:
    async with Offload.open() as pool:
        with trio.move_on_after(0.5) as scope:
            await pool.run(time.sleep, 60)
        assert scope.cancelled_caught
        assert await pool.run(len, b"again") == 5
