"""Notes who answers what when stages are asked, and counts nothing: for `gateway plugins trace`."""

from __future__ import annotations

import reprlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from datetime import datetime
from time import perf_counter
from typing import Any, TypeVar

import trio

from gateway.errors import PluginError, RejectedByPlugin
from gateway.hooks.breaker import Tally
from gateway.hooks.calls import Call, Way, described
from gateway.hooks.stages import GatewayStages, Stages, Table
from gateway.mail.address import Address
from gateway.model import Submission, WebhookBody

MAX_ANSWER = 200  # characters of an answer that are shown

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """One plugin's part in a stage."""

    plugin: str
    answer: str  # for people; "-" is None
    seconds: float
    failure: str  # empty: it did not fail


@dataclass(frozen=True, slots=True)
class Step:
    """One stage. `result`: what comes of it, for people."""

    stage: str
    asked: tuple[Asked, ...]
    result: str


@dataclass(slots=True)
class _Note:
    """A call that was made."""

    call: Call
    started: float
    answer: str = ""
    seconds: float = 0.0
    raised: str = ""
    ended: bool = False

    def end(self, answer: str, raised: str = "") -> None:
        self.answer, self.raised, self.seconds = answer, raised, perf_counter() - self.started
        self.ended = True

    def asked(self) -> Asked:
        failure = self.raised
        if not self.ended:  # a thread that was left behind
            failure = f"no answer in {self.call.limit:g} s"
        elif not failure and self.call.tally.failures:
            failure = "not an answer that this hook can have; the log says why"
        return Asked(self.call.plugin, self.answer, self.seconds, failure)


@dataclass(slots=True)
class Trace:
    """What was asked so far."""

    steps: list[Step] = field(default_factory=list)
    notes: list[_Note] = field(default_factory=list)  # of the stage that is being asked

    def table(self, table: Table) -> Table:
        """The same calls, noted here and counted nowhere."""
        return {hook: tuple(map(self._noted, calls)) for hook, calls in table.items()}

    def _noted(self, call: Call) -> Call:
        counted = replace(call, tally=Tally())

        def begin() -> _Note:
            note = _Note(counted, perf_counter())
            self.notes.append(note)
            return note

        def plain(*arguments: Any) -> Any:
            note = begin()
            try:
                answer = call.function(*arguments)
            except BaseException as exc:
                note.end("", f"raised {described(exc)}")
                raise
            note.end(shown(answer, arguments))
            return answer

        async def asynchronous(*arguments: Any) -> Any:
            note = begin()
            try:
                answer = await call.function(*arguments)
            except trio.Cancelled:
                note.end("", f"no answer in {call.limit:g} s")
                raise
            except BaseException as exc:
                note.end("", f"raised {described(exc)}")
                raise
            note.end(shown(answer, arguments))
            return answer

        return replace(counted, function=asynchronous if call.way is Way.ASYNC else plain)

    async def ask(self, stage: str, asking: Awaitable[T], result: Callable[[T], str]) -> T:
        """Ask a stage and keep what became of it. Raises Ended where the message goes no further."""
        try:
            answer = await asking
        except (PluginError, RejectedByPlugin) as exc:
            kind = "refused" if isinstance(exc, RejectedByPlugin) else "not for now"
            self._step(stage, f"{kind}: {exc}")
            raise Ended from None
        self._step(stage, result(answer))
        return answer

    def name(self, stages: Stages | GatewayStages, *hooks: str) -> None:
        """Stages that are not asked, with those who would be."""
        for hook in hooks:
            if stages.has(hook):
                self.steps.append(Step(hook, (), f"not asked here: {', '.join(stages.plugins(hook))}"))

    def _step(self, stage: str, result: str) -> None:
        self.steps.append(Step(stage, tuple(note.asked() for note in self.notes), result))
        self.notes.clear()


class Ended(Exception):
    """The message goes no further."""


def shown(answer: object, arguments: Sequence[object]) -> str:
    """An answer in one short line."""
    given = next((one for one in arguments if type(one) is type(answer)), None)
    if answer is None or isinstance(answer, bool):
        return "-" if answer is None else "yes" if answer else "no"
    if isinstance(answer, bytes):
        before = len(given) if isinstance(given, bytes) else 0
        return f"{len(answer)} bytes ({len(answer) - before:+d})"
    if isinstance(answer, Submission) and isinstance(given, Submission):
        names = [f.name for f in fields(answer) if getattr(answer, f.name) != getattr(given, f.name)]
        return f"changes {', '.join(names)}" if names else "changes nothing"
    if isinstance(answer, WebhookBody):
        return f"{len(answer.body)} bytes of {answer.content_type}"
    if isinstance(answer, Mapping):
        return f"header fields: {', '.join(map(str, answer))}"[:MAX_ANSWER]  # their values may be secret
    try:
        text = str(answer) if isinstance(answer, Address) else _written(answer)
    except Exception:
        text = reprlib.repr(answer)
    return text if len(text) <= MAX_ANSWER else text[:MAX_ANSWER] + "..."


def _written(answer: object) -> str:
    """As it would be made: fields that have their defaults are left out, times are short."""
    if not is_dataclass(answer):
        return f"{answer:%Y-%m-%d %H:%M:%S}" if isinstance(answer, datetime) else repr(answer)
    given = []
    for one in fields(answer):
        value = getattr(answer, one.name)
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        if value != default:
            given.append(f"{one.name}={_written(value)}")
    return f"{type(answer).__name__}({', '.join(given)})"
