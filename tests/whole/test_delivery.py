"""From Send to the webhooks: what is delivered, and what fails in which way."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization

from gateway.clock import ManualClock
from tests.running import Receiver, Running, receiving, running


def public_key_record(directory: Path) -> bytes:
    """What DNS would answer for the key that localserve made (RFC 6376, 3.6.1)."""
    pem = (directory / "dkim" / "localhost.pem").read_bytes()
    public = serialization.load_pem_private_key(pem, password=None).public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)


def verified(raw: bytes, directory: Path) -> bool:
    asked: list[bytes] = []

    def look_up(name: bytes, timeout: int = 5) -> bytes:
        asked.append(name)
        return public_key_record(directory)

    answer: bool = dkim.verify(raw, dnsfunc=look_up)
    assert asked == [b"local._domainkey.localhost."]
    return answer


async def test_a_message_goes_all_the_way(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        answer = await gateway.send(Extra={"Order": "17"}, HTML="<p>hello</p>")
        [submission] = answer["Submissions"]
        sender = f"mox+{submission['FromID']}@localhost"
        assert submission == {
            "Address": "user@example.org",
            "QueueMsgID": 1,
            "FromID": submission["FromID"],
        }

        delivered = await webhooks.event("delivered")
        assert delivered["QueueMsgID"] == 1
        assert delivered["MessageID"] == answer["MessageID"]
        assert delivered["Extra"] == {"Order": "17"}
        assert delivered["Recipient"] == "user@example.org"
        assert (delivered["SMTPCode"], delivered["SMTPEnhancedCode"], delivered["Error"]) == (0, "", "")

        [incoming] = await webhooks.incoming()
        assert incoming["MessageID"] == answer["MessageID"]
        assert (incoming["Subject"], incoming["Text"], incoming["HTML"]) == (
            "hi",
            "hello\n",
            "<p>hello</p>\n",
        )
        meta = incoming["Meta"]
        assert (meta["MailFrom"], meta["RcptTo"]) == (sender, "user@example.org")
        assert (meta["MailboxName"], meta["RemoteIP"], meta["Automated"]) == ("Inbox", "127.0.0.1", False)

        got = await gateway.call("MessageGet", {"MsgID": meta["MsgID"]})
        assert got["Message"]["MessageID"] == answer["MessageID"]
        assert got["Message"]["From"] == [{"Name": "Local user", "Address": "mox@localhost"}]
        assert got["Message"]["Text"] == "hello\n"
        assert got["Structure"]["ContentType"] == "multipart/alternative"
        assert got["Structure"] == incoming["Structure"]
        assert got["Meta"]["RcptTo"] == "user@example.org"

        raw = await gateway.raw(meta["MsgID"])
        assert got["Meta"]["Size"] == len(raw)
        trace, _, rest = raw.partition(b"DKIM-Signature:")
        assert trace.startswith(
            f"Return-Path: <{sender}>\r\nReceived: from localhost ([127.0.0.1])\r\n".encode()
        )
        assert b"\tfor <user@example.org>;" in trace
        assert verified(raw, tmp_path)
        assert not verified(raw.replace(b"hello", b"Hello"), tmp_path)
        assert b"DKIM-Signature" not in rest


@dataclass(frozen=True)
class Simulated:
    to: str  # localpart
    event: str
    code: int
    at_rcpt: bool = False


SIMULATED = (
    Simulated("user550", "failed", 550),
    Simulated("user521", "failed", 521),
    Simulated("permerror", "failed", 550),
    Simulated("User-PermError", "failed", 550),
    Simulated("user421", "delayed", 421),
    Simulated("vtemperror", "delayed", 451),
    Simulated("rcptto550", "failed", 550, at_rcpt=True),
    Simulated("rcptto-temperror", "delayed", 451, at_rcpt=True),
    Simulated("rcptto452", "delayed", 452, at_rcpt=True),
)


async def test_simulated_failures(gateway: Running) -> None:
    for expected in SIMULATED:
        answer = await gateway.send(f"{expected.to}@example.org")
        [submission] = answer["Submissions"]
        told = await gateway.webhooks.event(expected.event, QueueMsgID=submission["QueueMsgID"])
        assert (told["SMTPCode"], told["SMTPEnhancedCode"]) == (expected.code, f"{expected.code // 100}.0.0")
        assert f"simulated failure for {expected.to}@example.org" in told["Error"]
        assert told["Attempt"] == 1

        item, [attempt] = await gateway.message(submission["QueueMsgID"])
        assert item.state == ("retired" if expected.event == "failed" else "queued")
        assert (attempt.state, attempt.success, attempt.code) == ("done", False, expected.code)
        go_ahead = "> (message)" in attempt.transcript.splitlines()
        assert go_ahead is not expected.at_rcpt, attempt.transcript
    await gateway.webhooks.wait_for(lambda p: "Event" in p, len(SIMULATED))
    assert not [p for p in gateway.webhooks.got if "Event" not in p]  # nothing arrived


@pytest.mark.parametrize(
    ("sender", "event", "code"),
    [("mailfrom550", "failed", 550), ("mailfromtemperror", "delayed", 451), ("user550", "delivered", 0)],
)
async def test_simulated_failures_of_senders(tmp_path: Path, sender: str, event: str, code: int) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["accounts"]["mox"]["addresses"].append(f"{sender}@localhost")

    async with receiving() as webhooks, running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send(From=[{"Address": f"{sender}@localhost"}])
        told = await webhooks.event(event)
        assert (told["SMTPCode"], told["Suppressing"]) == (code, False)  # not the recipient's fault
        _, [attempt] = await gateway.message(1)
        assert bool(attempt.transcript) is (event != "delivered")
        assert "< 354" not in attempt.transcript


async def test_a_numeric_code_is_three_digits_from_400(gateway: Running) -> None:
    for to in ("user250", "user399", "user600", "user5600", "550user", "user55"):
        answer = await gateway.send(f"{to}@example.org")
        await gateway.webhooks.event("delivered", QueueMsgID=answer["Submissions"][0]["QueueMsgID"])
    await gateway.send("user5500@example.org")
    assert (await gateway.webhooks.event("failed"))["SMTPCode"] == 500  # the last three count


async def test_the_second_attempt_is_after_seven_and_a_half_minutes(tmp_path: Path) -> None:
    clock = ManualClock()
    async with receiving() as webhooks, running(tmp_path, webhooks, clock=clock) as gateway:
        await gateway.send("vtemperror@example.org")
        await webhooks.event("delayed")
        [queued] = await gateway.messages()
        wait = queued.message.next_attempt - clock.now()
        assert abs(wait - timedelta(minutes=7.5)) <= timedelta(seconds=5)

        # The interval doubles up to 16 hours, and after five days it is enough (RFC 5321, 4.5.4.1).
        for attempt in range(2, 14):
            clock.advance(wait)
            await gateway.nudge()
            await webhooks.event("delayed", Attempt=attempt)
            [queued] = await gateway.messages()
            previous, wait = wait, queued.message.next_attempt - clock.now()
            assert abs(wait / previous - (2 if attempt <= 8 else 1)) < 0.001, f"attempt {attempt}"
        age = clock.advance(wait) - queued.message.queued
        assert timedelta(days=4) < age < timedelta(days=5)
        await gateway.nudge()
        failed = await webhooks.event("failed")
        assert (failed["Attempt"], failed["SMTPCode"]) == (14, 451)
        assert "still failing after 14 attempts; given up 5 days after queueing" in failed["Error"]
        item, attempts = await gateway.message(1)
        assert (item.state, item.retired_as, item.success) == ("retired", "failed", False)
        assert [a.number for a in attempts] == list(range(1, 15))


async def test_to_cc_and_bcc(gateway: Running) -> None:
    answer = await gateway.call(
        "Send",
        {
            "To": [{"Name": "Jane Doe", "Address": "to@example.org"}],
            "CC": [{"Address": "cc@example.org"}, {"Address": "cc550@example.org"}],
            "BCC": [{"Name": "Secret", "Address": "bcc@example.net"}],
            "Subject": "several",
            "Text": "hello",
        },
    )
    sent = {s["Address"]: s["QueueMsgID"] for s in answer["Submissions"]}
    assert list(sent) == ["to@example.org", "cc@example.org", "cc550@example.org", "bcc@example.net"]
    await gateway.webhooks.event("failed", QueueMsgID=sent["cc550@example.org"])
    for address in ("to@example.org", "cc@example.org", "bcc@example.net"):
        await gateway.webhooks.event("delivered", QueueMsgID=sent[address])
    incoming = await gateway.webhooks.wait_for(
        lambda p: "Event" not in p and p["MessageID"] == answer["MessageID"], 3
    )
    assert {p["Meta"]["RcptTo"] for p in incoming} == {"to@example.org", "cc@example.org", "bcc@example.net"}
    for payload in incoming:
        raw = await gateway.raw(payload["Meta"]["MsgID"])
        own = payload["Meta"]["RcptTo"] == "bcc@example.net"
        # Only the trace line that is the recipient's own may name it.
        assert raw.count(b"bcc@example.net") == (1 if own else 0)
        assert b"Secret" not in raw
        message = message_from_bytes(raw, policy=policy.default)
        assert str(message["To"]) == "Jane Doe <to@example.org>"
        assert str(message["Cc"]) == "cc@example.org, cc550@example.org"
        assert message["Bcc"] is None

    items = [(await gateway.message(i))[0].message for i in sent.values()]
    assert {item.submission_id for item in items} == {items[0].submission_id}
    assert {item.base_id for item in items} == {items[0].id}


async def test_the_same_recipient_twice_gets_it_twice(gateway: Running) -> None:
    answer = await gateway.send(CC=[{"Address": "user@example.org"}])
    ids = [s["QueueMsgID"] for s in answer["Submissions"]]
    assert len(set(ids)) == 2
    for message_id in ids:
        await gateway.webhooks.event("delivered", QueueMsgID=message_id)


async def test_future_release(tmp_path: Path) -> None:
    clock = ManualClock()
    async with receiving() as webhooks, running(tmp_path, webhooks, clock=clock) as gateway:
        due = clock.now() + timedelta(hours=3)
        await gateway.send(FutureRelease=due.isoformat())
        await gateway.send("now@example.org")
        await webhooks.event("delivered", Recipient="now@example.org")
        [waiting] = await gateway.messages(state="queued")
        assert (waiting.message.next_attempt, waiting.message.attempts) == (due, 0)
        clock.advance(timedelta(hours=3, seconds=-1))
        await gateway.nudge()
        await gateway.send("later@example.org")
        await webhooks.event("delivered", Recipient="later@example.org")
        assert (await gateway.messages(state="queued"))[0].message.attempts == 0
        clock.advance(1)
        await gateway.nudge()
        await webhooks.event("delivered", Recipient="user@example.org")


async def test_future_release_needs_nobody_to_look(gateway: Running) -> None:
    due = gateway.gateway.clock.now() + timedelta(seconds=0.7)
    answer = await gateway.send("soon@example.org", FutureRelease=due.isoformat())
    told = await gateway.webhooks.event("delivered", QueueMsgID=answer["Submissions"][0]["QueueMsgID"])
    _, [attempt] = await gateway.message(told["QueueMsgID"])
    assert due <= attempt.start < due + timedelta(seconds=2)
    assert datetime.fromisoformat(told["WebhookQueued"]) >= due


async def test_save_sent(gateway: Running) -> None:
    answer = await gateway.send(BCC=[{"Address": "secret@example.org"}], SaveSent=True)
    await gateway.webhooks.event("delivered", MessageID=answer["MessageID"], Recipient="user@example.org")
    [_, *_] = await gateway.webhooks.wait_for(
        lambda p: "Event" not in p and p["MessageID"] == answer["MessageID"], 2
    )
    found = []
    for msg_id in range(1, 200):
        response = await gateway.api.post("MessageGet", json={"MsgID": msg_id})
        if response.status_code != 200:
            break
        if response.json()["Message"]["MessageID"] == answer["MessageID"]:
            found.append((msg_id, response.json()))
    [(msg_id, copy)] = [f for f in found if f[1]["Meta"]["MailboxName"] == "Sent"]
    assert len(found) == 3  # and nobody was told of the one in Sent
    assert copy["Meta"]["Flags"] == ["\\seen"]
    assert copy["Message"]["BCC"] == [{"Name": "", "Address": "secret@example.org"}]
    assert b"Bcc: secret@example.org\r\n" in await gateway.raw(msg_id)


async def test_addresses_that_are_not_ascii(gateway: Running) -> None:
    answer = await gateway.call(
        "Send",
        {
            "To": [{"Name": "Jörg", "Address": "jörg@exämple.org"}, {"Address": "user@exämple.org"}],
            "Subject": "Grüße",
            "Text": "Schöne Grüße",
        },
    )
    ids = [s["QueueMsgID"] for s in answer["Submissions"]]
    incoming = []
    for message_id in ids:
        await gateway.webhooks.event("delivered", QueueMsgID=message_id)
    incoming = await gateway.webhooks.wait_for(
        lambda p: "Event" not in p and p["MessageID"] == answer["MessageID"], 2
    )
    assert {p["Meta"]["RcptTo"] for p in incoming} == {"jörg@exämple.org", "user@exämple.org"}
    for payload in incoming:
        assert (payload["Subject"], payload["Text"]) == ("Grüße", "Schöne Grüße\n")
        assert payload["To"][0] == {"Name": "Jörg", "Address": "jörg@exämple.org"}
        raw = await gateway.raw(payload["Meta"]["MsgID"])
        assert b"with UTF8SMTP id" in raw
        assert verified(raw, gateway.directory)
    item, _ = await gateway.message(ids[0])
    assert item.message.smtputf8


async def test_mail_from_elsewhere(gateway: Running) -> None:
    for to in ("mox@localhost", "MOX@LOCALHOST", "mox+tag@localhost", "nobody@example.com", "postmaster"):
        subject = f"for {to}"
        data = f"From: <x@example.net>\r\nTo: <{to}>\r\nSubject: {subject}\r\n\r\nline\r\n..dots\r\n"
        await gateway.mail(data.encode(), to=to)
        [payload] = await gateway.webhooks.wait_for(lambda p: p["Subject"] == subject)  # noqa: B023
        expected = "postmaster@localhost" if to == "postmaster" else to
        assert payload["Meta"]["RcptTo"].lower() == expected.lower()
        assert payload["Meta"]["MailFrom"] == "remote@example.org"
        assert payload["Text"] == "line\n..dots\n"


async def test_8_bit_mail_from_elsewhere(gateway: Running) -> None:
    data = (
        "From: <x@example.net>\r\nSubject: 8 bits\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=iso-8859-1\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\nGr\xfc\xdfe\r\n"
    ).encode("latin-1")
    await gateway.mail(data)
    [payload] = await gateway.webhooks.wait_for(lambda p: p["Subject"] == "8 bits")
    assert payload["Text"] == "Grüße\n"
    assert (await gateway.raw(payload["Meta"]["MsgID"])).endswith(data)


async def test_a_login_with_a_separator_is_the_sender(gateway: Running) -> None:
    response = await gateway.api.post(
        "Send",
        json={"To": [{"Address": "user@example.org"}], "Text": "hello"},
        auth=("mox+x@localhost", "moxmoxmox"),
    )
    assert response.status_code == 200, response.text
    [payload] = await gateway.webhooks.wait_for(
        lambda p: "Event" not in p and p["MessageID"] == response.json()["MessageID"]
    )
    assert payload["Meta"]["MailFrom"] == "mox+x@localhost"
    assert payload["From"] == [{"Name": "Local user", "Address": "mox+x@localhost"}]


async def test_retired_messages_are_kept_and_then_removed(tmp_path: Path, webhooks: Receiver) -> None:
    clock = ManualClock()
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        await gateway.send()
        await gateway.send("user550@example.org")
        await webhooks.event("delivered")
        await webhooks.event("failed")
        retired = {m.message.id: m for m in await gateway.messages(state="retired")}
        assert (retired[1].success, retired[2].success) == (True, False)
        assert {m.keep_until for m in retired.values()} == {clock.now() + timedelta(days=7)}
    clock.advance(timedelta(days=7, seconds=-1))
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        assert len(await gateway.messages(state="retired")) == 2
    clock.advance(2)
    async with running(tmp_path, webhooks, clock=clock) as gateway:

        async def kept() -> int:
            return len(await gateway.messages())

        await gateway.until(kept, 0)
