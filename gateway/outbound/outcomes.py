"""What a transport answered, made fit to be stored: a plugin's dataclass may hold anything, of any size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.model import Outcome, Result

# Characters that are kept. The smtp transport's own are far below.
MAX_TEXT = {
    "enhanced": 20,
    "error": 2000,
    "remote_mta": 255,
    "remote_ip": 64,
    "tls": 255,
    "transcript": 65536,
}


def checked(answer: object, count: int) -> list[Outcome] | None:
    """The outcomes of `count` messages, their texts cut; None if `answer` is not that."""
    if not isinstance(answer, (list, tuple)) or len(answer) != count:
        return None
    return [_fit(outcome) for outcome in answer] if all(map(_is_outcome, answer)) else None


def failure(transport: str, reason: str) -> Outcome:
    """For a transport that did not do what it has to."""
    return _fit(Outcome.temporary(f"transport {transport!r} {reason}"))


def _is_outcome(value: object) -> bool:
    return (
        isinstance(value, Outcome)
        and isinstance(value.result, Result)
        and type(value.code) is int
        and 0 <= value.code <= 999
        and all(isinstance(getattr(value, name), str) for name in MAX_TEXT)
    )


def _fit(outcome: Outcome) -> Outcome:
    texts: dict[str, Any] = {
        name: _text(getattr(outcome, name)[:maximum]) for name, maximum in MAX_TEXT.items()
    }
    return replace(outcome, **texts)


def _text(text: str) -> str:
    """Without what no database takes: lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")
