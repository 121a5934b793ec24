"""`engine`: what asking plugins costs."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import perf_counter

import trio

from benchmarks.progress import progress
from benchmarks.table import Row
from gateway import QueuedMessage, Route, hookimpl
from gateway.config.settings import Settings
from gateway.hooks.stages import Hooks
from gateway.plugins.loading import load_plugins
from gateway.testing.samples import delivery, event, queued_message, submission

CALLS = 5000
OTHERS = 20  # plugins that have nothing to say


class Plain:
    @hookimpl
    def route(self, message: QueuedMessage) -> Route:
        return Route("one")


class Asynchronous:
    @hookimpl
    async def route(self, message: QueuedMessage) -> Route:
        return Route("one")


class Nothing:
    """Has every stage of a message that is sent, and nothing to say."""

    @hookimpl
    def submission(self) -> None: ...

    @hookimpl
    def sign(self) -> None: ...

    @hookimpl
    def hold(self) -> None: ...

    @hookimpl
    def suppressed(self) -> None: ...

    @hookimpl
    def route(self) -> None: ...

    @hookimpl
    def event(self) -> None: ...


def engine(rounds: int) -> list[Row]:
    """A stage with one plugin, plain and async; and one message through all stages of the built-in set, from
    its submission to its webhook, without and with 20 plugins that have nothing to say. No key signs."""
    logging.disable(logging.WARNING)
    try:
        figures = [
            ("one plain plugin", "< 15 us", _stage(_loaded({"one": Plain()}), rounds)),
            ("one async plugin", "< 30 us", _stage(_loaded({"one": Asynchronous()}), rounds)),
            ("all stages, built-in set", "< 1,000 us", _message(_loaded({}), rounds)),
            (f"all stages, {OTHERS} more plugins", "", _message(_loaded(_nothings()), rounds)),
        ]
    finally:
        logging.disable(logging.NOTSET)
    return [Row(f"engine, {what}", f"{seconds * 1e6:.1f} us", aim=aim) for what, aim, seconds in figures]


def _nothings() -> Mapping[str, object]:
    return {f"nothing{number}": Nothing() for number in range(OTHERS)}


def _loaded(plugins: Mapping[str, object]) -> Hooks:
    settings = Settings.model_validate(
        {
            "hostname": "bench.example",
            "plugins": {"sets": ["bench", "default"]},
            "plugin_sets": {"bench": {"plugins": list(plugins)}},
        }
    )
    return load_plugins(settings, Path.cwd(), extra=plugins)


def _stage(hooks: Hooks, rounds: int) -> float:
    stages, message = hooks.for_account(""), queued_message()

    async def one() -> None:
        await stages.route(message=message, routes=())

    return _seconds(one, rounds)


def _message(hooks: Hooks, rounds: int) -> float:
    stages, given, message = hooks.for_account(""), submission(), queued_message()
    attempt, happened = delivery(), event()

    async def one() -> None:
        taken = await stages.submission(submission=given)
        await stages.sign(data=taken.data, submission=taken)
        await stages.base_address(address=taken.recipients[0])
        await stages.hold(submission=taken, recipient=taken.recipients[0], rules=())
        await stages.suppressed(message=message, entry=None)
        async with stages.around_attempt(delivery=attempt):
            await stages.route(message=message, routes=())
        await stages.event(event=happened)
        await stages.format_webhook(event=happened, format_name="mox")

    return _seconds(one, rounds)


def _seconds(one: Callable[[], Awaitable[None]], rounds: int) -> float:
    """For each, the median of several rounds."""

    async def measure() -> float:
        times = []
        for number in range(rounds):
            progress(f"engine, round {number + 1}")
            started = perf_counter()
            for _ in range(CALLS):
                await one()
            times.append((perf_counter() - started) / CALLS)
        return statistics.median(times)

    return trio.run(measure)
