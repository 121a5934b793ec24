"""The ways in which the distribution's plugins fail, and gateways with one that does."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.thirdparty.gateways import Change, usual, with_sets

LIMIT = 0.2  # seconds: for what hangs


@dataclass(frozen=True)
class Way:
    """How a plugin fails: which of them, what it is told to do, and what the log says then."""

    plugin: str
    does: str
    said: str

    def __str__(self) -> str:
        return f"{self.plugin}-{self.does}"


WAYS = (
    Way("acme.faults", "raise", "raised RuntimeError: acme broke down"),
    Way("acme.faults", "nonsense", "answered"),
    Way("acme.faults.async", "raise", "raised RuntimeError: acme broke down"),
    Way("acme.faults.async", "hang", "no answer in 0.2 s"),
    Way("acme.faults.threaded", "raise", "raised RuntimeError: acme broke down"),
    Way("acme.faults.threaded", "hang", "no answer in 0.2 s"),
)
every_way = pytest.mark.parametrize("way", WAYS, ids=str)


def failing(
    way: Way, *hooks: str, without: tuple[str, ...] = (), on_error: str = "", before: tuple[str, ...] = ()
) -> Change:
    """The usual plugins with one that is asked first and fails in these hooks."""
    settings = {
        "fails": dict.fromkeys(hooks, way.does),
        "limits": {hook: LIMIT for hook in hooks if way.does == "hang"},
        "on_error": {hook: on_error for hook in hooks if on_error},
    }
    return with_sets([*before, way.plugin, *usual(without=without)], {way.plugin: settings})


def failures(log: pytest.LogCaptureFixture, way: Way, hook: str) -> list[str]:
    """The lines that the failures of a plugin's hook left in the log; all say what happened."""
    lines = [
        record.getMessage()
        for record in log.records
        if record.name == "gateway.hooks.calls"
        and f"plugin '{way.plugin}', hook '{hook}': " in record.getMessage()
    ]
    # One plugin has few threads; in a gateway where all of them hang, the next call waits for one.
    said = (way.said, f"no thread came free in {LIMIT} s") if way.does == "hang" else (way.said,)
    assert all(any(text in line for text in said) for line in lines), lines
    assert way.said in "".join(lines)
    return lines
