"""How a stage asks its plugins: the verbs that `gateway.hooks.stages` is made of.

All of them raise `PluginError` where a plugin fails whose policy is DEFER.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter
from typing import Any, TypeVar

import trio

from gateway.errors import PluginError, RejectedByPlugin
from gateway.frozen import frozen
from gateway.hooks.calls import Call, Way, answered, ask, ask_plain, contain, described, failed, timed
from gateway.hooks.left_open import close_left_open
from gateway.model import Reject

T = TypeVar("T")


async def first(calls: Sequence[Call], *arguments: Any) -> Any:
    """The first answer that is not None, or None."""
    for call in calls:
        answer = ask_plain(call, arguments) if call.way is Way.PLAIN else await ask(call, arguments)
        if answer is not None:
            return answer
    return None


def all_answers(calls: Sequence[Call], *arguments: Any) -> list[tuple[str, Any]]:
    """Every answer that is not None, with its plugin's name; all functions are plain."""
    answers = [(call.plugin, ask_plain(call, arguments)) for call in calls]
    return [(plugin, answer) for plugin, answer in answers if answer is not None]


async def fold(calls: Sequence[Call], value: Any, *arguments: Any) -> Any:
    """`value` as it comes out of the last plugin; a Reject ends it with RejectedByPlugin."""
    value = frozen(value)
    for call in calls:
        given = (value, *arguments)
        answer = ask_plain(call, given) if call.way is Way.PLAIN else await ask(call, given)
        if isinstance(answer, Reject):
            raise RejectedByPlugin(call.plugin, answer.code, answer.enhanced, answer.reason)
        if answer is not None:
            value = frozen(answer)
    return value


async def tell(calls: Sequence[Call], *arguments: Any) -> None:
    """Tells everyone; the first failure whose policy is DEFER is raised afterwards."""
    deferred = None
    for call in calls:
        try:
            await ask(call, arguments)
        except PluginError as exc:
            deferred = deferred or exc
    if deferred is not None:
        raise deferred


@asynccontextmanager
async def around(calls: Sequence[Call], *arguments: Any) -> AsyncIterator[None]:
    """Enters each plugin's manager, and leaves them in reverse order whatever the body does."""
    rest = iter(calls)
    for call in rest:
        manager = await ask(call, arguments)
        if manager is not None:
            break
    else:  # nobody stands around it, and nothing is paid for
        yield
        return
    async with _held(call, manager, tuple(rest), arguments):
        yield


@asynccontextmanager
async def _held(
    call: Call,
    manager: AbstractAsyncContextManager[object],
    others: Sequence[Call],
    arguments: tuple[Any, ...],
) -> AsyncIterator[None]:
    """`around` from the first manager on; `others` are asked when it is entered."""
    entered: list[_Held] = []
    raised: BaseException | None = None
    traceback = None
    async with trio.open_nursery() as nursery:

        async def enter(call: Call, manager: AbstractAsyncContextManager[object]) -> None:
            held = _Held(call, arguments, manager)
            entered.append(held)
            nursery.start_soon(held.run)
            await held.wait_entered()

        try:
            await enter(call, manager)
            for other in others:
                if (another := await ask(other, arguments)) is not None:
                    await enter(other, another)
            yield
        except BaseException as exc:
            raised, traceback = exc, exc.__traceback__
        nursery.cancel_scope.shield = True
        for held in reversed(entered):
            await held.leave(raised)
    if raised is not None:
        try:
            raise raised.with_traceback(traceback)
        finally:
            del raised, traceback, entered  # with them, the frames would wait for the garbage collector


class _Held:
    """A plugin's context manager, held open in a task of its own.

    So that a nursery or a cancel scope that the manager keeps open cannot cancel the step that it stands
    around, and so that its time limits can begin and end independently of all others.
    """

    def __init__(
        self, call: Call, arguments: tuple[Any, ...], manager: AbstractAsyncContextManager[object]
    ) -> None:
        self._call, self._arguments, self._manager = call, arguments, manager
        self._scope = trio.CancelScope(deadline=trio.current_time() + call.limit)
        self._entered, self._leave, self._done = trio.Event(), trio.Event(), trio.Event()
        self._raised: BaseException | None = None  # by the body
        self._refused: PluginError | None = None  # on entering, where the policy is DEFER

    async def wait_entered(self) -> None:
        await self._entered.wait()
        if self._refused is not None:
            raise self._refused

    async def leave(self, raised: BaseException | None) -> None:
        """Lets the manager end, with what the step raised; returns when it has, or its limit is over.

        To be called shielded.
        """
        self._raised = raised
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + self._call.limit)
        self._leave.set()
        await self._done.wait()

    async def run(self) -> None:
        failure: BaseException | None = None
        started = perf_counter()
        try:
            with self._scope:
                try:
                    async with _Timed(self._call, self._manager, self._arguments):
                        # From here on only `leave` ends it: when the step is cancelled, the step ends first.
                        self._scope.deadline, self._scope.shield = math.inf, True
                        self._entered.set()
                        self._call.tally.seconds += perf_counter() - started
                        await self._leave.wait()
                        started = perf_counter()
                        if self._raised is not None:
                            raise self._raised
                finally:
                    close_left_open(0)
        except BaseException as exc:
            failure = exc
        self._call.tally.seconds += perf_counter() - started
        try:
            await self._judge(failure)
        finally:
            self._entered.set()
            self._done.set()

    async def _judge(self, failure: BaseException | None) -> None:
        entering = not self._entered.is_set()
        if entering and self._leave.is_set():
            return  # the step was cancelled meanwhile: nobody's failure
        where = "on entering" if entering else "on leaving" if self._leave.is_set() else "while open"
        timeout = self._scope.cancelled_caught
        if timeout:
            reason = f"no end {where} in {self._call.limit:g} s"
        elif failure is None or (self._raised is not None and _is_only(failure, self._raised)):
            if self._call.tally.in_a_row:
                answered(self._call)
            return
        else:
            await contain(failure)
            if entering and self._leave.is_set():
                return
            reason = f"raised {described(failure)} {where}"
        try:
            failed(self._call, self._arguments, reason, failure, timeout=timeout, may_raise=entering)
        except PluginError as exc:
            self._refused = exc


class _Timed:
    """A plugin's manager, whose steps are measured."""

    def __init__(
        self, call: Call, manager: AbstractAsyncContextManager[object], arguments: tuple[Any, ...]
    ) -> None:
        self._call, self._manager, self._arguments = call, manager, arguments

    async def __aenter__(self) -> None:
        await timed(self._call, _awaited(self._manager.__aenter__()), self._arguments)

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        answer: bool | None = await timed(
            self._call, _awaited(self._manager.__aexit__(*exc_info)), self._arguments
        )
        return answer


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _is_only(failure: BaseException, raised: BaseException) -> bool:
    """Whether `failure` is `raised`, perhaps in the groups of nurseries that it came through."""
    if isinstance(failure, BaseExceptionGroup) and failure is not raised:
        return all(_is_only(part, raised) for part in failure.exceptions)
    return failure is raised
