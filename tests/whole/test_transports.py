"""Transports that fail, and messages for which there is none: nothing is lost, and the reason is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import BaseModel

from gateway import Delivery, Outcome, Result, TransportType, hookimpl
from gateway.clock import ManualClock
from gateway.errors import ConfigError
from gateway.store.listing import Filter
from tests.plugins.mx_hosts import silent
from tests.plugins.smtp_servers import scripted
from tests.running import Receiver, Running, running, with_plugins


class NoSettings(BaseModel):
    pass


class Odd:
    """A transport of a third party; what it does can be changed."""

    def __init__(self, act: Callable[[Delivery], Any]) -> None:
        self.act = act
        self.deliveries: list[Delivery] = []

    @hookimpl
    def transports(self) -> Mapping[str, TransportType]:
        return {"odd": TransportType(NoSettings, lambda name, settings, network: self)}

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        self.deliveries.append(delivery)
        answer = self.act(delivery)
        if isinstance(answer, float):
            await trio.sleep(answer)
        return answer  # type: ignore[no-any-return]


def through_odd(raw: dict[str, Any]) -> None:
    with_plugins("odd")(raw)
    raw["transports"]["strange"] = {"type": "odd"}
    raw["routes"].insert(0, {"transport": "strange", "to_domains": [".example.org"]})


def accept(delivery: Delivery) -> list[Outcome]:
    return [Outcome(result=Result.DELIVERED, remote_mta="far.example")] * len(delivery.messages)


def fail(delivery: Delivery) -> Any:
    raise RuntimeError("out of\r\nluck \x1b[31m")


def fail_in_a_group(delivery: Delivery) -> Any:
    raise ExceptionGroup("several", [RuntimeError("one"), OSError("two")])


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (fail, "transport 'strange' raised RuntimeError: out of"),
        (fail_in_a_group, "transport 'strange' raised ExceptionGroup: several"),
        (lambda delivery: None, "transport 'strange' did not answer one outcome for each message"),
        (lambda delivery: [], "transport 'strange' did not answer one outcome for each message"),
        (lambda delivery: accept(delivery) * 2, "transport 'strange' did not answer one outcome"),
        (lambda delivery: ["delivered"], "transport 'strange' did not answer one outcome"),
        (lambda delivery: "x", "transport 'strange' did not answer one outcome"),
    ],
)
async def test_a_transport_that_fails(
    tmp_path: Path, webhooks: Receiver, act: Callable[[Delivery], Any], error: str
) -> None:
    odd = Odd(act)
    async with running(tmp_path, webhooks, change=through_odd, plugins={"odd": odd}) as gateway:
        await gateway.send("user@sub.example.org")
        told = await webhooks.event("delayed")
        assert told["Error"].startswith(error)
        assert (told["SMTPCode"], told["Attempt"]) == (0, 1)
        odd.act = accept
        await gateway.gateway.operations.schedule(Filter(), gateway.gateway.clock.now())
        told = await webhooks.event("delivered")
        assert (told["Attempt"], told["RemoteMTA"]) == (2, "far.example")
        [first, second] = odd.deliveries
        assert first.messages[0].id == second.messages[0].id == 1
        _, [failed, delivered] = await gateway.message(1)
        assert (failed.success, delivered.success) == (False, True)
        assert failed.transport == delivered.transport == "strange"


class Tired(Odd):
    """A transport whose work between deliveries fails."""

    async def serve(self) -> None:
        raise RuntimeError("no more")


async def test_a_transport_whose_own_work_fails_still_delivers(
    tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, webhooks, change=through_odd, plugins={"odd": Tired(accept)}) as gateway:
        await gateway.send("user@sub.example.org")
        await webhooks.event("delivered")
    [failure] = [
        record for record in caplog.records if "transport 'strange', serve: raised" in record.getMessage()
    ]
    assert "strange" in failure.getMessage()
    assert failure.exc_info is not None
    assert str(failure.exc_info[1]) == "no more"


async def test_a_transport_that_hangs_ends_with_its_lease(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        through_odd(raw)
        raw["queue"] = {"lease": 0.5}
        raw["plugin"]["retry"] = {"max_attempts": 1}

    odd = Odd(lambda delivery: 1e6)
    async with running(tmp_path, webhooks, change=change, plugins={"odd": odd}) as gateway:
        await gateway.send("user@sub.example.org")
        told = await webhooks.event("failed")
        assert "the attempt took longer than its lease" in told["Error"]
        _, [attempt] = await gateway.message(1)
        assert (attempt.state, attempt.success) == ("done", False)
        # It may have been handed over before.
        [notice] = (await gateway.call("MessageList", {"MailboxName": "Inbox"}))["Messages"]
        assert notice["Subject"].startswith("Perhaps not delivered")


async def test_a_transport_that_hangs_stops_nobody_else(tmp_path: Path, webhooks: Receiver) -> None:
    odd = Odd(lambda delivery: 1e6)

    def change(raw: dict[str, Any]) -> None:
        through_odd(raw)
        raw["grace"] = 0.3

    async with running(tmp_path, webhooks, change=change, plugins={"odd": odd}) as gateway:
        to = [{"Address": f"user{i}@sub.example.org"} for i in range(30)]  # more than one destination gets
        await gateway.call("Send", {"To": to, "Text": "hello"})
        await gateway.send("user@example.net")
        await webhooks.event("delivered", Recipient="user@example.net")
        assert len(odd.deliveries) == 20
    # What was under way is due again 30 s after its start.
    odd.act = accept
    clock = ManualClock(max(d.started for d in odd.deliveries))
    async with running(tmp_path, webhooks, change=change, plugins={"odd": odd}, clock=clock) as gateway:
        await webhooks.wait_for(lambda p: p.get("Event") == "delivered", 11)
        _, [interrupted] = await gateway.message(1)
        assert interrupted.state == "interrupted"
        clock.advance(30)
        await gateway.nudge()
        await webhooks.wait_for(lambda p: p.get("Event") == "delivered", 31)
        _, [interrupted, delivered] = await gateway.message(1)
        assert (delivered.number, delivered.success) == (2, True)


async def test_no_route(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["routes"] = [{"transport": "localserve", "to_domains": ["example.net"]}]
        raw["plugin_sets"]["indirect"] = {"include": ["default"], "without": ["direct"]}
        raw["plugins"]["sets"] = ["indirect", "localserve"]

    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send()
        await gateway.send("user@example.net")
        await webhooks.event("delivered")
        told = await webhooks.event("delayed")
        assert told["Error"] == "no route matches this message; add a [[routes]] entry for it"
        _, [attempt] = await gateway.message(1)
        assert (attempt.state, attempt.transport) == ("done", "")


async def test_a_transport_that_is_gone(tmp_path: Path, webhooks: Receiver) -> None:
    class Routing:
        @hookimpl
        def route(self) -> Any:
            from gateway import Route

            return Route("elsewhere")

    plugins = {"routing": Routing()}
    async with running(tmp_path, webhooks, change=with_plugins("routing"), plugins=plugins) as gateway:
        await gateway.send()
        told = await webhooks.event("delayed")
        assert told["Error"] == (
            "there is no transport 'elsewhere'; add [transports.elsewhere] or change the route"
        )


async def test_a_disabled_sender_domain(tmp_path: Path, webhooks: Receiver) -> None:
    clock = ManualClock()
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        await gateway.gateway.holding.add("", "", "")
        await gateway.send()

    def disable(raw: dict[str, Any]) -> None:
        raw["domains"]["localhost"]["disabled"] = True

    async with running(tmp_path, webhooks, clock=clock, change=disable) as gateway:
        await gateway.gateway.operations.release(Filter())
        told = await webhooks.event("delayed")
        assert told["Error"] == "the sender's domain localhost is disabled"


async def test_nobody_listens(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["transports"]["localserve"]["port"] = 1

    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send()
        told = await webhooks.event("delayed")
        assert "refused" in told["Error"].lower()
        assert (told["SMTPCode"], told["Suppressing"]) == (0, False)
        _ = gateway


async def test_a_wait_for_a_limit_is_no_attempt(tmp_path: Path, webhooks: Receiver) -> None:
    async with scripted(silent) as port:

        def change(raw: dict[str, Any]) -> None:
            raw["transports"] = {"out": {"type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none"}}
            raw["routes"] = [{"transport": "out"}]
            raw["plugin"]["limits"] = {"connections": 1, "wait": 0.3}
            raw["plugin"]["retry"] = {"max_attempts": 1}
            raw["grace"] = 0.5

        async with running(tmp_path, webhooks, change=change) as gateway:
            await gateway.send()
            await gateway.send("second@example.org")
            told = await webhooks.event("delayed")
            assert told["SMTPEnhancedCode"] == "4.4.5"
            item, [attempt] = await gateway.message(told["QueueMsgID"])
            assert (item.message.attempts, attempt.state, attempt.enhanced) == (0, "done", "4.4.5")
            assert "connections" in attempt.error


@pytest.mark.parametrize("of_account", [False, True])
async def test_a_schedule_for_a_route_and_for_an_account(
    tmp_path: Path, webhooks: Receiver, of_account: bool
) -> None:
    """What the gateway's says of a route holds for the account, too: its own says nothing of that."""

    def change(raw: dict[str, Any]) -> None:
        raw["transports"]["localserve"]["port"] = 1
        urgent = {"transport": "localserve", "name": "urgent", "to_domains": ["urgent.example"]}
        raw["routes"] = [urgent, {"transport": "localserve"}]
        raw["plugin"]["retry"] = {"jitter": 0.0, "routes": {"urgent": {"intervals": [100.0]}}}
        if of_account:
            raw["accounts"]["mox"]["plugin"] = {"retry": {"intervals": [200.0]}}

    async with running(tmp_path, webhooks, change=change) as gateway:
        for domain, seconds in (("urgent.example", 100), ("example.org", 200 if of_account else 450)):
            sent = await gateway.send(f"user@{domain}")
            [submission] = sent["Submissions"]
            await webhooks.event("delayed", QueueMsgID=submission["QueueMsgID"])
            item, _ = await gateway.message(submission["QueueMsgID"])
            assert item.message.last_attempt is not None
            wait = (item.message.next_attempt - item.message.last_attempt).total_seconds()
            assert seconds <= wait < seconds + 5

    def misspell(raw: dict[str, Any]) -> None:
        change(raw)
        raw["routes"][0]["name"] = "urgetn"

    with pytest.raises(
        ConfigError, match=r"plugin\.retry\.routes: no route has the name 'urgent'; give it to"
    ):
        async with running(tmp_path, webhooks, change=misspell):
            pass


async def test_verified_tls_is_required(gateway: Running) -> None:
    await gateway.send(RequireTLS=True)
    told = await gateway.webhooks.event("failed")
    assert (told["SMTPCode"], told["SMTPEnhancedCode"]) == (554, "5.7.30")
