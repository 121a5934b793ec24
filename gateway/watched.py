"""Watches what plugins run beside the calls of `gateway.hookcalls`: services, pages, transports."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from time import perf_counter
from typing import Any

from gateway.hookcalls import SLOW


async def watched(awaitable: Awaitable[Any], slow: Callable[[float], None]) -> Any:
    """What the awaitable gives. `slow` is told of each time, in seconds, that the event loop stood still."""

    async def run() -> Any:
        return await awaitable  # anything with __await__; the steps below are a coroutine's

    return await _steps(run(), slow)


@types.coroutine
def _steps(coroutine: Any, slow: Callable[[float], None]) -> Generator[Any, Any, Any]:
    step: Callable[[], Any] = partial(coroutine.send, None)
    while True:
        started = perf_counter()
        try:
            yielded = step()
        except StopIteration as done:
            return done.value
        finally:
            if (took := perf_counter() - started) > SLOW:
                slow(took)
        try:
            step = partial(coroutine.send, (yield yielded))
        except BaseException as exc:
            step = partial(coroutine.throw, exc)
