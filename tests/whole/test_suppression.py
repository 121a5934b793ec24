"""Suppression from the failure to the next message, and back."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gateway import Earlier, Suppress, hookimpl
from gateway.clock import ManualClock
from gateway.hooks.breaker import FAILURES
from gateway.outbound.attempt import DECIDE_AGAIN
from gateway.store import tables
from gateway.store.listing import Filter
from tests.running import Receiver, Running, running, with_plugins


async def suppressed_addresses(gateway: Running) -> list[str]:
    answer = await gateway.call("SuppressionList", {})
    return [entry["BaseAddress"] for entry in answer["Suppressions"]]


async def test_a_failure_suppresses_until_it_is_removed(gateway: Running, webhooks: Receiver) -> None:
    await gateway.send("user550@example.org")
    failed = await webhooks.event("failed", QueueMsgID=1)
    assert (failed["SMTPCode"], failed["Suppressing"]) == (550, True)
    [entry] = (await gateway.call("SuppressionList", {}))["Suppressions"]
    assert (entry["BaseAddress"], entry["Manual"]) == ("user550@example.org", False)
    assert entry["Reason"] == "failure reported by the queue: 550 5.0.0"

    arrived = len(webhooks.got)
    await gateway.send("user550@example.org")
    told = await webhooks.event("suppressed", QueueMsgID=2)
    assert (told["Suppressing"], told["SMTPCode"], told["RemoteMTA"], told["Attempt"]) == (False, 0, "", 1)
    assert told["Error"] == (
        "user550@example.org is on the account's suppression list: failure reported by the queue: 550 5.0.0"
    )
    assert len(webhooks.got) == arrived + 1
    item, [attempt] = await gateway.message(2)
    assert (item.state, item.retired_as, item.success) == ("retired", "suppressed", False)
    assert (attempt.success, attempt.transport, attempt.transcript) == (False, "", "")  # nothing was dialled

    await gateway.call("SuppressionRemove", {"EmailAddress": "user550@example.org"})
    await gateway.send("user550@example.org")
    again = await webhooks.event("failed", QueueMsgID=3)
    assert (again["SMTPCode"], again["Suppressing"]) == (550, True)


async def test_base_addresses(gateway: Running, webhooks: Receiver) -> None:
    await gateway.send("x-550@example.org")
    await webhooks.event("failed", Suppressing=True)
    for number, address in enumerate(("x-temperror@example.org", "X+y@example.org", "x@example.org"), 2):
        await gateway.send(address)
        await webhooks.event("suppressed", QueueMsgID=number)
        assert await gateway.call("SuppressionPresent", {"EmailAddress": address}) == {"Present": True}
    await gateway.send("xy@example.org")
    await webhooks.event("delivered", QueueMsgID=5)


async def test_odd_addresses_do_not_undo_the_list(gateway: Running, webhooks: Receiver) -> None:
    await gateway.call("SuppressionAdd", {"EmailAddress": "ada@example.org"})
    for length in range(FAILURES + 1):
        odd = "İ" * (64 - length) + "@example.org"  # in lower case, longer than a localpart may be
        assert await gateway.call("SuppressionPresent", {"EmailAddress": odd}) == {"Present": False}
    await gateway.send("Ada+news@example.org")
    await webhooks.event("suppressed", Recipient="Ada+news@example.org")


async def test_one_recipient_of_several(gateway: Running, webhooks: Receiver) -> None:
    await gateway.call("SuppressionAdd", {"EmailAddress": "b@example.org"})
    await gateway.send("a@example.org", CC=[{"Address": "b@example.org"}, {"Address": "c@example.org"}])
    await webhooks.event("suppressed", Recipient="b@example.org")
    for recipient in ("a@example.org", "c@example.org"):
        await webhooks.event("delivered", Recipient=recipient)
    assert len(await webhooks.incoming(2)) == 2


async def test_what_waits_is_stopped_and_let_through(tmp_path: Path, webhooks: Receiver) -> None:
    """The list is asked at each attempt, not when the message is queued."""
    clock = ManualClock()
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        later = (clock.now() + timedelta(hours=1)).isoformat()
        await gateway.call("SuppressionAdd", {"EmailAddress": "a@example.org"})
        await gateway.send("a@example.org", FutureRelease=later)
        await gateway.send("b@example.org", FutureRelease=later)
        await gateway.send("vtemperror@example.org")
        await webhooks.event("delayed", QueueMsgID=3)
        await gateway.call("SuppressionRemove", {"EmailAddress": "a@example.org"})
        await gateway.call("SuppressionAdd", {"EmailAddress": "b@example.org"})
        await gateway.call("SuppressionAdd", {"EmailAddress": "vtemperror@example.org", "Manual": True})
        clock.advance(timedelta(hours=1))
        await gateway.nudge()
        await webhooks.event("delivered", QueueMsgID=1)
        await webhooks.event("suppressed", QueueMsgID=2)
        assert (await webhooks.event("suppressed", QueueMsgID=3))["Attempt"] == 2


async def test_the_third_failure_in_a_row(gateway: Running, webhooks: Receiver) -> None:
    async def fail(number: int, suppressing: bool) -> None:
        await gateway.send("user554@example.org")
        assert (await webhooks.event("failed", QueueMsgID=number))["Suppressing"] is suppressing

    await fail(1, False)
    await fail(2, False)
    # What was canceled says nothing of the address.
    [rule] = [await gateway.gateway.holding.add("mox", "", "example.org")]
    await gateway.send("user554@example.org")
    await gateway.gateway.operations.drop(Filter(ids=(3,)), "not wanted")
    await gateway.gateway.holding.remove(rule[0].id)
    # Nor does what was suppressed.
    await gateway.call("SuppressionAdd", {"EmailAddress": "user554@example.org"})
    await gateway.send("user554@example.org")
    await webhooks.event("suppressed", QueueMsgID=4)
    await gateway.call("SuppressionRemove", {"EmailAddress": "user554@example.org"})
    await fail(5, True)
    [entry] = (await gateway.call("SuppressionList", {}))["Suppressions"]
    assert entry["Reason"] == "3 failures in a row, the last reported by the queue: 554 5.0.0"
    await gateway.call("SuppressionRemove", {"EmailAddress": "user554@example.org"})
    await fail(6, True)  # the two before still failed


async def test_a_message_that_is_given_up(tmp_path: Path, webhooks: Receiver) -> None:
    """With the last answer's code, though it was temporary."""

    def change(raw: dict[str, Any]) -> None:
        raw["plugin"]["retry"] = {"max_attempts": 1}

    async with running(tmp_path, webhooks, change=change) as gateway:
        for number, suppressing in ((1, False), (2, False), (3, True)):
            await gateway.send("vtemperror@example.org")
            failed = await webhooks.event("failed", QueueMsgID=number)
            assert (failed["SMTPCode"], failed["Suppressing"]) == (451, suppressing)
        assert await suppressed_addresses(gateway) == ["vtemperror@example.org"]


async def test_a_failure_without_a_code(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["plugin"]["retry"] = {"max_attempts": 1}
        raw["transports"]["localserve"]["port"] = 1  # where nobody listens

    async with running(tmp_path, webhooks, change=change) as gateway:
        for number in range(1, 4):
            await gateway.send()
            failed = await webhooks.event("failed", QueueMsgID=number)
            assert (failed["SMTPCode"], failed["Suppressing"]) == (0, False)
        assert await suppressed_addresses(gateway) == []


async def test_a_restart_forgets_nothing(tmp_path: Path, webhooks: Receiver) -> None:
    async with running(tmp_path, webhooks) as gateway:
        await gateway.send("user550@example.org")
        await webhooks.event("failed", Suppressing=True)
    async with running(tmp_path, webhooks) as gateway:
        await gateway.send("user550@example.org")
        await webhooks.event("suppressed")


class Unlucky:
    """While it decides, other messages to the address end, `times` times."""

    def __init__(self, times: int) -> None:
        self.times, self.asked = times, list[list[int]]()
        self.gateway: Running | None = None

    @hookimpl
    async def suppress(self, history: list[Earlier]) -> Suppress:
        self.asked.append([earlier.id for earlier in history])
        if self.times and self.gateway is not None:
            self.times -= 1
            waiting = len(self.asked)  # the ID of one that waits
            values = {"state": "retired", "retired_as": "failed", "success": False}
            values["last_activity"] = self.gateway.gateway.clock.now()
            change = sa.update(tables.message).where(tables.message.c.id == waiting).values(values)
            await self.gateway.gateway.store.write(lambda conn: conn.execute(change).rowcount)
        return Suppress(f"decided {len(self.asked)} times")


@pytest.mark.parametrize("times", [0, 1, DECIDE_AGAIN - 1, DECIDE_AGAIN])
async def test_other_messages_end_meanwhile(times: int, tmp_path: Path, webhooks: Receiver) -> None:
    """Then it is decided again, on what is known now; in the end nothing is added."""
    unlucky = Unlucky(times)
    clock = ManualClock()
    async with running(
        tmp_path, webhooks, change=with_plugins("unlucky"), plugins={"unlucky": unlucky}, clock=clock
    ) as gateway:
        later = (clock.now() + timedelta(days=1)).isoformat()
        for _ in range(DECIDE_AGAIN):
            await gateway.send("user550@example.org", FutureRelease=later)
        unlucky.gateway = gateway
        await gateway.send("user550@example.org")
        failed = await webhooks.event("failed")
        added = times < DECIDE_AGAIN
        assert (failed["QueueMsgID"], failed["SMTPCode"], failed["Suppressing"]) == (4, 550, added)
        entries = (await gateway.call("SuppressionList", {}))["Suppressions"]
        assert [entry["Reason"] for entry in entries] == ([f"decided {times + 1} times"] if added else [])
        known = [list(range(asked, 0, -1)) for asked in range(min(times + 1, DECIDE_AGAIN))]
        assert [sorted(ids, reverse=True) for ids in unlucky.asked] == known
