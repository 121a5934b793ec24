"""What an account does with the messages in its mailboxes."""

from __future__ import annotations

import base64
import os
import smtplib
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trio

from gateway.clock import ManualClock
from gateway.store import call_listing, usage
from gateway.store.call_listing import CallFilter
from gateway.store.content_reading import StoredContent
from gateway.store.listing import Filter
from gateway.store.tables import webhook_call
from tests.commands import PATIENCE
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


async def test_a_full_account(tmp_path: Path, webhooks: Receiver) -> None:
    def with_quota(raw: dict[str, Any]) -> None:
        raw["accounts"]["mox"]["quota"] = 20_000
        raw["accounts"]["other"] = {"addresses": ["other@localhost"], "quota": 3_000}

    def session(*recipients: str, size: int, declared: bool) -> list[tuple[int, bytes]]:
        """The answers to each RCPT, and to the message."""
        data = b"Subject: hi\r\n\r\n" + (b"x" * 78 + b"\r\n") * (size // 80)
        host, port = gateway.smtp
        with smtplib.SMTP(host, port, timeout=PATIENCE) as client:
            client.ehlo()
            client.mail("jo@example.net", [f"SIZE={len(data)}"] if declared else [])
            answers = [client.rcpt(recipient) for recipient in recipients]
            if any(code == 250 for code, _ in answers):
                answers.append(client.data(data))
        return [(code, text[:5]) for code, text in answers]

    async def sent(*recipients: str, size: int, declared: bool = False) -> list[tuple[int, bytes]]:
        return await trio.to_thread.run_sync(partial(session, *recipients, size=size, declared=declared))

    ok, full = (250, b"2.0.0"), (452, b"4.2.2")
    async with running(tmp_path, webhooks, change=with_quota) as gateway:
        # Refused at RCPT where the size is declared, else when the message has come.
        assert await sent("mox@localhost", size=30_000, declared=True) == [full]
        assert (await sent("mox@localhost", size=30_000))[-1] == full
        assert (await sent("mox@localhost", size=10_000, declared=True))[-1] == ok
        assert await sent("mox@localhost", "other@localhost", size=12_000, declared=True) == [full, full]
        assert (await sent("mox@localhost", "other@localhost", size=12_000))[-1] == full
        # One that has room gets it, whoever else has none: nobody knew how long it would be.
        assert (await sent("mox@localhost", "other@localhost", size=5_000))[-1] == ok
        answers = await sent("mox@localhost", "other@localhost", size=1_000)
        assert answers[1:] == [full, ok]
        listed = (await gateway.call("MessageList", {}))["Messages"]
        sizes = [one["Meta"]["Size"] for one in listed]
        assert len(sizes) == 3
        assert await gateway.gateway.store.read(lambda conn: usage.used(conn, "mox")) == sum(sizes)
        # What is deleted makes room.
        assert await sent("mox@localhost", size=5_000, declared=True) == [full]
        await gateway.call("MessageDelete", {"MsgID": listed[-1]["MsgID"]})
        assert (await sent("mox@localhost", size=5_000, declared=True))[-1] == ok


@pytest.mark.parametrize("text", ["hi", "line\n" * 100_000], ids=["small", "in a file"])
async def test_no_room_for_a_copy_in_sent(tmp_path: Path, webhooks: Receiver, text: str) -> None:
    """The message goes out all the same."""

    def with_quota(raw: dict[str, Any]) -> None:
        raw["accounts"]["mox"]["quota"] = 50

    async with running(tmp_path, webhooks, change=with_quota) as gateway:
        request = {"To": [{"Address": "user@example.org"}], "Text": text}
        answer = await gateway.api.post("Send", json=request | {"SaveSent": True})
        assert (answer.status_code, answer.json()["Code"]) == (400, "sentOverQuota")
        assert "was queued nevertheless" in answer.json()["Message"]
        assert len(await gateway.messages()) == 1
        assert (await gateway.call("MessageList", {}))["Messages"] == []
        await gateway.call("Send", request)
        assert len(await gateway.messages()) == 2

        async def files() -> int:
            content = gateway.gateway.settings.data_dir / "content"
            return sum(path.is_file() for path in content.rglob("*"))

        await gateway.gateway.operations.drop(Filter(), "")
        await gateway.until(files, 0)


@pytest.mark.parametrize("method", ["MessageGet", "MessagePartGet"])
async def test_a_message_that_is_deleted_while_it_is_read(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    msg_id = await received(gateway, Text="line\n" * 100_000)
    read = StoredContent.read

    async def late(content: StoredContent) -> bytes:
        await gateway.gateway.mailboxes.delete("mox", msg_id)
        return await read(content)

    monkeypatch.setattr(StoredContent, "read", late)
    answer = await gateway.api.post(method, json={"MsgID": msg_id})
    assert (answer.status_code, answer.json()["Code"]) == (400, "messageNotFound")
