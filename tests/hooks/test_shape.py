"""What a plugin may answer to `shape`, and what counts as its failure."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import Limits, NextHop, hookimpl
from gateway.net.shaping import Shaper
from tests.hooks.helpers import load

HOP = NextHop("example.net", "mx.example.net", "192.0.2.1", 25, "direct")
lazy: Any = object()


class Shape:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @hookimpl
    def shape(self) -> Any:
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        Limits(),
        Limits(connections=1_000_000, per_minute=0.5, wait=0),
        Limits(key="Ä provider of \N{SNOWMAN}"),
    ],
)
async def test_good_answers(answer: Limits, caplog: pytest.LogCaptureFixture) -> None:
    assert await load({"shape": Shape(answer)}).gateway.shape(hop=HOP) is answer
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Limits(connections=-1), "Limits whose connections is not an int from 0 to 1000000"),
        (Limits(connections=True), "Limits whose connections is not an int from 0 to 1000000"),
        (Limits(messages_per_connection=10**400), "Limits whose messages_per_connection is not an int"),
        (Limits(per_minute=float("nan")), "Limits whose per_minute is not a number from 0 to 1000000"),
        (Limits(per_minute=10**400), "Limits whose per_minute is not a number"),
        (Limits(wait=float("inf")), "Limits whose wait is not a number"),
        (Limits(wait=lazy), "Limits whose wait is not a number"),
        (Limits(key=lazy), "Limits whose key is not printable text of at most 255 characters"),
        (Limits(key="a\r\nb"), "Limits whose key is not printable text"),
        (Limits(key="x" * 256), "Limits whose key is not printable text"),
        (20, "int; expected Limits or None"),
    ],
)
async def test_bad_answers(answer: Any, problem: str, caplog: pytest.LogCaptureFixture) -> None:
    """They limit nothing, and the next plugin is asked."""
    hooks = load({"bad": Shape(answer), "good": Shape(Limits(connections=3))})
    assert await hooks.gateway.shape(hop=HOP) == Limits(connections=3)
    assert f"plugin 'bad', hook 'shape': answered {problem}" in caplog.text


async def test_when_nobody_answers_there_are_no_limits() -> None:
    hooks = load({"silent": Shape(None)})
    share = await Shaper(lambda hop: hooks.gateway.shape(hop=hop)).share(HOP)
    assert all(share.open_place() is not None for _ in range(1000))
