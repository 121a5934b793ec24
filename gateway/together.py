"""Work that several tasks want at the same time is done once, for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


@dataclass(slots=True)
class _Work(Generic[T]):
    done: trio.Event = field(default_factory=trio.Event)
    result: list[T] = field(default_factory=list)  # empty until there is one


class Together(Generic[T]):
    """Shares results by key. Whoever comes first does the work; those who come meanwhile wait for it.

    Cancellation is everyone's own: if the first is cancelled, or fails, the next one does the work anew.
    """

    def __init__(self) -> None:
        self._under_way: dict[Hashable, _Work[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        while (others := self._under_way.get(key)) is not None:
            await others.done.wait()
            if others.result:
                return others.result[0]
        ours = self._under_way[key] = _Work[T]()
        try:
            result = await work()
            ours.result.append(result)
            return result
        finally:
            del self._under_way[key]
            ours.done.set()
