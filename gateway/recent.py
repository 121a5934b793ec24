"""What was found a moment ago: of a client that brings many messages, of a domain that gets many, it is asked
once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

KEEP = 60.0  # seconds: less than what DNS lets others keep, and enough for a connection's messages


class Recent(Generic[T]):
    """The last `most` results by key, for `seconds`. `now`: seconds of a clock that does not go back."""

    def __init__(self, now: Callable[[], float], most: int = 1000, *, seconds: float = KEEP) -> None:
        self._now, self._most, self._seconds = now, most, seconds
        self._found: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()  # the oldest first

    def get(self, key: Hashable) -> T | None:
        entry = self._found.get(key)
        if entry is None or entry[0] < self._now():
            return None
        return entry[1]

    def forget(self, key: Hashable) -> None:
        self._found.pop(key, None)

    def keep(self, key: Hashable, result: T) -> None:
        self.forget(key)
        now = self._now()
        self._found[key] = (now + self._seconds, result)
        while len(self._found) > self._most or next(iter(self._found.values()))[0] < now:
            self._found.popitem(last=False)
