"""The queue's scheduler: whoever waits for a place gets it as soon as there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
import trio

from gateway.clock import ManualClock
from gateway.config.settings import QueueSettings
from gateway.outbound.attempt import Attempts, Recording
from gateway.outbound.queue import CLAIMED, POLL, QueueScheduler
from gateway.store import queue
from gateway.store.changes import Claimed
from gateway.store.store import Store
from gateway.wakeup import Wakeup
from tests.store.sample import submission


class Recorded:
    """Attempts that say when they begin, and end when they are told."""

    def __init__(self) -> None:
        self.begun, self.begin = trio.open_memory_channel[list[int]](100)
        self.end = [trio.Event() for _ in range(10)]
        self.delivered = True
        self.store_away = False  # what it came to is known, and cannot be recorded until its end
        self._count = 0

    async def run(
        self, claims: Sequence[Claimed], recording: Recording, _stopping: Callable[[], bool]
    ) -> bool:
        end = self.end[self._count]
        self._count += 1
        self.begun.send_nowait([claimed.message.id for claimed in claims])
        if self.store_away:
            recording(delivered=self.delivered)
        await end.wait()
        recording(delivered=self.delivered)
        return self.delivered

    async def next(self) -> list[int]:
        with trio.fail_after(POLL / 2):
            return await self.begin.receive()


class SlowAnswers:
    """A store whose answers to claims can be kept back."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.answered, self.go_on = trio.Event(), trio.Event()
        self.go_on.set()
        self.answers: list[Any] = []

    async def write(self, work: Callable[[sa.Connection], Any]) -> Any:
        answer = await self._store.write(work)
        self.answers.append(answer)
        self.answered.set()
        await self.go_on.wait()
        return answer


async def test_a_place_that_is_left_while_a_claim_is_under_way_is_taken_at_once(tmp_path: Path) -> None:
    clock, queued, attempts = ManualClock(), Wakeup(), Recorded()
    async with Store.open(tmp_path, clock) as store, trio.open_nursery() as nursery:
        slow = SlowAnswers(store)
        settings = QueueSettings(max_deliveries_per_destination=1)
        scheduler = QueueScheduler("me", settings, cast(Attempts, attempts), cast(Store, slow), clock, queued)
        for to in ("u1@a.example", "u2@a.example"):
            await store.write(partial(queue.add, new=submission(to), now=clock.now()))
        stopping = trio.Event()
        await nursery.start(partial(scheduler.serve, stopping=stopping))
        assert await attempts.next() == [1]

        slow.answered, slow.go_on = trio.Event(), trio.Event()
        queued.set()
        await slow.answered.wait()  # it found no place for the second
        attempts.end[0].set()
        await trio.testing.wait_all_tasks_blocked()
        slow.go_on.set()
        assert await attempts.next() == [2]

        attempts.end[1].set()
        stopping.set()
        queued.set()


async def test_an_attempt_leaves_its_place_while_its_result_is_recorded(tmp_path: Path) -> None:
    clock, queued, attempts = ManualClock(), Wakeup(), Recorded()
    attempts.store_away = True
    async with Store.open(tmp_path, clock) as store, trio.open_nursery() as nursery:
        settings = QueueSettings(max_deliveries_per_destination=1)
        scheduler = QueueScheduler("me", settings, cast(Attempts, attempts), store, clock, queued)
        for to in ("u1@a.example", "u2@a.example"):
            await store.write(partial(queue.add, new=submission(to), now=clock.now()))
        stopping = trio.Event()
        await nursery.start(partial(scheduler.serve, stopping=stopping))
        assert await attempts.next() == [1]
        assert await attempts.next() == [2]

        for end in attempts.end:
            end.set()
        stopping.set()
        queued.set()


async def test_all_places_are_taken_though_a_claim_takes_only_some(tmp_path: Path) -> None:
    clock, queued, attempts = ManualClock(), Wakeup(), Recorded()
    attempts.end = [trio.Event() for _ in range(3 * CLAIMED)]
    attempts.begun, attempts.begin = trio.open_memory_channel[list[int]](3 * CLAIMED)
    async with Store.open(tmp_path, clock) as store, trio.open_nursery() as nursery:
        watched = SlowAnswers(store)
        places = 2 * CLAIMED + 10
        # A domain that took nothing lately has half of the places.
        settings = QueueSettings(max_deliveries=2 * places, max_deliveries_per_destination=2 * places)
        scheduler = QueueScheduler(
            "me", settings, cast(Attempts, attempts), cast(Store, watched), clock, queued
        )
        for number in range(3 * CLAIMED):
            new = submission(f"u{number}@a.example")
            await store.write(partial(queue.add, new=new, now=clock.now()))
        stopping = trio.Event()
        await nursery.start(partial(scheduler.serve, stopping=stopping))
        begun = [await attempts.next() for _ in range(places)]
        assert sorted(begun) == [[number] for number in range(1, places + 1)]
        assert [len(claims.transactions) for claims in watched.answers[:3]] == [CLAIMED, CLAIMED, 10]

        for end in attempts.end:
            end.set()
        stopping.set()
        queued.set()


@pytest.mark.parametrize("delivered", [True, False])
async def test_the_scheduler_looks_again_when_an_attempt_failed(tmp_path: Path, delivered: bool) -> None:
    """Its message may be due again before the next look would be."""
    clock, queued, attempts = ManualClock(), Wakeup(), Recorded()
    attempts.delivered = delivered
    async with Store.open(tmp_path, clock) as store, trio.open_nursery() as nursery:
        watched = SlowAnswers(store)
        scheduler = QueueScheduler(
            "me", QueueSettings(), cast(Attempts, attempts), cast(Store, watched), clock, queued
        )
        await store.write(partial(queue.add, new=submission("u1@a.example"), now=clock.now()))
        stopping = trio.Event()
        await nursery.start(partial(scheduler.serve, stopping=stopping))
        assert await attempts.next() == [1]
        await trio.testing.wait_all_tasks_blocked(0.1)  # it waits for what comes
        watched.answered = trio.Event()
        attempts.end[0].set()
        with trio.move_on_after(0.5):
            await watched.answered.wait()
        assert watched.answered.is_set() is not delivered
        stopping.set()
        queued.set()
