"""Calls of content stores: one that fails again and again is suspended, and no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
import trio
from trio.testing import MockClock

from gateway.errors import ContentUnavailable, StoreUnavailable
from gateway.hooks.breaker import FAILURES, FIRST_WAIT, Tally
from gateway.hookspecs.additions import ContentReader, NewContent
from gateway.store.content_reading import BytesContent
from gateway.store.content_stores import TIDY, TIMEOUT, CalledStore

CONTENT = BytesContent(b"hello")
NAME = "0" * 32


class Moody:
    """A store that hangs, or does its work."""

    def __init__(self) -> None:
        self.hangs = True
        self.raises: Exception | None = None
        self.asked = 0

    async def put(self, name: str, content: NewContent) -> None:
        self.asked += 1
        if self.raises is not None:
            raise self.raises
        if self.hangs:
            await trio.sleep_forever()

    async def delete(self, names: Sequence[str]) -> None:
        await self.put("", CONTENT)

    async def open(self, name: str) -> ContentReader:
        raise KeyError(name)

    async def names(self, before: datetime) -> AsyncIterator[str]:
        yield NAME
        await self.put("", CONTENT)


async def test_a_store_that_hangs_costs_its_limit_a_few_times_only(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    moody, tally = Moody(), Tally()
    store = CalledStore("'moody' of plugin 'p'", moody, TIMEOUT, plugin="p", tally=tally)
    started = trio.current_time()
    for _ in range(FAILURES):
        with pytest.raises(ContentUnavailable, match="put: no answer in 30 s"):
            await store.put(NAME, CONTENT)
    assert trio.current_time() - started == FAILURES * TIMEOUT
    started = trio.current_time()
    for step in (store.put(NAME, CONTENT), store.delete([NAME]), store.open(NAME)):
        with pytest.raises(ContentUnavailable, match="suspended"):
            await step
    assert trio.current_time() == started
    assert (moody.asked, tally.calls, tally.timeouts, tally.skipped) == (FAILURES, FAILURES, FAILURES, 3)
    assert "'moody' of plugin 'p': put: failed 5 times in a row; suspended" in caplog.text

    moody.hangs = False
    await trio.sleep(FIRST_WAIT)
    await store.put(NAME, CONTENT)
    await store.delete([NAME])
    assert not tally.suspended


async def test_removals_and_lists_have_their_limits(autojump_clock: MockClock) -> None:
    store = CalledStore("'moody'", Moody(), TIMEOUT, plugin="p")
    started = trio.current_time()
    with pytest.raises(ContentUnavailable, match=f"delete: no answer in {TIDY:g} s"):
        await store.delete([NAME])
    assert trio.current_time() - started == TIDY
    names = store.names(datetime.now(UTC))
    assert await anext(names) == NAME
    with pytest.raises(ContentUnavailable, match="names: no answer in 30 s"):
        await anext(names)


async def test_a_content_that_is_gone_is_no_failure_of_the_store() -> None:
    tally = Tally()
    store = CalledStore("'moody'", Moody(), TIMEOUT, plugin="p", tally=tally)
    for _ in range(2 * FAILURES):
        with pytest.raises(ContentUnavailable, match=f"content {NAME} is missing: KeyError"):
            await store.open(NAME)
    assert (tally.failures, tally.suspended) == (2 * FAILURES, False)


async def test_a_full_disk_is_told_apart_and_ours_is_never_suspended() -> None:
    moody = Moody()
    moody.raises = OSError(28, "No space left on device")
    store = CalledStore("'files'", moody, TIMEOUT)
    for _ in range(2 * FAILURES):
        with pytest.raises(StoreUnavailable, match="put: disk full: No space left on device") as caught:
            await store.put(NAME, CONTENT)
        assert not isinstance(caught.value, ContentUnavailable)
    moody.hangs, moody.raises = False, None
    await store.put(NAME, CONTENT)
