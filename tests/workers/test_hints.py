from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest
import trio

from gateway.workers.hints import AGAIN, HINTS, SOON, TOGETHER, Hint, Hints


@pytest.fixture
def ears() -> Iterator[tuple[socket.socket, socket.socket]]:
    into, out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with into, out:
        yield into, out


class Heard(Counter[Hint]):
    def listeners(self) -> dict[Hint, Callable[[], None]]:
        return {hint: partial(self.update, [hint]) for hint in HINTS}


async def test_hints_come_together_and_twice(
    ears: tuple[socket.socket, socket.socket], autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    heard, failed = Heard(), list[str]()
    teller, hearer = Hints([ears[0]], None), Hints((), ears[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hearer.serve, heard.listeners(), failed.append)
        nursery.start_soon(teller._tell)
        for _ in range(100):
            teller.tell("events")
        teller.tell("mail")
        await trio.sleep(TOGETHER + 0.1)
        assert heard == {"events": 1, "mail": 1}
        await trio.sleep(AGAIN)
        assert heard == {"events": 2, "mail": 2}
        await trio.sleep(10)
        assert heard == {"events": 2, "mail": 2}
        assert not failed
        nursery.cancel_scope.cancel()


async def test_the_first_is_told_soon_and_the_others_together(
    ears: tuple[socket.socket, socket.socket], autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    heard: list[float] = []
    teller, hearer = Hints([ears[0]], None), Hints((), ears[1])
    began = trio.current_time()
    listeners = dict.fromkeys(HINTS, lambda: heard.append(trio.current_time() - began))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hearer.serve, listeners, list[str]().append)
        nursery.start_soon(teller._tell)
        for _ in range(3):
            teller.tell("mail")
            await trio.sleep(SOON + 0.001)
        await trio.sleep(TOGETHER)
        nursery.cancel_scope.cancel()
    assert heard == pytest.approx([SOON, SOON + TOGETHER])


async def test_each_is_told_again_whatever_else_is_told(
    ears: tuple[socket.socket, socket.socket], autojump_clock: trio.testing.MockClock
) -> None:
    """Its commit may have been slow."""
    autojump_clock.autojump_threshold = 0.05
    heard: dict[Hint, list[float]] = {hint: [] for hint in HINTS}
    began = trio.current_time()

    def listener(hint: Hint) -> Callable[[], None]:
        return lambda: heard[hint].append(trio.current_time() - began)

    teller, hearer = Hints([ears[0]], None), Hints((), ears[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hearer.serve, {hint: listener(hint) for hint in HINTS}, list[str]().append)
        nursery.start_soon(teller._tell)
        teller.tell("calls")
        for _ in range(30):
            teller.tell("events")
            await trio.sleep(TOGETHER)
        # Just before it is told again: told too early, it would not be there yet.
        await trio.sleep_until(began + 2.0)
        teller.tell("mail")
        await trio.sleep(AGAIN + SOON - 0.002)
        teller.tell("mail")
        await trio.sleep(1.0)
        nursery.cancel_scope.cancel()
    assert heard["calls"] == pytest.approx([SOON, SOON + AGAIN], abs=TOGETHER + SOON)
    assert heard["mail"][0] == pytest.approx(2.0 + SOON)
    assert heard["mail"][1] > 2.0 + AGAIN + 2 * SOON - 0.0021


async def test_a_failed_login_is_told_once(ears: tuple[socket.socket, socket.socket]) -> None:
    heard, failed = Heard(), list[str]()
    teller, hearer = Hints([ears[0]], None), Hints((), ears[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hearer.serve, heard.listeners(), failed.append)
        for network in ("192.0.2.0/24", "2001:db8::/64", "192.0.2.0/24"):
            teller.tell_failed_login(network)
        await trio.sleep(AGAIN * 2)
        nursery.cancel_scope.cancel()
    assert failed == ["192.0.2.0/24", "2001:db8::/64", "192.0.2.0/24"]
    assert not heard


async def test_who_does_not_listen_holds_nobody_up(ears: tuple[socket.socket, socket.socket]) -> None:
    teller = Hints([ears[0]], None)
    ears[0].setblocking(False)
    with suppress(BlockingIOError):
        while True:
            ears[0].send(b"\0")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(teller._tell)
        teller.tell("mail")
        await trio.sleep(TOGETHER + 0.1)
        nursery.cancel_scope.cancel()
