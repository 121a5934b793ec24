"""Webhook calls that fail, wait, and are superseded."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from gateway.clock import ManualClock
from gateway.store import call_listing
from gateway.store.call_listing import CallFilter
from gateway.store.listing import Filter
from tests.running import Receiver, Running, running


async def calls(gateway: Running, **conditions: Any) -> Any:
    page, _ = await gateway.gateway.store.read(lambda conn: call_listing.page(conn, CallFilter(**conditions)))
    return page


async def test_a_receiver_that_recovers(tmp_path: Path, webhooks: Receiver) -> None:
    clock = ManualClock()
    webhooks.status = 500
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        await gateway.send()
        await webhooks.event("delivered")
        await webhooks.incoming()

        async def next_attempts() -> set[Any]:
            return {c.next_attempt - clock.now() > timedelta() for c in await calls(gateway, state="queued")}

        await gateway.until(next_attempts, {True})  # both failures are recorded
        for call in await calls(gateway, state="queued"):
            assert abs(call.next_attempt - clock.now() - timedelta(minutes=1)) <= timedelta(seconds=1)

        webhooks.status = 200
        clock.advance(timedelta(minutes=1, seconds=1))
        await gateway.nudge()
        again = await webhooks.wait_for(lambda p: True, 4)
        assert sorted(map(str, again[:2])) == sorted(map(str, again[2:]))
        attempts = {h["x-mox-webhook-id"]: h["x-mox-webhook-attempt"] for h in webhooks.headers}
        assert set(attempts.values()) == {"2"}

        async def waiting() -> int:
            return len(await calls(gateway, state="queued"))

        await gateway.until(waiting, 0)
        for call in await calls(gateway, state="retired"):
            found = await gateway.gateway.store.read(
                lambda conn, call_id=call.id: call_listing.get(conn, call_id)  # type: ignore[misc]
            )
            assert found is not None
            assert [(a.success, a.code) for a in found[1]] == [(False, 500), (True, 200)]


async def test_only_the_newest_event_is_delivered(tmp_path: Path, webhooks: Receiver) -> None:
    clock = ManualClock()
    webhooks.status = 503
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        await gateway.send("vtemperror@example.org")
        await gateway.send("vtemperror@example.net")
        await webhooks.wait_for(lambda p: p["Event"] == "delayed", 2)
        [first, second] = await gateway.messages()

        async def due() -> list[bool]:
            return [c.next_attempt > clock.now() for c in await calls(gateway, state="queued")]

        await gateway.until(due, [True, True])
        await gateway.gateway.operations.drop(Filter(ids=(first.message.id,)), "not wanted any more")
        told = await webhooks.event("canceled")
        assert told["QueueMsgID"] == first.message.id
        await gateway.until(due, [True, True])
        webhooks.status = 200
        clock.advance(timedelta(minutes=2))
        await gateway.nudge()
        await webhooks.wait_for(lambda p: p["Event"] == "canceled", 2)
        await webhooks.wait_for(lambda p: p["Event"] == "delayed" and p["QueueMsgID"] == second.message.id, 2)
        of_first = [p["Event"] for p in webhooks.got if p["QueueMsgID"] == first.message.id]
        assert of_first == ["delayed", "canceled", "canceled"]
        [superseded, newer] = await calls(gateway, ids=(1, 3))
        assert (superseded.event_name, newer.event_name) == ("delayed", "canceled")
        assert (superseded.state, superseded.superseded_by) == ("retired", newer.id)


async def test_only_events_that_are_subscribed_to(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["accounts"]["mox"]["webhook_outgoing"]["events"] = ["failed"]
        raw["accounts"]["mox"]["webhook_outgoing"]["authorization"] = "Bearer secret"
        del raw["accounts"]["mox"]["webhook_incoming"]

    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send()
        await gateway.send("user550@example.org")
        await webhooks.event("failed")

        async def retired() -> int:
            return len(await gateway.messages(state="retired"))

        await gateway.until(retired, 2)
    assert [p["Event"] for p in webhooks.got] == ["failed"]
    assert webhooks.headers[0]["authorization"] == "Bearer secret"
