"""Messages on hold, by rule and by hand; messages that are dropped."""

from __future__ import annotations

from datetime import timedelta

from gateway.store.listing import Filter
from tests.running import Running

NOBODY = Filter(account="nobody")


async def test_a_rule_holds_and_a_release_lets_go(gateway: Running) -> None:
    rule, held = await gateway.gateway.holding.add("", "", "example.org")
    assert held == 0
    answer = await gateway.send(CC=[{"Address": "user@example.net"}])
    first = answer["Submissions"][0]["QueueMsgID"]
    await gateway.webhooks.event("delivered", Recipient="user@example.net")  # which it does not match
    item, attempts = await gateway.message(first)
    assert (item.state, item.message.hold, attempts) == ("queued", True, ())

    # Removing the rule changes no message; new ones are not held.
    assert await gateway.gateway.holding.remove(rule.id)
    await gateway.send("second@example.org")
    await gateway.webhooks.event("delivered", Recipient="second@example.org")
    assert (await gateway.message(first))[0].message.hold

    assert await gateway.gateway.operations.release(Filter(to="user@EXAMPLE.org")) == 1
    await gateway.webhooks.event("delivered", Recipient="user@example.org")
    assert await gateway.gateway.operations.release(Filter()) == 0


async def test_a_rule_added_later_holds_what_is_queued(gateway: Running) -> None:
    later = (gateway.gateway.clock.now() + timedelta(hours=1)).isoformat()
    for number in range(3):
        await gateway.send(f"user{number}@example.org", FutureRelease=later)
    await gateway.send("user@example.net", FutureRelease=later)
    _, held = await gateway.gateway.holding.add("mox", "localhost", "example.org")
    assert held == 3
    assert [m.message.hold for m in await gateway.messages()] == [True, True, True, False]

    # What is due is not attempted while it is held, and at once when it is released.
    operations = gateway.gateway.operations
    assert await operations.schedule(Filter(), gateway.gateway.clock.now()) == 4
    await gateway.webhooks.event("delivered", Recipient="user@example.net")
    assert [m.message.attempts for m in await gateway.messages(state="queued")] == [0, 0, 0]
    assert await operations.release(Filter(hold=True)) == 3
    await gateway.webhooks.wait_for(lambda p: p.get("Event") == "delivered", 4)


async def test_an_empty_rule_pauses_the_queue(gateway: Running) -> None:
    rule, _ = await gateway.gateway.holding.add("", "", "")
    await gateway.send()
    await gateway.nudge()
    [item] = await gateway.messages()
    assert (item.message.hold, item.message.attempts) == (True, 0)
    await gateway.gateway.holding.remove(rule.id)
    await gateway.gateway.operations.release(Filter())
    await gateway.webhooks.event("delivered")


async def test_hold_by_hand(gateway: Running) -> None:
    await gateway.send("vtemperror@example.org")
    await gateway.webhooks.event("delayed")
    operations = gateway.gateway.operations
    assert await operations.hold(Filter(ids=(1,))) == 1
    assert await operations.schedule(Filter(), gateway.gateway.clock.now()) == 1
    await gateway.send("other@example.org")
    await gateway.webhooks.event("delivered")
    assert (await gateway.message(1))[0].message.attempts == 1
    await operations.release(Filter())
    assert (await gateway.webhooks.event("delayed", Attempt=2))["QueueMsgID"] == 1


async def test_dropped_messages_are_canceled(gateway: Running) -> None:
    await gateway.gateway.holding.add("", "", "")
    await gateway.send(CC=[{"Address": "other@example.org"}])
    assert await gateway.gateway.operations.drop(Filter(to="other@"), "not wanted any more") == 1
    told = await gateway.webhooks.event("canceled")
    assert (told["Recipient"], told["Error"]) == ("other@example.org", "not wanted any more")
    assert (told["SMTPCode"], told["DSN"]) == (0, False)
    item, _ = await gateway.message(2)
    assert (item.state, item.retired_as, item.success) == ("retired", "canceled", False)
    assert (await gateway.message(1))[0].state == "queued"

    # A message that has left the queue is not to be changed any more.
    operations = gateway.gateway.operations
    for affected in (
        await operations.drop(Filter(ids=(2,)), ""),
        await operations.hold(Filter(ids=(2,))),
        await operations.release(Filter(ids=(2,))),
        await operations.schedule(Filter(ids=(2,)), gateway.gateway.clock.now()),
    ):
        assert affected == 0


async def test_several_hundred_messages(gateway: Running) -> None:
    """More than one step of an action takes."""
    await gateway.gateway.holding.add("", "", "example.org")
    to = [{"Address": f"user{number}@example.org"} for number in range(1000)]
    await gateway.call("Send", {"To": to, "Subject": "many", "Text": "hello"})
    await gateway.call("Send", {"To": to[:200], "Subject": "more", "Text": "hello"})
    operations = gateway.gateway.operations
    assert await operations.drop(Filter(to="user99"), "enough") == 12
    assert await operations.schedule(Filter(), gateway.gateway.clock.now() + timedelta(days=1)) == 1188
    assert await operations.release(Filter()) == 1188
    _, held = await gateway.gateway.holding.add("mox", "", "")
    assert held == 1188
