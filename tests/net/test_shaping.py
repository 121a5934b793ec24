"""Waiting for places and turns, on a clock that jumps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway import Limits, NextHop
from gateway.net import shaping
from gateway.net.shaping import Crowded, Place, Shaper, Share


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def hop(host: str = "mx.example.org", domain: str = "example.org", port: int = 25) -> NextHop:
    return NextHop(domain, host, address="192.0.2.1", port=port, transport="direct")


async def a_share(limits: Limits) -> tuple[Share, Shaper]:
    async def ask(_: NextHop) -> Limits:
        return limits

    shaper = Shaper(ask)
    return await shaper.share(hop()), shaper


async def test_who_shares(autojump_clock: MockClock) -> None:
    async def ask(hop: NextHop) -> Limits | None:
        return Limits(key=hop.domain) if hop.domain.startswith("same") else None

    shaper = Shaper(ask)
    assert await shaper.share(hop("a.example")) is await shaper.share(hop("a.example", "other.example"))
    assert await shaper.share(hop("a.example")) is not await shaper.share(hop("b.example"))
    assert await shaper.share(hop("a.example")) is not await shaper.share(hop("a.example", port=2525))
    same = await shaper.share(hop("a.example", "same.example"))
    assert same is await shaper.share(hop("b.example", "same.example"))


async def test_limits_that_change_hold_at_once(autojump_clock: MockClock) -> None:
    now = Limits(connections=2)

    async def ask(_: NextHop) -> Limits:
        return now

    shaper = Shaper(ask)
    share = await shaper.share(hop())
    assert share.open_place() is not None
    now = Limits(connections=1)
    assert await shaper.share(hop()) is share
    assert share.open_place() is None


async def test_few_keys_are_remembered(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    """But none that has a connection is forgotten."""
    monkeypatch.setattr(shaping, "MAX_KEYS", 3)
    shaper = Shaper()
    first = await shaper.share(hop("first.example"))
    place = first.open_place()
    second = await shaper.share(hop("second.example"))
    for number in range(20):
        await shaper.share(hop(f"{number}.example"))
    assert await shaper.share(hop("first.example")) is first
    assert await shaper.share(hop("second.example")) is not second
    assert len(shaper._shares) <= 4
    assert place is not None
    place.leave()
    for number in range(20):
        await shaper.share(hop(f"{number}.example"))
    assert await shaper.share(hop("first.example")) is not first


async def test_turns_are_waited_for(autojump_clock: MockClock) -> None:
    share, shaper = await a_share(Limits(per_minute=30, wait=5))
    started = trio.current_time()
    gone: list[float] = []
    refused: list[str] = []

    async def one() -> None:
        try:
            await share.turn()
        except Crowded as exc:
            refused.append(str(exc))
            assert trio.current_time() == started  # it is known at once
        else:
            gone.append(trio.current_time() - started)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert gone == pytest.approx([0, 2, 4])
    assert (
        refused
        == ["not sent yet: the limit for mx.example.org is 30 messages a minute, and it has no turn in time"]
        * 2
    )
    assert (shaper.counters.waits, shaper.counters.refusals) == (2, 2)


async def test_nobody_waits_until_there_is_no_time_left(autojump_clock: MockClock) -> None:
    share, _ = await a_share(Limits(connections=1, per_minute=10, wait=60))
    await share.turn()
    share.open_place()
    with trio.move_on_after(8) as scope:
        with pytest.raises(Crowded, match="no turn in time"):
            await share.turn()
        started = trio.current_time()
        with pytest.raises(Crowded, match="none came free in time"):
            await share.get(share.open_place)
        assert trio.current_time() - started == pytest.approx(4)
    assert not scope.cancelled_caught


async def test_places_go_to_those_who_wait_in_order(autojump_clock: MockClock) -> None:
    share, shaper = await a_share(Limits(connections=2))
    order: list[int] = []
    most = 0

    async def one(number: int) -> None:
        nonlocal most
        place = await share.get(share.open_place)
        order.append(number)
        most = max(most, share.pace.open)
        await trio.sleep(1)
        place.leave()

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(one, number)
            await wait_all_tasks_blocked()
    assert order == list(range(8))
    assert (most, share.pace.open, shaper.counters.waits) == (2, 0, 6)


async def test_waiting_in_vain(autojump_clock: MockClock) -> None:
    share, shaper = await a_share(Limits(connections=2, wait=30))
    places = [share.open_place(), share.open_place()]
    share.slow_down()
    started = trio.current_time()
    with pytest.raises(Crowded) as caught:
        await share.get(share.open_place)
    assert trio.current_time() - started == pytest.approx(30)
    assert str(caught.value) == (
        "not sent yet: the limit for mx.example.org is 1 connections at a time, slowed down after the server"
        " asked for less, and none came free in time"
    )
    assert (shaper.counters.slowdowns, shaper.counters.refusals) == (1, 1)
    for place in places:
        assert place is not None
        place.leave()
        place.leave()  # once more does nothing
    assert share.pace.open == 0
    assert await share.get(share.open_place)


async def test_whoever_stops_waiting_is_in_nobodys_way(autojump_clock: MockClock) -> None:
    share, _ = await a_share(Limits(connections=1))
    place = await share.get(share.open_place)
    got: list[Place] = []

    async def wait(scope: trio.CancelScope) -> None:
        with scope:
            got.append(await share.get(share.open_place))

    scopes = [trio.CancelScope() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for scope in scopes:
            nursery.start_soon(wait, scope)
            await wait_all_tasks_blocked()
        scopes[0].cancel()
        scopes[1].cancel()
        await wait_all_tasks_blocked()
        place.leave()
    assert len(got) == 1
    assert share.pace.open == 1


async def test_an_idle_connection_makes_room(autojump_clock: MockClock) -> None:
    share, _ = await a_share(Limits(connections=2))
    longest, other = await share.get(share.open_place), await share.get(share.open_place)
    ended: list[str] = []

    def end(name: str) -> Callable[[], None]:
        return lambda: ended.append(name)

    longest.rest(end("longest"))
    other.rest(end("other"))
    got: list[Place] = []

    async def wait() -> None:
        got.append(await share.get(share.open_place))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert (ended, got) == (["longest"], [])  # it still has its place, until it is closed
        longest.leave()
        await wait_all_tasks_blocked()
        assert (ended, len(got)) == (["longest", "other"], 1)
        other.leave()
    assert (len(got), share.pace.open) == (2, 2)


async def test_one_in_use_again_does_not_make_room(autojump_clock: MockClock) -> None:
    share, _ = await a_share(Limits(connections=1, wait=1))
    place = await share.get(share.open_place)
    place.rest(lambda: pytest.fail("it is in use"))
    place.resume()
    with pytest.raises(Crowded):
        await share.get(share.open_place)


async def test_recovery_lets_in_who_waits(autojump_clock: MockClock) -> None:
    share, _ = await a_share(Limits(connections=4))
    places = [await share.get(share.open_place) for _ in range(4)]
    share.slow_down()
    places.pop().leave()
    places.pop().leave()
    assert share.pace.connections == 2
    got: list[Place] = []

    async def wait() -> None:
        got.append(await share.get(share.open_place))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        share.recover()
        await wait_all_tasks_blocked()
        assert not got
        for _ in range(2):
            share.recover()
    assert len(got) == 1
