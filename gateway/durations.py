"""Durations and times relative to now, as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Literal

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(s|m|h|d|w)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
LONGEST = timedelta(days=3650)


def parse_duration(text: str) -> timedelta:
    """ "90s", "7.5m", "1h30m", "2d"; ten years at most. Raises ValueError."""
    if not text or _DURATION.sub("", text):
        raise ValueError(f"{text[:40]!r} is no duration; write one such as 90s, 7.5m, 1h30m or 2d")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"{text[:40]!r} is too long; ten years are the most")
    return timedelta(seconds=seconds)


def parse_bound(text: str) -> tuple[Literal["<", ">"], timedelta]:
    """Before ("<") or after (">") a time, and that, from now: a duration ("-" for the past) or "now".

    Raises ValueError.
    """
    rest = text[1:].strip()
    offset = timedelta() if rest == "now" else None
    if text.startswith("<"):
        return "<", parse_offset(rest) if offset is None else offset
    if text.startswith(">"):
        return ">", parse_offset(rest) if offset is None else offset
    raise ValueError(f'{text[:40]!r} must start with "<" (before) or ">" (after): "<1h", ">-2d", "<now"')


def parse_offset(text: str) -> timedelta:
    """A duration from now, "-" for the past. Raises ValueError."""
    return parse_duration(text.removeprefix("-")) * (-1 if text.startswith("-") else 1)
