"""Calls plugins: order, awaiting, time limits, answers of the right type, error policy.

The verbs below are what `gateway.hooks` is made of. All of them raise `PluginError` where a plugin fails
whose policy is DEFER; every failure is counted, and logged once.

Only Exception is caught: cancellation passes. A time-out is the expiry of our own cancel scope and nothing
else. Plain functions run without a scope, which would cost many times the call and could not stop
them; they are timed instead.
"""

from __future__ import annotations

import enum
import logging
import math
import reprlib
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import trio

from gateway.errors import PluginError, RejectedByPlugin
from gateway.hookspecs import OnError, Spec
from gateway.model import Delivery, QueuedMessage, Reject, Submission, WebhookCall

SLOW = 0.1  # seconds that a plain function may take; the event loop stands still meanwhile
THREADS = 4  # of each plugin; one that hangs in all of them harms only itself
MAX_REASON = 500  # characters of a reason; exceptions may quote whole messages

log = logging.getLogger(__name__)


class Way(enum.Enum):
    """How a plugin's function is run."""

    PLAIN = "plain"
    ASYNC = "async"
    THREAD = "thread"


@dataclass(slots=True)
class Tally:
    """What one plugin's implementation of one hook has come to since the gateway started."""

    calls: int = 0
    failures: int = 0  # time-outs included
    timeouts: int = 0
    slow: int = 0  # plain functions that took longer than SLOW
    seconds: float = 0.0  # altogether


class Calls:
    """The tallies by (plugin, hook); they outlive a reload."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], Tally] = {}

    def __getitem__(self, key: tuple[str, str]) -> Tally:
        return self._tallies.setdefault(key, Tally())

    def __iter__(self) -> Iterator[tuple[str, str, Tally]]:
        """Plugin, hook and tally of each, in the order in which they were loaded."""
        return ((plugin, hook, tally) for (plugin, hook), tally in self._tallies.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One plugin's implementation of one hook, ready to be called."""

    plugin: str
    spec: Spec
    function: Callable[..., Any]
    positions: tuple[int, ...]  # of its arguments in (*spec.arguments, settings)
    settings: object
    way: Way
    limit: float  # seconds
    on_error: OnError
    limiter: trio.CapacityLimiter  # the plugin's own, for THREAD
    tally: Tally


# --- One call ------------------------------------------------------------------------------------


async def ask(call: Call, arguments: tuple[Any, ...]) -> Any:
    """The plugin's answer, of the right type; None where it failed and its policy lets the stage go on."""
    if call.way is Way.PLAIN:
        return ask_plain(call, arguments)
    in_thread = _InThread(call.function) if call.way is Way.THREAD else None
    scope = trio.CancelScope(relative_deadline=call.limit)
    raised: BaseException | None = None
    started = perf_counter()
    try:
        with scope:
            if in_thread is None:
                answer = await call.function(*_picked(call, arguments))
            else:
                (answer,) = await trio.to_thread.run_sync(
                    in_thread, _picked(call, arguments), abandon_on_cancel=True, limiter=call.limiter
                )
    except BaseException as exc:
        await contain(exc)
        raised = exc
    _count(call, started)
    if scope.cancelled_caught:
        waited = in_thread is not None and not in_thread.begun
        reason = f"no thread came free in {call.limit:g} s" if waited else f"no answer in {call.limit:g} s"
        _failed(call, arguments, reason, raised, timeout=True)
    elif raised is not None:
        _failed(call, arguments, _raised(raised), raised)
    else:
        return _checked(call, arguments, answer)
    return None


def ask_plain(call: Call, arguments: tuple[Any, ...]) -> Any:
    """`ask` for a plain function."""
    started = perf_counter()
    try:
        answer = call.function(*_picked(call, arguments))
    except Exception as exc:
        _count(call, started)
        _failed(call, arguments, _raised(exc), exc)
        return None
    took = _count(call, started)
    if took > SLOW:
        call.tally.slow += 1
        log.warning(
            "%splugin %r, hook %r: stopped the event loop for %.2f s; it should be async or thread=True",
            _about(arguments),
            call.plugin,
            call.spec.name,
            took,
        )
    return _checked(call, arguments, answer)


def _picked(call: Call, arguments: tuple[Any, ...]) -> list[Any]:
    values = (*arguments, call.settings)
    return [values[position] for position in call.positions]


def _count(call: Call, started: float) -> float:
    took = perf_counter() - started
    call.tally.calls += 1
    call.tally.seconds += took
    return took


class _InThread:
    """Runs a plugin's function in a thread, and knows whether it ever got one."""

    __slots__ = ("begun", "function")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.begun = function, False

    def __call__(self, arguments: list[Any]) -> tuple[Any]:
        self.begun = True
        return (self.function(*arguments),)  # wrapped: trio has views of its own on coroutines


async def contain(exc: BaseException) -> None:
    """Returns if `exc` is the plugin's failure; otherwise raises what has to pass.

    A Cancelled that a plugin kept from a cancel scope of its own belongs to nobody any more, and would
    tear down the gateway; and when we are cancelled, what the plugin raised beside Cancelled must not
    come out of the scope that cancelled us.
    """
    if isinstance(exc, Exception):
        return
    if not isinstance(exc, trio.Cancelled) and not (
        isinstance(exc, BaseExceptionGroup) and exc.split((trio.Cancelled, Exception))[1] is None
    ):
        raise exc
    # Not checkpoint_if_cancelled, which fails when `around` shields its managers meanwhile.
    await trio.lowlevel.checkpoint()


def _checked(call: Call, arguments: tuple[Any, ...], answer: Any) -> Any:
    if answer is None:
        return None
    try:
        problem = _problem(call.spec, arguments, answer)
    except Exception as exc:  # an answer with odd properties of its own
        _failed(call, arguments, f"answered what cannot be read: {_raised(exc)}", exc)
        return None
    if not problem:
        return answer
    _failed(call, arguments, f"answered {problem}; expected {_expected(call.spec)}")
    return None


def _problem(spec: Spec, arguments: tuple[Any, ...], answer: Any) -> str:
    """What came, if it is not what was expected."""
    if isinstance(answer, spec.answer):
        return spec.check(answer, *arguments) if spec.check is not None else ""
    if isinstance(answer, Coroutine | Generator):
        with suppress(Exception):
            answer.close()  # or Python warns of a coroutine that was never awaited
    name = type(answer).__name__
    return f"{reprlib.repr(answer)} ({name})" if isinstance(answer, str | bool) else name


def _expected(spec: Spec) -> str:
    names = [kind.__name__ for kind in spec.answer if kind is not type(None)]
    return " or ".join(filter(None, [", ".join(names), "None"]))


def _failed(
    call: Call,
    arguments: tuple[Any, ...],
    reason: str,
    exc: BaseException | None = None,
    *,
    timeout: bool = False,
    may_raise: bool = True,
) -> None:
    """Counts, logs, and does what the policy says."""
    call.tally.failures += 1
    call.tally.timeouts += timeout
    hook = call.spec.name
    log.error("%splugin %r, hook %r: %s", _about(arguments), call.plugin, hook, reason, exc_info=exc)
    if may_raise and call.on_error is OnError.DEFER:
        raise PluginError(call.plugin, hook, reason) from exc


def _raised(exc: BaseException) -> str:
    return f"raised {described(exc)}"


def described(exc: BaseException) -> str:
    """A plugin's exception in one short line: its text may be anything, and fail."""
    try:
        text = str(exc)[: 2 * MAX_REASON]
    except Exception:
        text = ""
    text = " ".join(text.split())
    text = "".join(c if c.isprintable() else "?" for c in text)[:MAX_REASON]
    return type(exc).__name__ + (f": {text}" if text else "")


def _about(arguments: tuple[Any, ...]) -> str:
    """The message that a call is about, for the log."""
    for argument in arguments:
        if isinstance(argument, Delivery):
            argument = next(iter(argument.messages), None)  # they are all of one submission
        if isinstance(argument, Submission):
            return f"submission {argument.id}: "
        if isinstance(argument, QueuedMessage):
            return f"submission {argument.submission_id}: "
        if isinstance(argument, WebhookCall):
            return f"webhook call {argument.id}: "
    return ""


# --- The verbs -----------------------------------------------------------------------------------


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
    for call in calls:
        given = (value, *arguments)
        answer = ask_plain(call, given) if call.way is Way.PLAIN else await ask(call, given)
        if isinstance(answer, Reject):
            raise RejectedByPlugin(call.plugin, answer.code, answer.enhanced, answer.reason)
        if answer is not None:
            value = answer
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
    entered: list[_Held] = []
    raised: BaseException | None = None
    traceback = None
    async with trio.open_nursery() as nursery:
        try:
            for call in calls:
                manager = await ask(call, arguments)
                if manager is not None:
                    held = _Held(call, arguments, manager)
                    entered.append(held)
                    nursery.start_soon(held.run)
                    await held.wait_entered()
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
                async with self._manager:
                    # From here on only `leave` ends it: when the step is cancelled, the step ends first.
                    self._scope.deadline, self._scope.shield = math.inf, True
                    self._entered.set()
                    self._call.tally.seconds += perf_counter() - started
                    await self._leave.wait()
                    started = perf_counter()
                    if self._raised is not None:
                        raise self._raised
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
            return
        else:
            await contain(failure)
            if entering and self._leave.is_set():
                return
            reason = f"{_raised(failure)} {where}"
        try:
            _failed(self._call, self._arguments, reason, failure, timeout=timeout, may_raise=entering)
        except PluginError as exc:
            self._refused = exc


def _is_only(failure: BaseException, raised: BaseException) -> bool:
    """Whether `failure` is `raised`, perhaps in the groups of nurseries that it came through."""
    if isinstance(failure, BaseExceptionGroup) and failure is not raised:
        return all(_is_only(part, raised) for part in failure.exceptions)
    return failure is raised
