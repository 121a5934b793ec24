"""gateway.net.deadlines: a wait ends when its deadline is over, and no earlier."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from gateway.net.deadlines import Deadlines


@asynccontextmanager
async def running() -> AsyncIterator[Deadlines]:
    deadlines = Deadlines()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.serve)
        yield deadlines
        nursery.cancel_scope.cancel()


async def waited(deadlines: Deadlines, *moves: float) -> float:
    """How long a wait lasts whose deadline is set to each of `moves` after now."""
    started = trio.current_time()
    with trio.CancelScope() as scope:
        for seconds in moves:
            deadlines.set(scope, started + seconds)
        await trio.sleep(1000)
    return trio.current_time() - started


@pytest.mark.parametrize("moves", [(30.0,), (60.0, 30.0), (20.0, 30.0), (-5.0, 30.0)])
async def test_the_last_deadline_counts(
    autojump_clock: trio.testing.MockClock, moves: tuple[float, ...]
) -> None:
    async with running() as deadlines:
        assert await waited(deadlines, *moves) == pytest.approx(30)


async def test_one_that_is_over_already(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as deadlines:
        await trio.sleep(10)
        assert await waited(deadlines, -1.0) == pytest.approx(0)


async def test_each_wait_has_its_own(autojump_clock: trio.testing.MockClock) -> None:
    found: dict[float, float] = {}

    async def wait(seconds: float) -> None:
        found[seconds] = await waited(deadlines, seconds)

    async with running() as deadlines, trio.open_nursery() as nursery:
        for seconds in (50.0, 10.0, 300.0, 10.5):
            nursery.start_soon(wait, seconds)
    assert found == {seconds: pytest.approx(seconds) for seconds in (50.0, 10.0, 300.0, 10.5)}


async def test_none_after_it_was_cleared(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as deadlines:
        with trio.CancelScope() as scope:
            deadlines.set(scope, trio.current_time() + 5)
            deadlines.clear(scope)
            await trio.sleep(10)
        assert not scope.cancelled_caught
        assert await waited(deadlines, 7.0) == pytest.approx(7)


async def test_set_before_it_is_served(autojump_clock: trio.testing.MockClock) -> None:
    deadlines = Deadlines()
    with trio.CancelScope() as scope:
        deadlines.set(scope, trio.current_time() + 5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deadlines.serve)
            await trio.sleep(1000)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(5)
