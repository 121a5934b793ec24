"""The pool of worker processes."""

from __future__ import annotations

import os
import signal
import time

import pytest
import trio

from gateway.offload import Offload, OffloadError


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
