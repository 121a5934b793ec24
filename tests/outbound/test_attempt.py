"""What the log says of an attempt, and how much its result counts for in a transaction."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import Outcome
from gateway.clock import ManualClock
from gateway.leases import Recovery
from gateway.outbound.attempt import server_for_log
from gateway.store import queue, reports, settle
from gateway.store.changes import MESSAGE_BYTES, STEP, Claims
from gateway.store.store import Store
from gateway.store.writer import BATCH_BYTES
from tests.running import PATIENCE, receiving, running


@pytest.mark.parametrize(
    ("name", "address", "said"),
    [
        ("", "", ""),
        ("mx.example.org", "", " server=mx.example.org"),
        ("mx.example.org", "192.0.2.1", " server=mx.example.org[192.0.2.1]"),
        ("mx\n2030-01-01 forged", "", " server='mx\\n2030-01-01 forged'"),
    ],
)
def test_the_server(name: str, address: str, said: str) -> None:
    """A plugin's transport may say anything, and that stays on its line."""
    outcome = replace(Outcome.temporary("later"), remote_mta=name, remote_ip=address)
    assert server_for_log(outcome) == said


async def test_what_has_many_recipients_counts_for_as_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no batch holds the writer for thousands of them."""
    sizes: defaultdict[Any, list[int]] = defaultdict(list)
    write_together = Store.write_together

    async def noted(store: Store, work: Any, item: Any, *, size: int = 0) -> Any:
        sizes[work].append(size)
        return await write_together(store, work, item, size=size)

    monkeypatch.setattr(Store, "write_together", noted)
    async with receiving() as webhooks, running(tmp_path, webhooks) as gw:
        await gw.send(To=[{"Address": f"u{n}@example.org"} for n in range(3)])
        await webhooks.wait_for(lambda payload: payload.get("Event") == "delivered", 3)
        await webhooks.incoming(3)
    for work in (settle.settle_all, reports.add):
        assert sum(sizes[work]) >= 3 * MESSAGE_BYTES
    assert BATCH_BYTES // MESSAGE_BYTES <= 2 * STEP


async def test_a_message_is_not_attempted_once_its_lease_ran_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the process stood still after the claim: another one may have sent it meanwhile."""
    clock = ManualClock()
    later = clock.now() + timedelta(hours=1)
    write = Store.write

    async def stopped_after_the_claim(store: Store, work: Any, **size: int) -> Any:
        answer = await write(store, work, **size)
        if isinstance(answer, Claims) and answer.transactions and clock.now() < later:
            clock.advance(later - clock.now())
        return answer

    monkeypatch.setattr(Store, "write", stopped_after_the_claim)
    async with receiving() as webhooks, running(tmp_path, webhooks, clock=clock) as gw:
        await gw.send()
        not_attempted = "not attempted, the lease ran out before"
        with trio.fail_after(PATIENCE):
            while not_attempted not in caplog.text:  # noqa: ASYNC110 - the log sets no event
                await trio.sleep(0.01)
        recovery = Recovery("attempts", queue.recover, gw.gateway.store, clock, lambda: None)
        assert await recovery._recover(frozenset()) == 1
        await gw.nudge()
        await webhooks.event("delivered")
        await webhooks.incoming()
        _, attempts = await gw.message(1)
    assert [one.state for one in attempts] == ["interrupted", "done"]
    assert len(webhooks.got) == 2
    assert "attempt failed" not in caplog.text
