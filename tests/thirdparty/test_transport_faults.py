"""A transport that fails in any way: a temporary outcome, and the message is kept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.clock import ManualClock
from gateway.errors import ConfigError
from tests.running import Receiver, running
from tests.thirdparty.gateways import usual, with_sets

# What the transport does, and what is recorded.
FAULTS = {
    "raises": "raised RuntimeError: acme is out of order",
    "cancelled": "raised Cancelled",
    "nothing": "did not answer one outcome for each message",
    "too many": "did not answer one outcome for each message",
    "other type": "did not answer one outcome for each message",
    "text": "did not answer one outcome for each message",
    "wrong fields": "did not answer one outcome for each message",
}
LEASE = 1.0  # seconds


def broken(*ways: str, when: str = "delivering", **tables: Any) -> Any:
    """A transport for each way, to the domain with its number."""
    domains = {f"way{number}.example": f"broken{number}" for number in range(len(ways))}
    transports = {
        f"broken{number}": {"type": "broken", "way": way, "when": when} for number, way in enumerate(ways)
    }
    return with_sets(
        ["acme.transports", "acme.routing", *usual()],
        {"acme.routing": {"domains": domains}},
        transports=transports,
        **tables,
    )


async def test_whatever_a_transport_answers_the_message_is_kept(
    tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    async with running(tmp_path, webhooks, change=broken(*FAULTS), clock=clock) as gateway:
        for number, (way, error) in enumerate(FAULTS.items()):
            await gateway.send(f"user@way{number}.example")
            delayed = await webhooks.event("delayed", Recipient=f"user@way{number}.example")
            assert delayed["Error"].startswith(f"transport 'broken{number}' "), way
            assert error in delayed["Error"]
            assert (delayed["SMTPCode"], delayed["Attempt"]) == (0, 1)
            item, [attempt] = await gateway.message(delayed["QueueMsgID"])
            assert (item.state, item.leased, attempt.state, attempt.transport) == (
                "queued",
                False,
                "done",
                f"broken{number}",
            )
            assert item.message.next_attempt > clock.now()
            assert f"transport 'broken{number}'" in caplog.text
        await gateway.send()  # the gateway is as it was
        await webhooks.event("delivered")

    clock.advance(timedelta(minutes=8))
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        for number in range(len(FAULTS)):
            await webhooks.event("delivered", Recipient=f"user@way{number}.example", Attempt=2)


async def test_a_transport_that_takes_longer_than_the_lease(tmp_path: Path, webhooks: Receiver) -> None:
    clock = ManualClock()
    change = broken("hangs", queue={"lease": LEASE})
    async with running(tmp_path, webhooks, change=change, clock=clock) as gateway:
        started = trio.current_time()
        await gateway.send("user@way0.example")
        delayed = await webhooks.event("delayed")
        assert trio.current_time() - started > 0.8 * LEASE
        assert delayed["Error"] == "the attempt took longer than its lease"
        item, [attempt] = await gateway.message(1)
        assert (item.state, item.leased, attempt.state) == ("queued", False, "done")

    clock.advance(timedelta(minutes=8))
    async with running(tmp_path, webhooks, clock=clock):
        await webhooks.event("delivered", Attempt=2)


async def test_a_transport_that_hangs_when_the_gateway_stops(tmp_path: Path, webhooks: Receiver) -> None:
    clock = ManualClock()
    async with running(tmp_path, webhooks, change=broken("hangs", grace=0.3), clock=clock) as gateway:
        await gateway.send("user@way0.example")

        async def under_way() -> list[bool]:
            return [item.leased for item in await gateway.messages()]

        await gateway.until(under_way, [True])

    clock.advance(timedelta(seconds=31))
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        await webhooks.event("delivered", Attempt=2)
        _, [first, _] = await gateway.message(1)
        assert (first.state, first.error) == ("interrupted", "the gateway stopped during this attempt")


async def test_a_transport_that_cannot_be_made(tmp_path: Path, webhooks: Receiver) -> None:
    with pytest.raises(ConfigError) as refused:
        async with running(tmp_path, webhooks, change=broken("raises", when="made")):
            pytest.fail("it runs")
    assert str(refused.value) == (
        "transports.broken0: the transport type 'broken' cannot make it: RuntimeError: acme cannot be made;"
        " repair its plugin, or remove it"
    )
