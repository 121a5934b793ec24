"""`gateway.client.follow`: on and on, over restarts of the gateway, and what ends it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from gateway.client import ApiError, Streamed, follow, stream
from tests.running import AUTH, PATIENCE, receiving, running


async def test_over_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FIRST_WAIT", 0.05)
    heard: list[str] = []
    more = trio.Event()

    async def tell(streamed: Streamed) -> None:
        nonlocal more
        if streamed.payload is not None:
            heard.append(streamed.payload["Recipient"])
        more.set()
        more = trio.Event()

    async def wait_for(count: int) -> None:
        while len(heard) < count:
            await more.wait()

    async with receiving() as webhooks, trio.open_nursery() as nursery:
        with trio.fail_after(2 * PATIENCE):
            async with running(tmp_path, webhooks) as gateway:
                url = str(gateway.api.base_url)
                begun = more
                watch = follow
                nursery.start_soon(
                    lambda: watch(url, AUTH[1], AUTH[0], tell=tell, events=["delivered"], cursor=None)
                )
                await begun.wait()  # the first message says where the stream begins
                await gateway.send("a@example.org")
                await wait_for(1)
            async with running(tmp_path, webhooks) as gateway:
                await gateway.send("b@example.org")
                await wait_for(2)
        nursery.cancel_scope.cancel()
    assert heard == ["a@example.org", "b@example.org"]


@pytest.mark.parametrize("error", [LookupError, BrokenPipeError, trio.TooSlowError])
async def test_what_ends_it(tmp_path: Path, error: type[Exception]) -> None:
    async def fail(streamed: Streamed) -> None:
        raise error(streamed.cursor)

    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        url = str(gateway.api.base_url)
        with trio.fail_after(PATIENCE):
            with pytest.raises(ApiError) as refused:
                await follow(url, "wrong", tell=fail)
            assert (refused.value.status, refused.value.code) == (401, "error")
            with pytest.raises(ApiError, match="is none of delivered"):
                await follow(url, AUTH[1], AUTH[0], tell=fail, events=["exploded"])
            with pytest.raises(error):
                await follow(url, AUTH[1], AUTH[0], tell=fail)
