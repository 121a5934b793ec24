"""A plugin for each stage, installed from a distribution of its own: what it decides shows in a delivery."""

from __future__ import annotations

import hashlib
import hmac
import json
import smtplib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.plugins.loading import installed
from gateway.store.listing import Filter
from tests.running import Receiver, running
from tests.thirdparty.gateways import add_account, send_as, usual, with_sets

REFUSED_FOR_NOW = {
    "type": "told",
    "result": "temporary",
    "code": 451,
    "enhanced": "4.7.1",
    "error": "greylisted",
}


def test_they_are_installed_as_any_other() -> None:
    found = {plugin.name: plugin for plugin in installed()}
    assert str(found["acme.seal"]) == "acme-mail-plugins 1.0.0"
    assert found["acme.seal"].value == "acme_mail.seal:Seal"
    assert set(usual()) < set(found)


async def test_submission_refuses_and_rewrites(tmp_path: Path, webhooks: Receiver) -> None:
    settings = {"refused_words": ["lottery"], "send_all_to": "staging@example.net"}
    change = with_sets(["acme.screening", *usual()], {"acme.screening": settings})
    async with running(tmp_path, webhooks, change=change) as gateway:
        request = {"To": [{"Address": "user@example.org"}], "Subject": "Lottery!", "Text": "hello"}
        response = await gateway.api.post("Send", json=request)
        assert (response.status_code, response.json()["Code"]) == (400, "rejected")
        assert response.json()["Message"] == "plugin acme.screening: the subject has the word lottery", (
            response.text
        )
        assert await gateway.messages() == ()

        await gateway.send("user@example.org", CC=[{"Address": "other@example.org"}])
        delivered = await webhooks.event("delivered")
        assert delivered["Recipient"] == "staging@example.net"
        assert delivered["Extra"] == {"meant_for": "user@example.org, other@example.org"}
        [arrived] = await webhooks.incoming()
        assert arrived["Meta"]["RcptTo"] == "staging@example.net"
        raw = await gateway.raw(arrived["Meta"]["MsgID"])
        assert b"\r\nX-Acme-Meant-For: user@example.org, other@example.org\r\n" in raw
        assert len(await gateway.messages()) == 1


async def test_sign(tmp_path: Path, webhooks: Receiver) -> None:
    (tmp_path / "seal.key").write_bytes(b"acme's own")  # found relative to the configuration
    change = with_sets(["acme.seal", *usual()], {"acme.seal": {"key_file": "seal.key"}})
    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send()
        [arrived] = await webhooks.incoming()
        raw = await gateway.raw(arrived["Meta"]["MsgID"])
    before, _, rest = raw.partition(b"X-Acme-Seal: ")
    seal, _, sealed = rest.partition(b"\r\n")
    assert seal.decode() == hmac.new(b"acme's own", sealed, hashlib.sha256).hexdigest()
    assert b"DKIM-Signature" in before  # of the plugin that comes after


async def test_hold(tmp_path: Path, webhooks: Receiver) -> None:
    settings = {"more_recipients_than": 2, "domains": ["example.net"]}
    change = with_sets(["acme.quarantine", *usual()], {"acme.quarantine": settings})
    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send(CC=[{"Address": "user@example.net"}])
        await webhooks.event("delivered", Recipient="user@example.org")
        await gateway.send(CC=[{"Address": f"user{number}@example.org"} for number in (1, 2)])
        held = {str(m.message.recipient) for m in await gateway.messages(hold=True)}
        assert held == {
            "user@example.net",
            "user@example.org",
            "user1@example.org",
            "user2@example.org",
        }
        assert await gateway.gateway.operations.release(Filter(hold=True)) == 4
        await webhooks.wait_for(lambda p: p.get("Event") == "delivered", 5)


async def test_route_and_transports(tmp_path: Path, webhooks: Receiver) -> None:
    domains = {"files.example": "files", "no.example": "no", "later.example": "later"}
    transports = {
        "files": {"type": "maildrop", "directory": "drop"},
        "no": {"type": "told", "result": "permanent", "code": 552, "enhanced": "5.2.2", "error": "full"},
        "later": REFUSED_FOR_NOW,
    }
    change = with_sets(
        ["acme.transports", "acme.routing", *usual()],
        {"acme.routing": {"domains": domains}},
        transports=transports,
    )
    async with running(tmp_path, webhooks, change=change) as gateway:
        sent = await gateway.send(
            "user@files.example",
            CC=[{"Address": f"user@{domain}"} for domain in ("no.example", "later.example", "example.org")],
        )
        ids = {s["Address"]: s["QueueMsgID"] for s in sent["Submissions"]}
        filed = await webhooks.event("delivered", Recipient="user@files.example")
        assert filed["RemoteMTA"] == "maildrop"
        [file] = (tmp_path / "drop").iterdir()
        assert file.name == f"{ids['user@files.example']}.user@files.example.eml"
        assert file.read_bytes().startswith(b"DKIM-Signature:")
        assert b"hello" in file.read_bytes()

        failed = await webhooks.event("failed", Recipient="user@no.example")
        assert (failed["SMTPCode"], failed["SMTPEnhancedCode"], failed["Error"]) == (552, "5.2.2", "full")
        delayed = await webhooks.event("delayed", Recipient="user@later.example")
        assert (delayed["SMTPCode"], delayed["Error"]) == (451, "greylisted")
        item, [attempt] = await gateway.message(ids["user@later.example"])
        assert (item.state, attempt.transport) == ("queued", "later")

        # Only what no route of the plugin's matches goes where the configuration says.
        [arrived] = await webhooks.incoming()
        assert arrived["Meta"]["RcptTo"] == "user@example.org"


async def test_around_attempt(tmp_path: Path, webhooks: Receiver) -> None:
    change = with_sets(["acme.trace", *usual()], {"acme.trace": {"file": "trace.log"}})
    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send()
        await webhooks.event("delivered")
        await gateway.send("user550@example.org")
        await webhooks.event("failed")
    assert (tmp_path / "trace.log").read_text().splitlines() == [
        "begin user@example.org",
        "end user@example.org",
        "begin user550@example.org",
        "end user550@example.org",
    ]


async def test_shape(tmp_path: Path, webhooks: Receiver) -> None:
    settings = {"per_minute": {"slow.example": 2}}
    change = with_sets(["acme.pacing", *usual()], {"acme.pacing": settings})
    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send("first@slow.example")
        await webhooks.event("delivered", Recipient="first@slow.example")
        await gateway.send("second@slow.example")
        delayed = await webhooks.event("delayed", Recipient="second@slow.example")
        assert delayed["Error"] == (
            "not sent yet: the limit for acme slow.example by localserve is 2 messages a minute,"
            " and it has no turn in time"
        )
        assert (delayed["SMTPCode"], delayed["SMTPEnhancedCode"]) == (0, "4.4.5")
        for number in range(3):
            await gateway.send(f"user{number}@example.org")
            await webhooks.event("delivered", Recipient=f"user{number}@example.org")
        await webhooks.incoming(4)


async def test_retry(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        with_sets(["acme.patience", *usual()], {"acme.patience": {"intervals": [10, 3000, -60]}})(raw)
        # The same plugin, with settings of the account's own.
        add_account(raw, "hasty", plugin={"acme.patience": {"intervals": []}})

    clock = ManualClock()
    async with running(tmp_path, webhooks, change=change, clock=clock) as gateway:
        await gateway.send("vtemperror@example.org")
        for attempt, interval in ((1, 10), (2, 3000), (3, 1)):  # a time that has passed: in a second
            await webhooks.event("delayed", Attempt=attempt)
            [item] = await gateway.messages()
            assert item.message.next_attempt == clock.now() + timedelta(seconds=interval)
            clock.advance(interval)
            await gateway.nudge()
        failed = await webhooks.event("failed")
        assert failed["Attempt"] == 4
        assert failed["Error"].endswith("(acme waits 3 times only)")

        await send_as(gateway, "hasty", "vtemperror@example.net")
        failed = await webhooks.event("failed", Recipient="vtemperror@example.net")
        assert failed["Error"].endswith("(acme waits 0 times only)")


async def test_event(tmp_path: Path, webhooks: Receiver) -> None:
    change = with_sets(["acme.journal", *usual()], {"acme.journal": {"file": "journal.jsonl"}})

    def lines() -> list[dict[str, Any]]:
        file = tmp_path / "journal.jsonl"
        return list(map(json.loads, file.read_text().splitlines())) if file.exists() else []

    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send()
        await gateway.send("user550@example.org")

        async def told() -> int:
            return len(lines())

        await gateway.until(told, 3)
    assert {(line["event"], line["message"]) for line in lines()} == {
        ("delivered", 1),
        ("incoming", 1),
        ("failed", 2),
    }
    assert [line["id"] for line in lines()] == sorted(line["id"] for line in lines())
    assert {line["account"] for line in lines()} == {"mox"}


async def test_format_webhook(tmp_path: Path, webhooks: Receiver) -> None:
    change = with_sets(["acme.chat", *usual()])
    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send(Subject="for the chat")
        bodies = await webhooks.wait_for(lambda payload: True, 2)
        assert {"text": "delivered: for the chat to user@example.org"} in bodies
        [arrived] = [body["text"] for body in bodies if " bytes from " in body["text"]]
        assert arrived.partition(" bytes from ")[2].startswith("mox+")
        assert {headers["content-type"] for headers in webhooks.headers} == {"application/json"}


async def test_receive_policy(tmp_path: Path, webhooks: Receiver) -> None:
    settings = {"refused": ["spam.example"], "code": 554}
    change = with_sets(["acme.doorman", *usual()], {"acme.doorman": settings})
    async with running(tmp_path, webhooks, change=change) as gateway:
        mail = b"From: <x@spam.example>\r\nSubject: hi\r\n\r\nhi\r\n"
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            await gateway.mail(mail, sender="x@spam.example")
        assert (refused.value.smtp_code, refused.value.smtp_error) == (
            554,
            b"5.7.1 acme takes no mail from spam.example",
        )
        await gateway.mail(mail, sender="x@example.org")
        [arrived] = await webhooks.incoming()
        assert arrived["Meta"]["MailFrom"] == "x@example.org"


async def test_mailbox(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        with_sets(["acme.sorting", *usual()], {"acme.sorting": {"prefix": "from "}})(raw)
        add_account(raw, "other", plugin={"acme.sorting": {"prefix": "by "}})

    mail = b"From: <x@example.org>\r\nSubject: hi\r\n\r\nhi\r\n"
    async with running(tmp_path, webhooks, change=change) as gateway:
        for number, (to, sender, mailbox) in enumerate(
            (
                ("mox@localhost", "x@example.org", "from example.org"),
                ("other@localhost", "x@example.org", "by example.org"),
                ("mox@localhost", "", "Inbox"),
            ),
            1,
        ):
            await gateway.mail(mail, to=to, sender=sender)
            arrived = (await webhooks.incoming(number))[-1]
            assert (arrived["Meta"]["RcptTo"], arrived["Meta"]["MailboxName"]) == (to, mailbox)
