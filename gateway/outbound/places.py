"""How many deliveries run at a time: in all, to each destination, and to those that keep us waiting.

A server that accepts a connection and says nothing is waited for as long as the RFC asks, minutes. Three
rules keep a few of them from holding up everybody else:

1. An attempt that takes long gives up its place to another, as long as there are not too many such.
2. A destination that kept an attempt waiting in vain has one place, until an attempt to it fares better.
3. No destination has more than its share, however long they take.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

SLOW_AFTER = 2.0  # seconds: nearly every delivery takes less
REMEMBERED = 10_000  # destinations that kept us waiting


@dataclass(eq=False, slots=True)
class Place:
    """An attempt under way."""

    destination: str
    since: float  # seconds, of any clock that does not go back


class Places:
    """The places, and who has them. Times are seconds of one clock."""

    def __init__(self, *, most: int, most_of_one: int, most_slow: int) -> None:
        self._most, self._most_of_one, self._most_slow = most, most_of_one, most_slow
        self._taken: dict[Place, None] = {}  # the oldest first
        self._by_destination: Counter[str] = Counter()
        self._slow: OrderedDict[str, None] = OrderedDict()  # destinations that kept us waiting in vain

    def __len__(self) -> int:
        """How many attempts are under way."""
        return len(self._taken)

    def room(self, now: float) -> int:
        """How many attempts may begin."""
        slow = min(self._count_slow(now), self._most_slow)
        return max(0, self._most - (len(self._taken) - slow))

    def busy(self) -> dict[str, int]:
        """For each destination how many of its places are not to be had."""
        kept_free = dict.fromkeys(self._slow, self._most_of_one - 1)
        for name, count in self._by_destination.items():
            kept_free[name] = kept_free.get(name, 0) + count
        return kept_free

    def until_room(self, now: float) -> float:
        """Seconds until an attempt under way may give up its place; infinite if none will."""
        for place in self._taken:
            if place.since + SLOW_AFTER > now:
                return place.since + SLOW_AFTER - now
        return float("inf")

    def take(self, destination: str, now: float) -> Place:
        place = Place(destination, now)
        self._taken[place] = None
        self._by_destination[destination] += 1
        return place

    def leave(self, place: Place, now: float, *, delivered: bool) -> None:
        """The attempt is over; `delivered` to anybody at all."""
        del self._taken[place]
        self._by_destination[place.destination] -= 1
        if not self._by_destination[place.destination]:
            del self._by_destination[place.destination]
        self._slow.pop(place.destination, None)
        if not delivered and now - place.since >= SLOW_AFTER:
            self._slow[place.destination] = None
            if len(self._slow) > REMEMBERED:
                self._slow.popitem(last=False)

    def _count_slow(self, now: float) -> int:
        count = 0
        for place in self._taken:
            if place.since + SLOW_AFTER > now:
                break
            count += 1
        return count
