"""Stopped and started again in the same directory: everything is as it was."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import Delivery, Outcome
from gateway.clock import ManualClock
from gateway.outbound.queue import QueueScheduler
from gateway.outbound.transports import CalledTransport
from gateway.store import holds, queue
from gateway.store.changes import Claim
from gateway.store.listing import Filter
from tests.running import PATIENCE, Receiver, running


async def test_the_queue_is_as_it_was(tmp_path: Path, webhooks: Receiver) -> None:
    clock = ManualClock()
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        await gateway.gateway.holding.add("", "", "example.com")
        await gateway.send("held@example.com", Extra={"Order": "17"})
        await gateway.send(FutureRelease=(clock.now() + timedelta(hours=1)).isoformat())
        await gateway.send("vtemperror@example.org")
        await gateway.send("user550@example.org")
        await webhooks.event("delayed")
        await webhooks.event("failed")
        before = [await gateway.message(number) for number in (1, 2, 3, 4)]

    clock.advance(60)
    told = len(webhooks.got)
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        assert [await gateway.message(number) for number in (1, 2, 3, 4)] == before
        assert await gateway.gateway.store.read(holds.snapshot) == await gateway.gateway.holding.snapshot()
        await gateway.send("also-held@example.com")
        answer = await gateway.send("new@example.org")
        assert answer["Submissions"][0]["QueueMsgID"] == 6
        await webhooks.event("delivered", Recipient="new@example.org")
        assert [m.message.hold for m in await gateway.messages(to="@example.com")] == [True, True]
        await webhooks.incoming()
        assert len(webhooks.got) == told + 2  # nothing is told again

        await gateway.gateway.operations.release(Filter(hold=True))
        delivered = await webhooks.event("delivered", Recipient="held@example.com")
        assert delivered["Extra"] == {"Order": "17"}
        clock.advance(timedelta(hours=1))
        await gateway.nudge()
        await webhooks.event("delivered", QueueMsgID=2)


async def test_webhook_calls_go_on(tmp_path: Path, webhooks: Receiver) -> None:
    clock = ManualClock()
    webhooks.status = 500
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        await gateway.send()
        await webhooks.event("delivered")
        await webhooks.incoming()
    webhooks.status = 200
    clock.advance(timedelta(minutes=3))
    async with running(tmp_path, webhooks, clock=clock):
        await webhooks.wait_for(lambda p: "Event" in p, 2)
        await webhooks.incoming(2)


async def test_leases_of_a_killed_process(tmp_path: Path, webhooks: Receiver) -> None:
    clock = ManualClock()
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        store = gateway.gateway.store
        await gateway.gateway.holding.add("", "", "")
        await gateway.send()
        await gateway.send("other@example.org")
        start = clock.now()

        def claim_for_another(conn: Any) -> int:
            """As a process does that is killed before it can write down what came of it."""
            conn.exec_driver_sql("UPDATE message SET hold = 0 WHERE id = 1")
            claim = Claim(
                owner="killed", now=start, lease_seconds=1800, room=10, per_destination=10, max_recipients=1
            )
            return len(queue.claim(conn, claim, lambda attempts, now: now + timedelta(hours=9)).transactions)

        assert await store.write(claim_for_another) == 1

    clock.advance(5)
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        item, [attempt] = await gateway.message(1)
        assert (attempt.state, attempt.number, attempt.success) == ("interrupted", 1, False)
        assert attempt.error == "the gateway stopped during this attempt"
        assert (item.state, item.leased, item.message.attempts) == ("queued", False, 1)
        assert item.message.next_attempt == start + timedelta(seconds=30)

        clock.advance(24)
        await gateway.nudge()
        assert (await gateway.message(1))[0].message.attempts == 1
        clock.advance(1)
        await gateway.nudge()
        told = await webhooks.event("delivered")
        assert (told["QueueMsgID"], told["Attempt"]) == (1, 2)
        assert [a.state for a in (await gateway.message(1))[1]] == ["interrupted", "done"]
        assert (await gateway.message(2))[0].message.attempts == 0  # held


@pytest.mark.parametrize(
    ("answer", "due"),
    [
        (Outcome.temporary("connection refused"), 30),  # seconds after the attempt
        (Outcome.temporary("shutting down", code=421, enhanced="4.3.2"), 30),
        (Outcome.temporary("try later", code=451, enhanced="4.3.0"), 450),
        (replace(Outcome.temporary("connection reset"), transcript="* connection reset"), 30),
        (replace(Outcome.temporary("outcome unknown"), transcript="< 354 go on\n* connection closed"), 450),
    ],
)
async def test_what_nobody_answers_during_the_stop_is_no_failure(
    tmp_path: Path, webhooks: Receiver, monkeypatch: pytest.MonkeyPatch, answer: Outcome, due: int
) -> None:
    """The next hop may be the gateway itself, which takes no connection any more."""
    clock, begun = ManualClock(), trio.Event()
    stops: list[trio.Event] = []
    serve = QueueScheduler.serve

    async def serve_and_tell(self: QueueScheduler, *, stopping: trio.Event, **more: Any) -> None:
        stops.append(stopping)
        await serve(self, stopping=stopping, **more)

    async def deliver(_self: CalledTransport, _delivery: Delivery) -> list[Outcome]:
        begun.set()
        await stops[0].wait()
        return [answer]

    with monkeypatch.context() as patch:
        patch.setattr(QueueScheduler, "serve", serve_and_tell)
        patch.setattr(CalledTransport, "deliver", deliver)
        async with running(tmp_path, webhooks, clock=clock) as gateway:
            await gateway.send("user@example.org")
            with trio.fail_after(PATIENCE):
                await begun.wait()
    began = clock.now()
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        item, _ = await gateway.message(1)
        waiting = item.message
        assert waiting.attempts == 1
        assert (waiting.next_attempt - began).total_seconds() == pytest.approx(due, rel=0.2)
        if due != 30:
            await webhooks.event("delayed")  # before the lease of its call runs out
        clock.advance(timedelta(seconds=2 * due))
        await gateway.nudge()
        await webhooks.event("delivered")
    told = [payload["Event"] for payload in webhooks.got if "Event" in payload]
    assert told == (["delivered"] if due == 30 else ["delayed", "delivered"])


async def test_a_gateway_toml_that_the_user_changed(tmp_path: Path, webhooks: Receiver) -> None:
    async with running(tmp_path, webhooks) as gateway:
        smtp_port = gateway.smtp[1]
    config, key = tmp_path / "gateway.toml", tmp_path / "dkim" / "localhost.pem"
    private = key.read_bytes()
    text = config.read_text()
    text = re.sub(r'full_name = ".*"', 'full_name = "Somebody Else"  # mine', text)
    text += '\n[accounts.second]\naddresses = ["second@localhost"]\n'
    config.write_text(text)
    async with running(tmp_path, webhooks) as gateway:
        assert gateway.smtp[1] == smtp_port
        await gateway.send("second@localhost")
        await webhooks.event("delivered")
        await gateway.send("third@localhost")
        [incoming] = await webhooks.incoming()
        assert incoming["Meta"]["RcptTo"] == "third@localhost"  # the second account has no webhook
        assert incoming["From"] == [{"Name": "Somebody Else", "Address": "mox@localhost"}]
    assert config.read_text() == text
    assert key.read_bytes() == private
