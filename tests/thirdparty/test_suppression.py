"""The three stages of suppression by a third party's plugins, in deliveries; and what their failures cost."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from tests.running import Receiver, Running, running
from tests.thirdparty.failing import Way, every_way, failing, failures
from tests.thirdparty.gateways import add_account, send_as, usual, with_sets


async def entries(gateway: Running) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await gateway.call("SuppressionList", {}))["Suppressions"]
    return listed


# --- In place of the built-in ones, and before them -----------------------------------------------


@pytest.mark.parametrize("without", [(), ("mox.base_address",)])
async def test_base_address(without: tuple[str, ...], tmp_path: Path, webhooks: Receiver) -> None:
    settings = {"acme.families": {"domains": ["example.org"]}}
    change = with_sets(["acme.families", *usual(without=without)], settings)
    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send("ada.rcptto550@example.org")
        await webhooks.event("failed", Suppressing=True)
        assert [entry["BaseAddress"] for entry in await entries(gateway)] == ["rcptto550@example.org"]
        await gateway.send("bob.rcptto550@example.org")
        await webhooks.event("suppressed", Recipient="bob.rcptto550@example.org")
        await gateway.call("SuppressionRemove", {"EmailAddress": "cy.rcptto550@example.org"})
        assert await entries(gateway) == []

        # What it leaves to others: the built-in rule, or the address itself.
        await gateway.call("SuppressionAdd", {"EmailAddress": "A.b@example.net"})
        [entry] = await entries(gateway)
        assert entry["BaseAddress"] == ("A.b@example.net" if without else "ab@example.net")
        await gateway.send("A.b@example.net")
        await webhooks.event("suppressed", Recipient="A.b@example.net")


@pytest.mark.parametrize("without", [(), ("mox.suppressed",)])
async def test_suppressed(without: tuple[str, ...], tmp_path: Path, webhooks: Receiver) -> None:
    (tmp_path / "blocked").write_text("spam.example\nother.example\n")
    settings = {"acme.blocklist": {"file": "blocked", "always": "invoice"}}
    change = with_sets(["acme.blocklist", *usual(without=without)], settings)
    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send("user@spam.example")
        told = await webhooks.event("suppressed")
        assert told["Error"] == "the recipient is suppressed"
        assert (await gateway.message(1))[0].retired_as == "suppressed"

        await gateway.send("user550@example.org")
        await webhooks.event("failed", Suppressing=True)
        await gateway.send("user550@example.org", Extra={"invoice": "17"})
        again = await webhooks.event("failed", QueueMsgID=3)
        assert not again["Suppressing"]  # it is on the list
        await gateway.send("user550@example.org")
        await webhooks.event("failed" if without else "suppressed", QueueMsgID=4)


async def test_suppress(tmp_path: Path, webhooks: Receiver) -> None:
    settings = {"codes": [552], "days": 1, "own": ["example.net"]}
    clock = ManualClock()
    change = with_sets(["acme.caution", *usual()], {"acme.caution": settings})
    async with running(tmp_path, webhooks, change=change, clock=clock) as gateway:
        await gateway.send("user552@example.org")
        await webhooks.event("failed", QueueMsgID=1, Suppressing=True)
        [entry] = await entries(gateway)
        assert entry["Reason"] == "acme: 552 from the queue, failure 1 of 1"
        clock.advance(timedelta(days=1))
        assert await entries(gateway) == []
        await gateway.send("user552@example.org")
        await webhooks.event("failed", QueueMsgID=2, Suppressing=True)
        assert (await entries(gateway))[0]["Reason"] == "acme: 552 from the queue, failure 2 of 2"
        # The built-in rule has no say at one's own domains, and all elsewhere.
        await gateway.send("user550@example.net")
        await webhooks.event("failed", QueueMsgID=3, Suppressing=False)
        await gateway.send("user550@example.org")
        await webhooks.event("failed", QueueMsgID=4, Suppressing=True)


async def test_of_two_accounts_one_has_its_own(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        plain = ("mox.base_address", "mox.suppress", "localserve")
        with_sets(
            usual(),
            {"acme.caution": {"codes": [554]}},
            {"acme": ["acme.caution", *usual(without=plain)]},
        )(raw)
        add_account(raw, "acme", plugin_set="acme")

    async with running(tmp_path, webhooks, change=change) as gateway:
        for number, (account, suppressing) in enumerate((("acme", True), ("mox", False)), 1):
            if account == "acme":
                await send_as(gateway, account, "x-554@example.org")
            else:
                await gateway.send("x-554@example.org")
            await webhooks.event("failed", QueueMsgID=number, Suppressing=suppressing)
        await send_as(gateway, "acme", "x-554@example.org")
        await webhooks.event("suppressed", QueueMsgID=3)
        await send_as(gateway, "acme", "x@example.org")  # to this account, another address
        await webhooks.event("delivered", QueueMsgID=4)


# --- Failures -------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("without", [(), ("mox.base_address",)], ids=["before", "in place of"])
async def test_without_an_answer_an_address_stands_for_itself(
    way: Way, without: tuple[str, ...], tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    change = failing(way, "base_address", without=without)
    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send("x-550@example.org")
        await webhooks.event("failed", Suppressing=True)
        [entry] = await entries(gateway)
        assert entry["BaseAddress"] == ("x-550@example.org" if without else "x@example.org")
        await gateway.send("x-550@example.org")
        await webhooks.event("suppressed")
        await gateway.send("user@example.org")
        await webhooks.event("delivered")
        await gateway.call("SuppressionAdd", {"EmailAddress": "ada+x@example.org"})
        present = await gateway.call("SuppressionPresent", {"EmailAddress": "ada+x@example.org"})
        assert present == {"Present": True}
    assert len(failures(caplog, way, "base_address")) == 5

    # What was added meanwhile still holds.
    async with running(tmp_path, webhooks) as gateway:
        for address in ("x-550@example.org", "ada+x@example.org"):
            await gateway.send(address)
            await webhooks.event("suppressed", Recipient=address)
            await gateway.call("SuppressionRemove", {"EmailAddress": address})
        assert await entries(gateway) == []


@every_way
async def test_who_cannot_be_asked_about_is_not_sent_to(
    way: Way, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    async with running(tmp_path, webhooks, change=failing(way, "suppressed"), clock=clock) as gateway:
        await gateway.call("SuppressionAdd", {"EmailAddress": "bob@example.org"})
        await gateway.send("user@example.org")
        await gateway.send("bob@example.org")
        for recipient in ("user@example.org", "bob@example.org"):
            delayed = await webhooks.event("delayed", Recipient=recipient)
            assert f"plugin '{way.plugin}', hook 'suppressed': " in delayed["Error"]
            item, [attempt] = await gateway.message(delayed["QueueMsgID"])
            assert (item.state, item.leased, attempt.state, attempt.transport) == (
                "queued",
                False,
                "done",
                "",
            )
        assert [p for p in webhooks.got if "Event" not in p] == []
    assert len(failures(caplog, way, "suppressed")) == 2

    clock.advance(timedelta(minutes=8))
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        await webhooks.event("delivered", Recipient="user@example.org", Attempt=1)
        await webhooks.event("suppressed", Recipient="bob@example.org", Attempt=1)


@every_way
@pytest.mark.parametrize("without", [(), ("mox.suppress",)], ids=["before", "in place of"])
async def test_a_failure_is_settled_whoever_decides_on_it(
    way: Way, without: tuple[str, ...], tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    change = failing(way, "suppress", without=without)
    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send("user550@example.org")
        failed = await webhooks.event("failed")
        assert (failed["SMTPCode"], failed["Suppressing"]) == (550, not without)
        item, [attempt] = await gateway.message(1)
        assert (item.state, item.retired_as, attempt.state) == ("retired", "failed", "done")
        assert len(await entries(gateway)) == (0 if without else 1)
    assert len(failures(caplog, way, "suppress")) == 1

    async with running(tmp_path, webhooks) as gateway:
        await gateway.send("user550@example.org")
        if without:
            await webhooks.event("failed", QueueMsgID=2, Suppressing=True)
        else:
            await webhooks.event("suppressed", QueueMsgID=2)
