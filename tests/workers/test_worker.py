from __future__ import annotations

import pytest

from gateway.workers.hints import Hints
from gateway.workers.worker import Worker


def worker(number: int, run: str, start: str = "now") -> Worker:
    return Worker(number=number, workers=11, run=run, start=start, hints=Hints((), None))


@pytest.mark.parametrize(
    ("owner", "gone"),
    [
        (worker(1, "this"), False),  # itself
        (worker(1, "this", "before"), True),
        (worker(0, "this", "a moment ago"), False),
        (worker(10, "this", "a moment ago"), False),
        (worker(1, "earlier"), True),
        (worker(0, "earlier"), True),
    ],
)
def test_whose_leases_are_taken_back(owner: Worker, gone: bool) -> None:
    assert worker(1, "this").knows_gone(owner.owner) is gone


def test_owners_of_another_kind_are_gone() -> None:
    assert worker(1, "this").knows_gone("5f3a")


def test_each_has_an_owner_of_its_own() -> None:
    owners = {Worker(hints=Hints((), None)).owner for _ in range(100)}
    assert len(owners) == 100
