"""When a webhook call is made: at once, then at growing intervals for about a day and a half."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

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
_TOO_MANY, _UNAVAILABLE = 429, 503  # HTTP
JITTER = 0.01  # of an interval, either way: calls that failed together do not all come back together


def next_attempt(attempts: int, now: datetime, spread: float, at_least: float = 0.0) -> datetime | None:
    """When to call again after the last of `attempts` (at least 1) failed at `now`; None: never.

    `spread`, from -1 to 1, is where in the jitter the time falls (`random_spread` for a new one). `at_least`:
    seconds that the receiver wants; the longest interval is the most it gets.
    """
    if attempts >= MAX_ATTEMPTS:
        return None
    interval = INTERVALS[max(attempts, 1) - 1] * (1 + JITTER * spread)
    return now + timedelta(seconds=max(interval, min(at_least, INTERVALS[-1])))


def wanted_wait(retry_after: str, now: datetime) -> float:
    """Seconds that a receiver's Retry-After asks for (RFC 9110, 10.2.3): 0 for none, and for nonsense."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    try:
        until = parsedate_to_datetime(text)
        return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - now).total_seconds())
    except (ValueError, OverflowError):
        return 0.0


def pause(code: int, wait: float) -> float:
    """Seconds that a URL is not called at all, after an answer with this status that wants to `wait`.

    429 is about all requests (RFC 6585, 4), and 503 with Retry-After as well (RFC 9110, 15.6.4).
    """
    if code not in (_TOO_MANY, _UNAVAILABLE):
        return 0.0
    return min(wait or (INTERVALS[0] if code == _TOO_MANY else 0.0), INTERVALS[-1])


def random_spread() -> float:
    return random.uniform(-1, 1)  # noqa: S311  # spreads load; guards nothing
