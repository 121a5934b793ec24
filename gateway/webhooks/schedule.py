"""When a webhook call is made: at once, then at growing intervals for about a day and a half."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

_MINUTE, _HOUR = 60.0, 3600.0

# Seconds from one failed attempt to the next, as mox has them.
INTERVALS = (
    1 * _MINUTE,
    2 * _MINUTE,
    4 * _MINUTE,
    7.5 * _MINUTE,
    15 * _MINUTE,
    30 * _MINUTE,
    1 * _HOUR,
    2 * _HOUR,
    4 * _HOUR,
    8 * _HOUR,
    16 * _HOUR,
)
MAX_ATTEMPTS = len(INTERVALS) + 1
JITTER = 0.01  # of an interval, either way: calls that failed together do not all come back together


def next_attempt(attempts: int, now: datetime, spread: float) -> datetime | None:
    """When to call again after the last of `attempts` (at least 1) failed at `now`; None: never.

    `spread`, from -1 to 1, is where in the jitter the time falls (`random_spread` for a new one).
    """
    if attempts >= MAX_ATTEMPTS:
        return None
    interval = INTERVALS[max(attempts, 1) - 1] * (1 + JITTER * spread)
    return now + timedelta(seconds=interval)


def random_spread() -> float:
    return random.uniform(-1, 1)  # noqa: S311  # spreads load; guards nothing
