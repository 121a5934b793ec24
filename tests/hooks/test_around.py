"""Context managers around an attempt: what they may do, and what they cannot."""

from __future__ import annotations

import math
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gateway import Delivery, PluginError, hookimpl
from gateway.hooks.stages import Stages
from tests.hooks.helpers import a_delivery, load, stages

Manager = AbstractAsyncContextManager[object]


class Around:
    """Stands around the attempt with what a function makes."""

    def __init__(self, make: Callable[[], object]) -> None:
        self.make = make

    @hookimpl
    def around_attempt(self) -> Any:
        return self.make()


class Notes:
    """Notes what happens, in order; each of its managers has a name."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @asynccontextmanager
    async def manager(self, name: str) -> AsyncIterator[None]:
        self.lines.append(f"enter {name}")
        await trio.lowlevel.checkpoint()
        try:
            yield
        except BaseException as exc:
            self.lines.append(f"{name} sees {type(exc).__name__}")
            raise
        finally:
            with trio.CancelScope() as scope:
                await trio.lowlevel.checkpoint()
            assert not scope.cancelled_caught
            self.lines.append(f"leave {name}")


def around(*makers: Callable[[], object], config: dict[str, Any] | None = None) -> Stages:
    names = ["a", "b", "c"]
    return stages({n: Around(m) for n, m in zip(names, makers, strict=False)}, config)


async def test_entered_in_order_and_left_in_reverse() -> None:
    notes = Notes()
    asked = around(lambda: notes.manager("a"), lambda: None, lambda: notes.manager("c"))
    async with asked.around_attempt(delivery=a_delivery()):
        notes.lines.append("attempt")
    assert notes.lines == ["enter a", "enter c", "attempt", "leave c", "leave a"]


async def test_the_ways_to_write_one() -> None:
    seen = []

    class Decorated:
        @hookimpl
        @asynccontextmanager
        async def around_attempt(self, delivery: Delivery) -> AsyncIterator[None]:
            seen.append(delivery.hostname)
            yield

    class DecoratedAbove:
        @asynccontextmanager
        @hookimpl
        async def around_attempt(self, delivery: Delivery) -> AsyncIterator[None]:
            seen.append(delivery.hostname)
            yield

    class Awaited:
        @hookimpl
        async def around_attempt(self, delivery: Delivery) -> Manager:
            return Decorated().around_attempt(delivery)

    asked = stages({"one": Decorated(), "two": DecoratedAbove(), "three": Awaited()})
    async with asked.around_attempt(delivery=a_delivery()):
        assert seen == ["gateway.example"] * 3


async def test_an_exception_is_seen_and_goes_on_as_it_is() -> None:
    notes = Notes()
    asked = around(lambda: notes.manager("a"), lambda: notes.manager("b"))
    error = ConnectionError("lost")
    with pytest.raises(ConnectionError) as caught:
        async with asked.around_attempt(delivery=a_delivery()):
            raise error
    assert caught.value is error
    assert error.__context__ is None
    assert error.__cause__ is None
    frames = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    assert not frames & {"manager", "run"}
    assert notes.lines == [
        "enter a",
        "enter b",
        "b sees ConnectionError",
        "leave b",
        "a sees ConnectionError",
        "leave a",
    ]


@asynccontextmanager
async def swallows() -> AsyncIterator[None]:
    try:
        yield
    except Exception:
        return


@asynccontextmanager
async def replaces() -> AsyncIterator[None]:
    try:
        yield
    except Exception:
        raise KeyError("another") from None


@asynccontextmanager
async def in_a_nursery() -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("make", [swallows, replaces, in_a_nursery])
async def test_an_exception_cannot_be_swallowed_or_replaced(
    make: Callable[[], Manager], caplog: pytest.LogCaptureFixture
) -> None:
    error = ConnectionError("lost")
    with pytest.raises(ConnectionError) as caught:
        async with around(make).around_attempt(delivery=a_delivery()):
            raise error
    assert caught.value is error
    # To come out of a nursery in a group is no failure; to raise something else is.
    expected = ["submission sub-7: plugin 'a', hook 'around_attempt': raised KeyError: 'another' on leaving"]
    assert caplog.messages == (expected if make is replaces else [])


@asynccontextmanager
async def impatient() -> AsyncIterator[None]:
    with trio.move_on_after(1):
        yield


@asynccontextmanager
async def crashes_meanwhile() -> AsyncIterator[None]:
    async def crash() -> None:
        await trio.sleep(1)
        raise ValueError("in the background")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(crash)
        yield


@pytest.mark.parametrize("make", [impatient, crashes_meanwhile])
async def test_the_attempt_cannot_be_cancelled(
    make: Callable[[], Manager], autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with around(make).around_attempt(delivery=a_delivery()):
        await trio.sleep(10)
    assert trio.current_time() == 10
    crashed = "raised ExceptionGroup: Exceptions from Trio nursery (1 sub-exception) while open"
    expected = [f"submission sub-7: plugin 'a', hook 'around_attempt': {crashed}"]
    assert caplog.messages == (expected if make is crashes_meanwhile else [])


@pytest.mark.parametrize(
    "error", [ValueError("x"), StopIteration(), StopAsyncIteration(), ExceptionGroup("g", [OSError()])]
)
async def test_whatever_the_attempt_raises_comes_out(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    with pytest.raises(type(error)) as caught:
        async with around(lambda: notes.manager("a"), in_a_nursery).around_attempt(delivery=a_delivery()):
            raise error
    assert caught.value is error
    assert notes.lines[-1] == "leave a"


# --- Cancellation --------------------------------------------------------------------------------


async def test_left_in_order_when_the_attempt_is_cancelled(autojump_clock: MockClock) -> None:
    notes = Notes()
    asked = around(lambda: notes.manager("a"), in_a_nursery, lambda: notes.manager("c"))
    with trio.move_on_after(1) as scope:
        async with asked.around_attempt(delivery=a_delivery()):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert notes.lines == ["enter a", "enter c", "c sees Cancelled", "leave c", "a sees Cancelled", "leave a"]


@asynccontextmanager
async def slow_to_leave(seconds: float, notes: Notes) -> AsyncIterator[None]:
    try:
        yield
    finally:
        try:
            await trio.sleep(seconds)
            notes.lines.append("left")
        except trio.Cancelled:
            notes.lines.append("cut short")
            raise


@pytest.mark.parametrize(("seconds", "took", "line"), [(4, 5, "left"), (6, 6, "cut short")])
async def test_leaving_has_its_limit_also_when_cancelled(
    seconds: float, took: float, line: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    hooks = load({"slow": Around(lambda: slow_to_leave(seconds, notes))})
    with trio.move_on_after(1) as scope:
        async with hooks.for_account("").around_attempt(delivery=a_delivery()):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert (trio.current_time(), notes.lines) == (took, [line])
    assert hooks.calls["slow", "around_attempt"].timeouts == (line == "cut short")
    late = ["submission sub-7: plugin 'slow', hook 'around_attempt': no end on leaving in 5 s"]
    assert caplog.messages == (late if line == "cut short" else [])


async def test_a_result_survives_a_cancellation_while_leaving(autojump_clock: MockClock) -> None:
    async def attempt(outcomes: list[str]) -> None:
        async with around(lambda: slow_to_leave(2, Notes())).around_attempt(delivery=a_delivery()):
            await trio.sleep(0.5)
            outcome = "delivered"
        outcomes.append(outcome)

    outcomes: list[str] = []
    with trio.move_on_after(1):
        await attempt(outcomes)
    assert outcomes == ["delivered"]
    assert trio.current_time() == 2.5


@pytest.mark.parametrize("tidying", [0, 1])
async def test_cancelled_while_entering(
    tidying: float, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()

    @asynccontextmanager
    async def slow_to_enter() -> AsyncIterator[None]:
        try:
            await trio.sleep(3)
        finally:
            with trio.CancelScope(shield=True):
                if tidying:
                    await trio.sleep(tidying)
            notes.lines.append("never entered")
        yield

    with trio.move_on_after(1) as scope:
        async with around(lambda: notes.manager("a"), slow_to_enter).around_attempt(delivery=a_delivery()):
            notes.lines.append("attempt")
    assert scope.cancelled_caught
    assert notes.lines == ["enter a", "never entered", "a sees Cancelled", "leave a"]
    assert caplog.messages == []


# --- Failures ------------------------------------------------------------------------------------


@asynccontextmanager
async def fails_to_enter() -> AsyncIterator[None]:
    if trio.current_time() >= 0:
        raise ValueError("no")
    yield


@asynccontextmanager
async def fails_to_leave() -> AsyncIterator[None]:
    yield
    raise ValueError("no")


@asynccontextmanager
async def hangs_on_entering() -> AsyncIterator[None]:
    await trio.sleep(math.inf)
    yield


@contextmanager
def not_async() -> Any:
    yield


ON_ENTERING: Sequence[tuple[Callable[[], object], str]] = [
    (fails_to_enter, "raised ValueError: no on entering"),
    (hangs_on_entering, "no end on entering in 5 s"),
    (not_async, "answered _GeneratorContextManager; expected AbstractAsyncContextManager or None"),
    (lambda: 1 / 0, "raised ZeroDivisionError: division by zero"),
]


@pytest.mark.parametrize(("make", "reason"), ON_ENTERING)
async def test_the_attempt_goes_on_without_one_that_fails(
    make: Callable[[], object], reason: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    asked = around(lambda: notes.manager("a"), make, lambda: notes.manager("c"))
    async with asked.around_attempt(delivery=a_delivery()):
        notes.lines.append("attempt")
    assert notes.lines == ["enter a", "enter c", "attempt", "leave c", "leave a"]
    assert caplog.messages == [f"submission sub-7: plugin 'b', hook 'around_attempt': {reason}"]


@pytest.mark.parametrize(("make", "reason"), ON_ENTERING)
async def test_where_it_defers_there_is_no_attempt(
    make: Callable[[], object], reason: str, autojump_clock: MockClock
) -> None:
    notes = Notes()
    config = {"plugin": {"b": {"on_error": {"around_attempt": "defer"}}}}
    asked = around(lambda: notes.manager("a"), make, lambda: notes.manager("c"), config=config)
    with pytest.raises(PluginError) as caught:
        async with asked.around_attempt(delivery=a_delivery()):
            notes.lines.append("attempt")
    assert caught.value.reason == reason
    assert notes.lines == ["enter a", "a sees PluginError", "leave a"]


@pytest.mark.parametrize("policy", ["defer", "skip"])
async def test_a_failure_on_leaving_never_replaces_the_result(
    policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    config = {"plugin": {"b": {"on_error": {"around_attempt": policy}}}}
    async with around(lambda: notes.manager("a"), fails_to_leave, config=config).around_attempt(
        delivery=a_delivery()
    ):
        notes.lines.append("attempt")
    assert notes.lines == ["enter a", "attempt", "leave a"]
    assert caplog.messages == [
        "submission sub-7: plugin 'b', hook 'around_attempt': raised ValueError: no on leaving"
    ]


async def test_the_attempt_s_own_time_is_not_limited(autojump_clock: MockClock) -> None:
    async with around(in_a_nursery).around_attempt(delivery=a_delivery()):
        await trio.sleep(1800)
    assert trio.current_time() == 1800
