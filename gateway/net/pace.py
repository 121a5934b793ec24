"""How fast mail may go to one destination: its limits, and how far a server's answers have slowed it down.

Pure: times are seconds of one clock that does not go back, and are passed in.

A server that answers 421 or 4.7.x wants less. What is allowed is halved then: connections from what is open,
the rate from what it is. Each message that is taken lets it grow again, by a constant step: with N
connections N messages bring one more; a minute of messages brings a tenth of the configured rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from gateway.model import Limits

SETTLE = 10.0  # seconds: what was under way when it was slowed down says nothing of the new pace
RATE_STEPS = 10  # minutes at the limit, about, from nothing to the limit


@dataclass(slots=True, eq=False)
class Pace:
    """The pace of all who share a key."""

    limits: Limits
    connections: float = inf  # allowed at present; so below
    per_minute: float = inf
    open: int = 0  # connections
    _next: float = -inf  # when the next message may go
    _slowed: float = -inf  # when it was last slowed down
    _were_open: int = 0  # connections, when one without a limit was slowed down

    def __post_init__(self) -> None:
        self._begin()

    def adopt(self, limits: Limits) -> None:
        """What the limits are now; others than before are begun with at full pace."""
        if limits is not self.limits and limits != self.limits:
            self.limits = limits
            self._begin()

    @property
    def room(self) -> bool:
        """Whether another connection may be opened."""
        return self.open + 1 <= self.connections

    @property
    def slow(self) -> bool:
        """Whether less is allowed than the limits say."""
        return self.connections < (self.limits.connections or inf) or self.per_minute < (
            self.limits.per_minute or inf
        )

    def until_next(self, now: float) -> float:
        """Seconds until the next message may go."""
        return max(0.0, self._next - now)

    def take_turn(self, now: float) -> None:
        """The next message goes when `until_next` says. They go at even intervals, and save none up."""
        self._next = max(self._next, now) + 60.0 / self.per_minute

    def slow_down(self, now: float) -> bool:
        """A server asked for less; answers whether that changes anything."""
        if now - self._slowed < SETTLE:
            return False
        self._slowed = now
        self._were_open = max(self._were_open, self.open)
        self.connections = max(1.0, min(self.connections, self.open) / 2)
        if self.limits.per_minute:
            self.per_minute = max(self.per_minute / 2, min(1.0, self.limits.per_minute))
        return True

    def recover(self) -> None:
        """A message was taken."""
        most, rate = self.limits.connections or self._were_open, self.limits.per_minute
        if self.connections < most:
            self.connections = min(most, self.connections + 1 / int(self.connections))
        if self.connections >= most:
            self.connections, self._were_open = self.limits.connections or inf, 0
        if self.per_minute < rate:
            self.per_minute = min(rate, self.per_minute + rate / RATE_STEPS / self.per_minute)

    def _begin(self) -> None:
        self.connections = self.limits.connections or inf
        self.per_minute = self.limits.per_minute or inf
