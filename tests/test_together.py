"""Work that is shared: once for all who want it, and again when it came to nothing."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from gateway.together import Together


async def test_once_for_all_by_key() -> None:
    together, begun, go_on = Together[str](), [], trio.Event()
    results: list[str] = []

    async def ask(key: str) -> None:
        async def work() -> str:
            begun.append(key)
            await go_on.wait()
            return f"result of {key}"

        results.append(await together.run(key, work))

    async with trio.open_nursery() as nursery:
        for key in ("a", "b", "a", "a"):
            nursery.start_soon(ask, key)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(begun) == ["a", "b"]
        go_on.set()
    assert sorted(results) == ["result of a"] * 3 + ["result of b"]
    await ask("a")  # what is done is not remembered
    assert len(begun) == 3


async def test_a_failure_is_its_own() -> None:
    """Who waited does the work anew."""
    together, calls = Together[int | None](), 0
    go_on = trio.Event()

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await go_on.wait()
            raise ValueError("the first fails")
        await trio.lowlevel.checkpoint()

    async def first() -> None:
        with pytest.raises(ValueError, match="the first fails"):
            await together.run("key", work)

    async def second() -> None:
        assert await together.run("key", work) is None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(second)
        nursery.start_soon(second)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert calls == 2
