"""The nursery tree of a gateway: what serves until it is told to stop, and what goes on beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

import trio

from gateway.wakeup import Wakeup

TO_BE_CANCELLED = 1.0  # seconds
Background = Callable[[], Awaitable[object]]


class Service(Protocol):
    """Returns when it was told to stop, and is done."""

    async def __call__(self, *, stopping: trio.Event, task_status: trio.TaskStatus[Any]) -> None: ...


@asynccontextmanager
async def served(
    background: Sequence[Background],
    services: Sequence[Service],
    wakeups: Sequence[Wakeup],
    grace: float,
) -> AsyncIterator[None]:
    """The nursery tree. `wakeups`: of services that wait, to see that they are to stop."""
    stopping = trio.Event()
    async with trio.open_nursery() as beside:
        for run in background:
            beside.start_soon(run)
        async with trio.open_nursery() as serving:
            for serve in services:
                await serving.start(partial(serve, stopping=stopping))
            try:
                yield
            finally:
                stopping.set()
                for wakeup in wakeups:
                    wakeup.set()
                serving.cancel_scope.deadline = trio.current_time() + grace
                # What serves ends before what goes on beside it; but where it does not, that ends too.
                beside.cancel_scope.deadline = serving.cancel_scope.deadline + TO_BE_CANCELLED
        beside.cancel_scope.cancel()
