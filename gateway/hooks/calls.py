"""Calls a plugin: awaiting, time limit, an answer of the right type, error policy.

`PluginError` is raised where a plugin fails whose policy is DEFER; every failure is counted, and logged once.

Everything is caught but cancellation and KeyboardInterrupt: SystemExit may be a library's way out, and what
is written in Rust panics with a BaseException. A time-out is the expiry of our own cancel scope and nothing
else. Plain functions run without a scope, which would cost many times the call and could not stop
them; they are timed instead.
"""

from __future__ import annotations

import enum
import logging
import math
import reprlib
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from time import perf_counter
from typing import Any

import trio

from gateway.errors import GatewayError, PluginError
from gateway.hooks.breaker import FAILURES, Tally, may_ask, note_answer, note_failure
from gateway.hooks.left_open import close_left_open, open_nurseries
from gateway.hookspecs.marks import OnError, Spec, Verb
from gateway.model import Delivery, QueuedMessage, Submission, WebhookCall

SLOW = 0.1  # seconds that a plain function may take; the event loop stands still meanwhile
THREADS = 4  # of each plugin; one that hangs in all of them harms only itself
MAX_REASON = 500  # characters of a reason; exceptions may quote whole messages

_NO_LIMIT = nullcontext()  # a scope would be for nothing

log = logging.getLogger(__name__)


class Way(enum.Enum):
    """How a plugin's function is run."""

    PLAIN = "plain"
    ASYNC = "async"
    THREAD = "thread"


class Calls:
    """The tallies by (plugin, hook); they outlive a reload."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], Tally] = {}

    def __getitem__(self, key: tuple[str, str]) -> Tally:
        return self._tallies.setdefault(key, Tally())

    def begin(self, plugin: str, hook: str) -> Tally:
        """The tally of what has just been loaded: it may have been repaired, so it is not suspended."""
        tally = self[plugin, hook]
        tally.in_a_row, tally.again_at = 0, 0.0
        return tally

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
    tally: Tally
    limiter: trio.CapacityLimiter | None = None  # the plugin's own, for THREAD
    suspends: bool = True  # when it fails again and again
    label: str = ""  # for people; empty: the plugin and the hook
    invoke: Callable[[tuple[Any, ...]], Any] = field(
        init=False, repr=False
    )  # `function`, of the hook's arguments

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "invoke", _invoking(self.function, self.positions, len(self.spec.arguments), self.settings)
        )
        if not self.label:
            object.__setattr__(self, "label", f"plugin {self.plugin!r}, hook {self.spec.name!r}")


def _invoking(
    function: Callable[..., Any], positions: tuple[int, ...], count: int, settings: object
) -> Callable[[tuple[Any, ...]], Any]:
    """Picks what the function takes of the hook's `count` arguments; worked out here, once."""
    if not positions:
        return lambda _arguments: function()
    if len(positions) == 1:
        (only,) = positions
        if only == count:
            return lambda _arguments: function(settings)
        return lambda arguments: function(arguments[only])
    pick = itemgetter(*positions)
    if count in positions:
        return lambda arguments: function(*pick((*arguments, settings)))
    return lambda arguments: function(*pick(arguments))


# --- One call ------------------------------------------------------------------------------------


async def ask(call: Call, arguments: tuple[Any, ...]) -> Any:
    """The plugin's answer, of the right type; None where it failed and its policy lets the stage go on."""
    if call.way is Way.PLAIN:
        return ask_plain(call, arguments)
    if call.tally.in_a_row >= FAILURES and _suspended(call):
        return None
    in_thread = _InThread(call.invoke) if call.way is Way.THREAD else None
    limited = call.limit < math.inf
    # Without a deadline until there is something to wait for, which is cheaper.
    scope = trio.CancelScope()
    raised: BaseException | None = None
    answer = None
    started = perf_counter()
    try:
        with scope if limited else _NO_LIMIT:
            if in_thread is None:
                nurseries = open_nurseries()
                try:
                    answer = await timed(call, call.invoke(arguments), arguments, scope if limited else None)
                finally:
                    close_left_open(nurseries)
            else:
                scope.deadline = trio.current_time() + call.limit
                (answer,) = await trio.to_thread.run_sync(
                    in_thread, arguments, abandon_on_cancel=True, limiter=call.limiter
                )
    except BaseException as exc:
        await contain(exc)
        raised = exc
    took = _count(call, started)
    # None behind its limit is what is left of a cancellation that it swallowed: no answer, or what a filter
    # was to refuse would pass.
    swallowed = raised is None and answer is None and scope.cancel_called
    if scope.cancelled_caught or swallowed:
        waited = in_thread is not None and not in_thread.begun
        reason = f"no thread came free in {call.limit:g} s" if waited else f"no answer in {call.limit:g} s"
        failed(call, arguments, reason, raised, timeout=True)
    elif raised is not None:
        failed(call, arguments, _raised(raised), raised)
    else:
        if scope.cancel_called:
            _late(call, arguments, took)
        return _checked(call, arguments, answer)
    return None


def ask_plain(call: Call, arguments: tuple[Any, ...]) -> Any:
    """`ask` for a plain function."""
    if call.tally.in_a_row >= FAILURES and _suspended(call):
        return None
    started = perf_counter()
    try:
        answer = call.invoke(arguments)
    except BaseException as exc:
        if passes(exc):
            raise
        _count(call, started)
        failed(call, arguments, _raised(exc), exc)
        return None
    took = _count(call, started)
    if took > SLOW:
        _slow(call, arguments, took)
    return _checked(call, arguments, answer)


def _suspended(call: Call) -> bool:
    """Whether a plugin that failed again and again is left out now. Raises PluginError where the stage must
    not go on without it."""
    if not call.suspends or may_ask(call.tally, call.limit):
        return False
    if call.on_error is OnError.DEFER:
        raise _error(call, "failed again and again; it is suspended for a while")
    return True


def _error(call: Call, reason: str) -> PluginError:
    return PluginError(call.plugin, call.spec.name, reason, call.label)


def _slow(call: Call, arguments: tuple[Any, ...], took: float) -> None:
    call.tally.slow += 1
    log.warning(
        "%s%s: stopped the event loop for %.2f s; it should be async, or work in a thread",
        _about(arguments),
        call.label,
        took,
    )


def _late(call: Call, arguments: tuple[Any, ...], took: float) -> None:
    log.warning(
        "%s%s: answered after %.2f s; its limit is %g s, and it should let Cancelled pass",
        _about(arguments),
        call.label,
        took,
        call.limit,
    )


@types.coroutine
def timed(
    call: Call,
    coroutine: Coroutine[Any, Any, Any],
    arguments: tuple[Any, ...],
    scope: trio.CancelScope | None = None,
) -> Generator[Any, Any, Any]:
    """Runs a plugin's coroutine, and measures each of its steps: between two of them the loop stands still.

    The first sets the deadline of `scope`, unless it is the only one.
    """
    step: Callable[[], Any] = partial(coroutine.send, None)
    while True:
        started = perf_counter()
        try:
            yielded = step()
        except StopIteration as done:
            return done.value
        finally:
            if (took := perf_counter() - started) > SLOW:
                _slow(call, arguments, took)
        if scope is not None:
            scope.deadline = trio.current_time() + call.limit
            scope = None
        try:
            step = partial(coroutine.send, (yield yielded))
        except BaseException as exc:
            step = partial(coroutine.throw, exc)


def _count(call: Call, started: float) -> float:
    took = perf_counter() - started
    call.tally.calls += 1
    call.tally.seconds += took
    return took


class _InThread:
    """Runs a plugin's function in a thread, and knows whether it ever got one."""

    __slots__ = ("begun", "function")

    def __init__(self, function: Callable[[tuple[Any, ...]], Any]) -> None:
        self.function, self.begun = function, False

    def __call__(self, arguments: tuple[Any, ...]) -> tuple[Any]:
        self.begun = True
        return (self.function(arguments),)  # wrapped: trio has views of its own on coroutines


async def contain(exc: BaseException) -> None:
    """Returns if `exc`, of what was awaited, is the plugin's failure; otherwise raises what has to pass.

    A Cancelled that a plugin kept from a cancel scope of its own belongs to nobody any more, and would
    tear down the gateway; and when we are cancelled, what the plugin raised beside Cancelled must not
    come out of the scope that cancelled us.
    """
    if isinstance(exc, Exception):
        return
    if passes(exc):
        raise exc
    # Not checkpoint_if_cancelled, which fails when `around` shields its managers meanwhile.
    await trio.lowlevel.checkpoint()


def passes(exc: BaseException) -> bool:
    """Whether `exc` is nobody's failure, even if a plugin's plain function raised it: alone or in a group."""
    if isinstance(exc, BaseExceptionGroup):
        return exc.subgroup((KeyboardInterrupt, GeneratorExit)) is not None
    return isinstance(exc, KeyboardInterrupt | GeneratorExit)


def _checked(call: Call, arguments: tuple[Any, ...], answer: Any) -> Any:
    if answer is None:
        if call.tally.in_a_row:
            answered(call)
        return None
    try:
        problem = _problem(call.spec, arguments, answer)
    except Exception as exc:  # an answer with odd properties of its own
        failed(call, arguments, f"answered what cannot be read: {_raised(exc)}", exc)
        return None
    if not problem:
        if call.tally.in_a_row and call.spec.verb is not Verb.AROUND:  # that has yet to be entered
            answered(call)
        return answer
    failed(call, arguments, f"answered {problem}; expected {_expected(call.spec)}")
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


def failed(
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
    if call.suspends and (timeout or call.spec.raising_suspends):
        note_failure(call.tally, call.label)
    elif call.suspends and call.tally.in_a_row:  # it was in time, and nothing else counts
        answered(call)
    foreseen = isinstance(exc, GatewayError)  # which says all by itself
    raises = may_raise and call.on_error is OnError.DEFER
    loading = raises and call.spec.verb is Verb.ALL  # then the configuration is refused, and that is told
    level = logging.DEBUG if loading else logging.ERROR
    log.log(level, "%s%s: %s", _about(arguments), call.label, reason, exc_info=None if foreseen else exc)
    if raises:
        raise _error(call, reason) from exc


def answered(call: Call) -> None:
    """After failures, it did what it has to."""
    note_answer(call.tally, call.label)


class Nonsense(GatewayError):
    """In place of an answer that is none; the text says what came."""


def _raised(exc: BaseException) -> str:
    text = _one_line(exc) if isinstance(exc, GatewayError) else ""  # one that says all by itself
    return text or f"raised {described(exc)}"


def described(exc: BaseException) -> str:
    """A plugin's exception in one short line."""
    text = _one_line(exc)
    return type(exc).__name__ + (f": {text}" if text else "")


def _one_line(exc: BaseException) -> str:
    """The text, which may be anything, and fail."""
    try:
        text = str(exc)[: 2 * MAX_REASON]
    except Exception:
        text = ""
    text = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_REASON]


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
