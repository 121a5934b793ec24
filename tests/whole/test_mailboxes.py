"""What an account does with the messages in its mailboxes."""

from __future__ import annotations

import base64
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.clock import ManualClock
from gateway.store import call_listing
from gateway.store.call_listing import CallFilter
from gateway.store.tables import webhook_call
from tests.running import Receiver, Running, running


async def received(gateway: Running, count: int = 1, **fields: Any) -> int:
    """The ID of the last message of those that have come."""
    await gateway.send("mox@localhost", **fields)
    return int((await gateway.webhooks.incoming(count))[-1]["Meta"]["MsgID"])


async def test_flags_and_mailboxes(gateway: Running) -> None:
    msg_id = await received(gateway)
    await gateway.call("MessageFlagsAdd", {"MsgID": msg_id, "Flags": ["\\Seen", "orders"]})
    await gateway.call("MessageFlagsRemove", {"MsgID": msg_id, "Flags": ["orders"]})
    await gateway.call("MessageMove", {"MsgID": msg_id, "DestMailboxName": "Trash"})
    meta = (await gateway.call("MessageGet", {"MsgID": msg_id}))["Meta"]
    assert (meta["Flags"], meta["MailboxName"]) == (["\\seen"], "Trash")


async def test_a_deleted_message_leaves_nothing(gateway: Running) -> None:
    msg_id = await received(gateway, Text="line\n" * 100_000)
    content = gateway.gateway.settings.data_dir / "content"

    async def files() -> int:
        return sum(path.is_file() for path in content.rglob("*"))

    await gateway.until(files, 1)  # the queue's copy is gone
    assert await gateway.call("MessageDelete", {"MsgID": msg_id}) == {}
    assert await files() == 0
    answer = await gateway.api.post("MessageDelete", json={"MsgID": msg_id})
    assert (answer.status_code, answer.json()["Code"]) == (400, "messageNotFound")


@pytest.mark.parametrize("made", [False, True], ids=["no payload", "payload"])
async def test_a_webhook_about_a_deleted_message_is_dropped(
    tmp_path: Path, webhooks: Receiver, made: bool
) -> None:
    clock = ManualClock()
    webhooks.status = 500

    def only_incoming(raw: dict[str, Any]) -> None:
        del raw["accounts"]["mox"]["webhook_outgoing"]

    async with running(tmp_path, webhooks, clock=clock, change=only_incoming) as gateway:

        async def states() -> list[tuple[str, int, str]]:
            page, _ = await gateway.gateway.store.read(lambda conn: call_listing.page(conn, CallFilter()))
            return [(call.state, call.attempts, call.error) for call in page]

        msg_id = await received(gateway)
        await gateway.until(states, [("queued", 1, "HTTP status 500")])
        if not made:
            no_payload = sa.update(webhook_call).values(payload=None)
            await gateway.gateway.store.write(lambda conn: conn.execute(no_payload).rowcount)
        await gateway.call("MessageDelete", {"MsgID": msg_id})
        webhooks.status = 200
        clock.advance(timedelta(minutes=1, seconds=1))
        await gateway.nudge()
        await gateway.until(states, [("retired", 2, "what the webhook is about has been removed")])
        assert len(await webhooks.incoming()) == 1


async def test_an_attached_file(gateway: Running) -> None:
    data = os.urandom(1_000_000)
    file = {"Name": "a.bin", "Data": base64.b64encode(data).decode()}
    msg_id = await received(gateway, AttachedFiles=[file])
    answer = await gateway.api.post("MessagePartGet", json={"MsgID": msg_id, "PartPath": [1]})
    assert answer.content == data
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]
    answer = await gateway.api.post("MessagePartGet", json={"MsgID": msg_id, "PartPath": [2]})
    assert (answer.status_code, answer.json()["Code"]) == (400, "partNotFound")


async def test_lists(gateway: Running) -> None:
    ids = [await received(gateway, n, Subject=f"Order {n}") for n in (1, 2, 3)]
    await gateway.call("MessageFlagsAdd", {"MsgID": ids[1], "Flags": ["\\seen"]})
    await gateway.call("MessageMove", {"MsgID": ids[2], "DestMailboxName": "Archive"})

    async def listed(**request: Any) -> list[int]:
        answer = await gateway.call("MessageList", request)
        return [one["MsgID"] for one in answer["Messages"]]

    assert await listed() == ids[::-1]
    assert await listed(MailboxName="Inbox") == ids[1::-1]
    assert await listed(NotFlags=["\\seen"]) == [ids[2], ids[0]]
    assert await listed(Subject="order 2") == [ids[1]]
    [one] = (await gateway.call("MessageList", {"MailboxName": "Archive"}))["Messages"]
    assert one["Meta"] == (await gateway.call("MessageGet", {"MsgID": ids[2]}))["Meta"]
    assert one["Subject"] == "Order 3"
    first = await gateway.call("MessageList", {"Max": 2})
    assert await listed(Cursor=first["NextCursor"]) == [ids[0]]
