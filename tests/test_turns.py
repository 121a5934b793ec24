"""Long work gives others their turns, and short work costs none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from gateway.turns import EVERY, Turns


class Work:
    """Takes time that passes for Turns only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = 0.0
        monkeypatch.setattr("gateway.turns.perf_counter", lambda: self._now)

    def __call__(self) -> None:
        self._now += EVERY


@pytest.mark.parametrize("give", [Turns.give, Turns.give_shielded])
async def test_turns_are_given_now_and_then(
    give: Callable[[Turns], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        work = Work(monkeypatch)
        turns = Turns()
        for _ in range(100):
            await give(turns)
        assert others == 0
        for _ in range(10):
            work()
            await give(turns)
        assert others >= 9
        nursery.cancel_scope.cancel()


async def test_cancelled_between_two_steps_unless_shielded(monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        work = Work(monkeypatch)
        turns = Turns()
        work()
        await turns.give_shielded()
        work()
        await turns.give()
        pytest.fail("not cancelled")
    assert scope.cancelled_caught
