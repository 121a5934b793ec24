from __future__ import annotations

import math

import trio
import trio.testing

from gateway.wakeup import Wakeup


async def test_several_hints_wake_once(autojump_clock: trio.testing.MockClock) -> None:
    wakeup = Wakeup()
    for _ in range(3):
        wakeup.set()
    await wakeup.wait(10)
    assert trio.current_time() == 0
    await wakeup.wait(10)
    assert trio.current_time() == 10


async def test_a_hint_ends_the_wait_under_way(autojump_clock: trio.testing.MockClock) -> None:
    wakeup = Wakeup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wakeup.wait, math.inf)
        await trio.sleep(3)
        wakeup.set()
    assert trio.current_time() == 3


async def test_all_who_wait_are_woken_and_a_later_hint_is_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wakeup = Wakeup()
    woken = 0

    async def wait() -> None:
        nonlocal woken
        await wakeup.wait(100)
        woken += 1
        wakeup.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        wakeup.set()
    assert (woken, trio.current_time()) == (2, 0)
    await wakeup.wait(100)
    assert trio.current_time() == 0


async def test_without_time_it_still_lets_others_run() -> None:
    wakeup = Wakeup()
    for timeout in (0.0, -1.0):
        with trio.testing.assert_checkpoints():
            await wakeup.wait(timeout)
