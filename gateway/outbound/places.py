"""How many deliveries run at a time: in all, to each destination, and to those that keep us waiting.

A server that accepts a connection and says nothing is waited for as long as the RFC asks, minutes. Four
rules keep such servers from holding up everybody else; the third is kept by the claim, which is told who is
`busy`:

1. An attempt that takes long gives up its place to another, as long as there are not too many such.
2. A destination that kept an attempt waiting in vain has one place, until an attempt to it fares better.
3. No destination has more than its share, however long they take.
4. Some places are only for destinations that took something lately: any others may be silent.

And where servers answer at once, no more attempts are under way than keep the loop busy (MOST_FRESH).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from random import randrange

from gateway.store.changes import Standing

SLOW_AFTER = 2.0  # seconds: nearly every delivery takes less
# Attempts under way that began in the last FRESH seconds: with more, each waits for the others, and what they
# work on is no longer in the processor's caches.
FRESH = 0.05
MOST_FRESH = 100
REMEMBERED = 10_000  # destinations that kept us waiting, and as many that did not
ASKED = 1000  # of the latter, in one claim: about a millisecond


@dataclass(eq=False, slots=True)
class Place:
    """An attempt under way."""

    destination: str
    since: float  # seconds, of any clock that does not go back


class Places:
    """The places, and who has them. Times are seconds of one clock."""

    def __init__(self, *, most: int, most_slow: int, for_proven: int) -> None:
        """`for_proven`: how many of `most` are only for destinations that took something lately."""
        self._most, self._most_slow, self._for_proven = most, most_slow, for_proven
        self._taken: dict[Place, None] = {}  # the oldest first
        self._by_destination: Counter[str] = Counter()
        self._slow: OrderedDict[str, None] = OrderedDict()  # destinations that kept us waiting in vain
        self._proven: OrderedDict[str, None] = OrderedDict()  # that took something since
        self._proven_names: tuple[str, ...] | None = None  # the same, until they change

    def __len__(self) -> int:
        """How many attempts are under way."""
        return len(self._taken)

    def room(self, now: float) -> int:
        """How many attempts may begin."""
        slow = min(self._count_slow(now), self._most_slow)
        fresh = sum(1 for _ in self._begun_since(now - FRESH))
        return max(0, min(self._most - (len(self._taken) - slow), MOST_FRESH - fresh))

    def busy(self) -> dict[str, int]:
        """For each destination how many attempts are under way."""
        return dict(self._by_destination)

    def standing(self, now: float) -> Standing:
        """What destinations may have by what they did. It goes on to change with what they do."""
        unproven = sum(place.destination not in self._proven for place in self._quick(now))
        too_slow = max(0, self._count_slow(now) - self._most_slow)
        room = self._most - self._for_proven - unproven - too_slow
        return Standing(
            slow=self._slow,
            proven=self._proven,
            unproven_room=max(0, room),
            asked=self._some_proven() if room <= 0 else (),
        )

    def _some_proven(self) -> tuple[str, ...]:
        """Others each time, so that all have their turn."""
        if self._proven_names is None:
            self._proven_names = tuple(self._proven)
        names = self._proven_names
        start = randrange(len(names)) if names else 0  # noqa: S311 - no secret
        return (names[start:] + names[:start])[:ASKED]

    def until_room(self, now: float) -> float:
        """Seconds until an attempt under way makes room for another; infinite if none will."""
        fresh = list(self._begun_since(now - FRESH))
        if len(fresh) >= MOST_FRESH:
            return fresh[-1].since + FRESH - now
        until = float("inf")
        for place in self._quick(now):  # the last of these is the oldest
            until = place.since + SLOW_AFTER - now
        return until

    def take(self, destination: str, now: float) -> Place:
        place = Place(destination, now)
        self._taken[place] = None
        self._by_destination[destination] += 1
        return place

    def leave(self, place: Place, now: float, *, delivered: bool) -> None:
        """The attempt is over, but for the recording; `delivered` to anybody at all. Of no effect again."""
        if place not in self._taken:
            return
        del self._taken[place]
        self._by_destination[place.destination] -= 1
        if not self._by_destination[place.destination]:
            del self._by_destination[place.destination]
        self._slow.pop(place.destination, None)
        if delivered:
            if place.destination not in self._proven:
                self._proven_names = None
            _remember(self._proven, place.destination)
        elif now - place.since >= SLOW_AFTER:
            self._proven_names = None
            self._proven.pop(place.destination, None)
            _remember(self._slow, place.destination)

    def _count_slow(self, now: float) -> int:
        return len(self._taken) - sum(1 for _ in self._quick(now))

    def _quick(self, now: float) -> Iterator[Place]:
        """Those that do not take long yet."""
        return self._begun_since(now - SLOW_AFTER)

    def _begun_since(self, time: float) -> Iterator[Place]:
        """The latest first."""
        return takewhile(lambda place: place.since > time, reversed(self._taken))


def _remember(destinations: OrderedDict[str, None], name: str) -> None:
    destinations[name] = None
    destinations.move_to_end(name)
    if len(destinations) > REMEMBERED:
        destinations.popitem(last=False)
