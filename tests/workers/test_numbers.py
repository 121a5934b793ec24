"""What workers count, shown together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from prometheus_client.core import CounterMetricFamily

from gateway.hooks.breaker import Tally
from gateway.workers.hints import Hints
from gateway.workers.numbers import Exchange, Numbers
from gateway.workers.worker import Worker

KEY = ("acme.routing", "route")


def numbers(worker: int) -> Numbers:
    family = CounterMetricFamily("mail", "Mail.", labels=["kind"])
    family.add_metric(["good"], worker + 1)
    return Numbers([family], {KEY: Tally(calls=10 * (worker + 1), in_a_row=5 * worker)})


@asynccontextmanager
async def exchanges(
    directory: Path, workers: int, own: Callable[[int], Numbers] = numbers
) -> AsyncIterator[list[Exchange]]:
    made = [
        Exchange(Worker(number=n, workers=workers, hints=Hints((), None)), directory, partial(own, n))
        for n in range(workers)
    ]
    async with trio.open_nursery() as nursery:
        for one in made:
            await nursery.start(one.serve)
        yield made
        nursery.cancel_scope.cancel()


async def test_each_sample_says_whose_it_is(tmp_path: Path) -> None:
    async with exchanges(tmp_path, 3) as made:
        [family] = await made[1].metrics()
    assert [(s.name, dict(s.labels), s.value) for s in family.samples] == [
        ("mail_total", {"kind": "good", "worker": "0"}, 1),
        ("mail_total", {"kind": "good", "worker": "1"}, 2),
        ("mail_total", {"kind": "good", "worker": "2"}, 3),
    ]


async def test_of_the_only_worker_nothing_is_said(tmp_path: Path) -> None:
    async with exchanges(tmp_path, 1) as [alone]:
        [family] = await alone.metrics()
        assert [dict(s.labels) for s in family.samples] == [{"kind": "good"}]
        assert await alone.tallies() == {}
        assert not await trio.Path(tmp_path / "worker-0.sock").exists()


async def test_how_plugins_do_everywhere(tmp_path: Path) -> None:
    async with exchanges(tmp_path, 2) as made:
        others = await made[0].tallies()
    together = numbers(0).tallies[KEY].with_others(others[KEY])
    assert (together.calls, together.suspended) == (30, True)


async def test_a_worker_that_is_away_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with exchanges(tmp_path, 3) as made:
        (tmp_path / "worker-2.sock").unlink()
        assert list(await made[0].others()) == [1]
    assert "the numbers of worker 2 are left out" in caplog.text


async def test_a_worker_that_hangs_is_left_out(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    autojump_clock.autojump_threshold = 0.2
    async with exchanges(tmp_path, 2) as made:
        (tmp_path / "worker-1.sock").unlink()
        silent = trio.socket.socket(trio.socket.AF_UNIX)
        with silent:
            await silent.bind(str(tmp_path / "worker-1.sock"))
            silent.listen()
            assert await made[0].others() == {}
    assert "no answer in time" in caplog.text
