"""When a message is tried again if nobody decides it.

The `retry` stage decides after an attempt (plugins/gateway_mox/retry.py). The queue needs an answer earlier:
an attempt is written down when it is claimed, with the time that holds if every `retry` plugin fails.
"""

from __future__ import annotations

from datetime import datetime, timedelta

FIRST = timedelta(minutes=7.5)  # mox's first interval; each further one is twice as long
LONGEST = timedelta(hours=16)  # FIRST doubled seven times: RFC 5321, 4.5.4.1 wants retries over days


def fallback_next_attempt(attempts: int, now: datetime) -> datetime:
    """The next attempt after the last of `attempts` (from 1, the one under way included) failed at `now`."""
    doublings: int = min(max(attempts, 1) - 1, 7)  # a corrupt row cannot make a date beyond all calendars
    return now + min(FIRST * (1 << doublings), LONGEST)
