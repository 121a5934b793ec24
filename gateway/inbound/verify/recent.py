"""What was found of a client a moment ago: of a connection that brings many messages it is asked once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

KEEP = 60.0  # seconds: less than what DNS lets others keep, and enough for a connection's messages
MOST = 1000  # clients


class Recent(Generic[T]):
    """Results by key, for a minute. `now` answers seconds of a clock that does not go back."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._found: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()  # the oldest first

    def get(self, key: Hashable) -> T | None:
        entry = self._found.get(key)
        if entry is None or entry[0] < self._now():
            return None
        return entry[1]

    def keep(self, key: Hashable, result: T) -> None:
        self._found.pop(key, None)
        self._found[key] = (self._now() + KEEP, result)
        while len(self._found) > MOST:
            self._found.popitem(last=False)
