"""Unique addresses, and what comes back to them: events, suppression, and nothing lost."""

from __future__ import annotations

import re
import smtplib
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gateway import Earlier
from gateway.clock import ManualClock
from gateway.errors import StoreUnavailable, SubmissionRefused
from gateway.mail.address import Address
from gateway.outbound import attempt as attempt_module
from gateway.outbound.submission import NewSubmission
from gateway.store import listing, queue, settle
from gateway.store.changes import Claim
from gateway.store.listing import Filter, Item
from tests.reports import dsn, recipient_block
from tests.running import Receiver, Running, running

PLAIN = ("mox+x@localhost", "moxmoxmox")  # a login that sends without FromIDs


async def sent(gateway: Running, to: str = "user@example.org", auth: Any = None, **fields: Any) -> Item:
    """A message that was delivered, as it is in the history."""
    request = {"To": [{"Address": to}], "Subject": "hi", "Text": "hello"} | fields
    response = await gateway.api.post("Send", json=request, **({"auth": auth} if auth else {}))
    assert response.status_code == 200, response.text
    queue_id = response.json()["Submissions"][0]["QueueMsgID"]
    await gateway.webhooks.event("delivered", QueueMsgID=queue_id)
    return (await gateway.message(queue_id))[0]


async def report(gateway: Running, item: Item, data: bytes, to: str = "") -> None:
    await gateway.mail(data, to=to or str(item.message.sender), sender="")


async def suppressed(gateway: Running) -> list[str]:
    answer = await gateway.call("SuppressionList", {})
    return [entry["OriginalAddress"] for entry in answer["Suppressions"]]


# --- Identifiers of envelopes ------------------------------------------------------------------------


async def test_an_envelope_of_one_recipient_has_an_identifier_that_is_trusted(gateway: Running) -> None:
    item = await sent(gateway, auth=PLAIN)
    assert item.message.env_id_origin == "recipient"
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", item.message.env_id)
    bounce = dsn(recipient_block("user@example.org"), envelope_id=item.message.env_id)
    await report(gateway, item, bounce)
    told = await gateway.webhooks.event("failed")
    assert (told["QueueMsgID"], told["Suppressing"]) == (item.message.id, True)
    assert await suppressed(gateway) == ["user@example.org"]


async def test_those_who_share_a_transaction_share_its_identifier(gateway: Running) -> None:
    others = [{"Address": "other@example.org"}, {"Address": "user@example.com"}]
    response = await gateway.api.post(
        "Send",
        json={"To": [{"Address": "user@example.org"}, *others], "Subject": "hi", "Text": "hello"},
        auth=PLAIN,
    )
    assert response.status_code == 200, response.text
    for submitted in response.json()["Submissions"]:
        await gateway.webhooks.event("delivered", QueueMsgID=submitted["QueueMsgID"])
    one, two, three = [item.message for item in await gateway.messages()]
    assert one.env_id == two.env_id != three.env_id
    assert [m.env_id_origin for m in (one, two, three)] == ["transaction", "transaction", "recipient"]
    # They went together: what arrived has no line about whom it is for, and one session took it.
    await gateway.webhooks.incoming(3)
    received = [await gateway.raw(n) for n in (1, 2, 3)]
    assert sorted(b"for <" in raw.split(b"\r\n\r\n")[0] for raw in received) == [False, False, True]
    # Each of them knows it: it says which message is meant, and proves nothing.
    await gateway.mail(
        dsn(recipient_block("other@example.org"), envelope_id=one.env_id), to="mox@localhost", sender=""
    )
    told = await gateway.webhooks.event("failed")
    assert (told["QueueMsgID"], told["Suppressing"]) == (two.id, False)


# --- FromIDs ---------------------------------------------------------------------------------------


async def test_each_recipient_has_its_own(gateway: Running) -> None:
    answer = await gateway.send(CC=[{"Address": "other@example.org"}])
    ids = {s["QueueMsgID"]: s["FromID"] for s in answer["Submissions"]}
    assert len(set(ids.values())) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", from_id) for from_id in ids.values())
    for queue_id, from_id in ids.items():
        told = await gateway.webhooks.event("delivered", QueueMsgID=queue_id)
        assert told["FromID"] == from_id
        item, _ = await gateway.message(queue_id)
        assert (item.message.from_id, str(item.message.sender)) == (from_id, f"mox+{from_id}@localhost")
    arrived = await gateway.webhooks.incoming(2)
    assert {p["Meta"]["MailFrom"] for p in arrived} == {f"mox+{i}@localhost" for i in ids.values()}
    assert {p["From"][0]["Address"] for p in arrived} == {"mox@localhost"}


async def test_the_localpart_is_cut_before(gateway: Running) -> None:
    item = await sent(gateway, From=[{"Address": "mox+shop+x@localhost"}])
    assert str(item.message.sender) == f"mox+{item.message.from_id}@localhost"


async def test_another_login_sends_without(gateway: Running) -> None:
    item = await sent(gateway, auth=PLAIN)
    assert (item.message.from_id, str(item.message.sender)) == ("", "mox+x@localhost")


async def submitted(gateway: Running, sender: str, *to: str, login: str = "mox@localhost") -> str:
    """The FromID of a message that comes over SMTP with this MAIL FROM."""
    new = NewSubmission(
        account="mox",
        login=Address.parse(login),
        via="smtp",
        reverse_path=Address.parse(sender),
        header_from=Address.parse("mox@localhost"),
        recipients=tuple(map(Address.parse, to or ("user@example.org",))),
        data=b"From: mox@localhost\r\nSubject: hi\r\nMessage-ID: <1@localhost>\r\n\r\nhi\r\n",
        message_id="<1@localhost>",
        subject="hi",
        smtputf8=False,
        has_8bit=False,
    )
    return (await gateway.gateway.submitter.submit(new)).recipients[0].from_id


@pytest.mark.parametrize("chosen", ["order-17", "customer-1234-order-17-of-2026"])
async def test_over_smtp_it_may_be_chosen(gateway: Running, chosen: str) -> None:
    assert await submitted(gateway, f"mox+{chosen}@localhost") == chosen
    delivered = await gateway.webhooks.event("delivered", FromID=chosen)
    item, _ = await gateway.message(delivered["QueueMsgID"])
    assert str(item.message.sender) == f"mox+{chosen}@localhost"
    with pytest.raises(SubmissionRefused, match="in use already"):
        await submitted(gateway, f"mox+{chosen}@localhost")
    with pytest.raises(SubmissionRefused, match="one recipient only"):
        await submitted(gateway, "mox+order-18@localhost", "a@example.org", "b@example.org")
    assert len(await submitted(gateway, "mox@localhost", "a@example.org", "b@example.org")) == 22
    assert await submitted(gateway, "mox+order-18@localhost", login="mox+x@localhost") == ""
    # Such a one can be guessed: what comes back is believed, but suppresses nobody.
    await report(gateway, item, dsn(recipient_block("user@example.org")))
    failed = await gateway.webhooks.event("failed")
    assert (failed["MatchedBy"], failed["Suppressing"]) == ("fromid", False)


# --- By FromID ------------------------------------------------------------------------------------


async def test_a_failure_that_comes_back(gateway: Running) -> None:
    item = await sent(gateway)
    await report(gateway, item, dsn(recipient_block("user@example.org", code="550 5.1.1 no such user")))
    failed = await gateway.webhooks.event("failed", QueueMsgID=item.message.id)
    assert failed["DSN"]
    assert failed["Suppressing"]
    assert (failed["SMTPCode"], failed["SMTPEnhancedCode"]) == (550, "5.1.1")
    assert (failed["Error"], failed["RemoteMTA"]) == ("550 5.1.1 no such user", "mx.example.net")
    assert (failed["FromID"], failed["MatchedBy"]) == (item.message.from_id, "fromid")
    assert await suppressed(gateway) == ["user@example.org"]

    after, [first, said] = await gateway.message(item.message.id)
    assert (after.state, after.retired_as, after.success) == ("retired", "delivered", False)
    assert (first.number, first.success, said.number, said.success) == (1, True, 0, False)
    assert (said.code, said.enhanced, said.remote_mta) == (550, "5.1.1", "mx.example.net")
    msg_id = re.search(r"\(message (\d+) in Inbox\)", said.error)
    assert msg_id is not None
    assert b"no such user" in await gateway.raw(int(msg_id[1]))  # it is there as any other message

    # The next one is not sent, and of the report nothing else was told.
    answer = await gateway.send()
    await gateway.webhooks.event("suppressed", QueueMsgID=answer["Submissions"][0]["QueueMsgID"])
    assert not [p for p in gateway.webhooks.got if "Event" not in p and p["Meta"]["MailFrom"] == ""]


@pytest.mark.parametrize("action", ["delayed", "delivered", "relayed", "expanded"])
async def test_other_actions(gateway: Running, action: str) -> None:
    item = await sent(gateway)
    await report(
        gateway, item, dsn(recipient_block("user@example.org", action=action, status="2.0.0", code=""))
    )
    told = await gateway.webhooks.wait_for(lambda p: p.get("Event") == action and p["DSN"])
    assert told[0]["QueueMsgID"] == item.message.id
    assert (await gateway.message(item.message.id))[0].success is True
    assert await suppressed(gateway) == []


async def test_a_status_stands_in_for_a_code(gateway: Running) -> None:
    item = await sent(gateway)
    await report(gateway, item, dsn(recipient_block("user@example.org", code="")))
    failed = await gateway.webhooks.event("failed")
    assert (failed["SMTPCode"], failed["SMTPEnhancedCode"], failed["Suppressing"]) == (500, "5.1.1", True)


async def test_the_rule_of_three_counts_reports(gateway: Running) -> None:
    for number in range(3):
        item = await sent(gateway)
        await report(
            gateway, item, dsn(recipient_block("user@example.org", status="5.2.2", code="552 5.2.2 full"))
        )
        failed = await gateway.webhooks.event("failed", QueueMsgID=item.message.id)
        assert failed["Suppressing"] == (number == 2)


async def test_the_rule_of_three_counts_no_report_that_could_be_forged(gateway: Running) -> None:
    full = recipient_block("user@example.org", status="5.2.2", code="552 5.2.2 full")
    for number in range(3):
        item = await sent(gateway, auth=PLAIN, MessageID=f"<{number}@example.org>")
        await report(gateway, item, dsn(full, message_id=item.message.message_id), to="mox@localhost")
        await gateway.webhooks.event("failed", QueueMsgID=item.message.id, MatchedBy="messageid")
        assert (await gateway.message(item.message.id))[0].success is False
    item = await sent(gateway)
    await report(gateway, item, dsn(full))
    failed = await gateway.webhooks.event("failed", QueueMsgID=item.message.id, MatchedBy="fromid")
    assert not failed["Suppressing"]
    assert await suppressed(gateway) == []


async def test_a_unique_address_and_somebody_else(gateway: Running) -> None:
    """A forwarder's address failed: it is told, and the one that the account sends to is not suppressed."""
    item = await sent(gateway)
    await report(gateway, item, dsn(recipient_block("forwarded@example.com", code="550 5.1.1 no such user")))
    failed = await gateway.webhooks.event("failed", MatchedBy="fromid")
    assert (failed["QueueMsgID"], failed["SMTPCode"], failed["Suppressing"]) == (item.message.id, 550, False)
    assert await suppressed(gateway) == []


NOT_RECOGNIZED = {
    "an answer": (
        b"From: <x@example.org>\r\nAuto-Submitted: auto-replied\r\nSubject: away\r\n\r\nbye\r\n",
        False,
    ),
    "two recipients": (dsn(recipient_block("a@example.org"), recipient_block("b@example.org")), True),
    "no recipient": (dsn(), True),
    "an action": (dsn(recipient_block("user@example.org", action="lost")), True),
    "not to be read": (
        (
            b"From: <x@example.org>\r\nContent-Type: multipart/report; report-type=delivery-status;"
            b" boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b--\r\n"
        ),
        False,
    ),
}


@pytest.mark.parametrize("what", NOT_RECOGNIZED)
async def test_anything_else_is_unrecognized(gateway: Running, what: str) -> None:
    data, is_dsn = NOT_RECOGNIZED[what]
    item = await sent(gateway)
    await gateway.webhooks.incoming(1)
    await report(gateway, item, data)
    told = await gateway.webhooks.event("unrecognized")
    assert (told["QueueMsgID"], told["DSN"], told["Suppressing"]) == (item.message.id, is_dsn, False)
    assert told["Error"].startswith("not recognized: ")
    after, [_, said] = await gateway.message(item.message.id)
    assert (after.success, said.success) == (True, None)
    assert told["Error"] in said.error
    await gateway.mail(b"From: <x@example.org>\r\nSubject: last\r\n\r\nhi\r\n")
    arrived = await gateway.webhooks.incoming(2)
    assert [p["Subject"] for p in arrived] == ["hi", "last"]


async def test_a_fromid_is_case_sensitive(gateway: Running) -> None:
    item = await sent(gateway)
    changed = f"mox+{item.message.from_id.swapcase()}@localhost"
    await report(gateway, item, dsn(recipient_block("user@example.org")), to=changed)
    arrived = await gateway.webhooks.wait_for(lambda p: "Event" not in p and p["Meta"]["RcptTo"] == changed)
    assert arrived[0]["Meta"]["Automated"]
    assert await suppressed(gateway) == []
    await report(
        gateway, item, dsn(recipient_block("user@example.org")), to=f"MOX+{item.message.from_id}@LOCALHOST"
    )
    await gateway.webhooks.event("failed", MatchedBy="fromid")


async def test_another_account_s_fromid_says_nothing(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        first = raw["accounts"]["mox"]
        raw["accounts"]["other"] = {
            "addresses": ["other@localhost"],
            "webhook_incoming": first["webhook_incoming"],
        }

    async with running(tmp_path, webhooks, change=change) as gateway:
        item = await sent(gateway)
        to = f"other+{item.message.from_id}@localhost"
        await report(
            gateway, item, dsn(recipient_block("user@example.org"), message_id=item.message.message_id), to=to
        )
        await webhooks.wait_for(lambda p: "Event" not in p and p["Meta"]["RcptTo"] == to)
        assert (await gateway.message(item.message.id))[0].success is True


async def test_what_changes_meanwhile_is_decided_again(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another message to the address ends while the report is matched: its suppression rests on nothing."""
    item = await sent(gateway)
    asked: list[int] = []
    latest = settle.latest_retired

    def once(*args: Any, **more: Any) -> Any:
        asked.append(1)
        found = latest(*args, **more)
        return found if len(asked) > 1 else (Earlier(id=99, time=item.message.queued, success=True),)

    monkeypatch.setattr(settle, "latest_retired", once)
    await report(gateway, item, dsn(recipient_block("user@example.org")))
    failed = await gateway.webhooks.event("failed")
    assert failed["Suppressing"]
    assert len(asked) == 4  # decided, refused; decided, applied
    assert len((await gateway.message(item.message.id))[1]) == 2


async def test_a_store_that_is_away_takes_no_report(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other server keeps it, and comes again."""
    item = await sent(gateway)
    find = listing.find

    def away(*args: Any, **more: Any) -> Any:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(listing, "find", away)
    with pytest.raises(smtplib.SMTPDataError) as refused:
        await report(gateway, item, dsn(recipient_block("user@example.org")))
    assert refused.value.smtp_code == 452
    monkeypatch.setattr(listing, "find", find)
    await report(gateway, item, dsn(recipient_block("user@example.org")))
    await gateway.webhooks.event("failed", MatchedBy="fromid")


# --- By Message-ID --------------------------------------------------------------------------------


async def test_a_message_id_that_only_the_recipient_knows(gateway: Running) -> None:
    item = await sent(gateway, auth=PLAIN)
    data = dsn(recipient_block("USER@example.org"), message_id=item.message.message_id)
    await report(gateway, item, data, to="mox@localhost")
    failed = await gateway.webhooks.event("failed")
    assert (failed["MatchedBy"], failed["Suppressing"]) == ("messageid", True)


@pytest.mark.parametrize("known", ["chosen", "by two"])
async def test_a_forged_report_suppresses_nobody(gateway: Running, known: str) -> None:
    fields: dict[str, Any] = {"MessageID": "<1@example.org>"}
    if known == "by two":
        fields = {"CC": [{"Address": "curious@example.org"}]}
    item = await sent(gateway, auth=PLAIN, **fields)
    data = dsn(recipient_block("user@example.org"), message_id=item.message.message_id)
    await report(gateway, item, data, to="mox@localhost")
    failed = await gateway.webhooks.event("failed", QueueMsgID=item.message.id)
    assert (failed["DSN"], failed["MatchedBy"], failed["Suppressing"]) == (True, "messageid", False)
    assert await suppressed(gateway) == []


async def test_a_report_on_someone_else_is_ordinary_mail(gateway: Running) -> None:
    item = await sent(gateway, auth=PLAIN)
    data = dsn(recipient_block("someone@example.org"), message_id=item.message.message_id)
    await report(gateway, item, data, to="mox@localhost")
    [arrived] = await gateway.webhooks.wait_for(lambda p: "Event" not in p and p["Meta"]["MailFrom"] == "")
    response = await gateway.call("MessageGet", {"MsgID": arrived["Meta"]["MsgID"]})
    assert response["Meta"]["DSN"]
    assert not [p for p in gateway.webhooks.got if p.get("Event") == "failed"]


async def test_one_report_on_several_messages(gateway: Running) -> None:
    item = await sent(gateway, auth=PLAIN, CC=[{"Address": f"user{n}@example.org"} for n in range(3)])
    await gateway.webhooks.wait_for(lambda p: p.get("Event") == "delivered", 4)
    blocks = [recipient_block(f"user{n}@example.org") for n in (0, 2)]
    await report(gateway, item, dsn(*blocks, message_id=item.message.message_id), to="mox@localhost")
    failed = await gateway.webhooks.wait_for(lambda p: p.get("Event") == "failed", 2)
    assert {p["Recipient"] for p in failed} == {"user0@example.org", "user2@example.org"}
    done = await gateway.messages(success=False)
    assert {str(m.message.recipient) for m in done} == {"user0@example.org", "user2@example.org"}


# --- DSNs of ours ---------------------------------------------------------------------------------


async def notices(gateway: Running, count: int = 1) -> list[dict[str, Any]]:
    """Our notices, as the API shows them."""
    found: list[dict[str, Any]] = []
    for msg_id in range(1, 100):
        response = await gateway.api.post("MessageGet", json={"MsgID": msg_id})
        if response.status_code != 200:
            break
        message = response.json()
        if message["Meta"]["MsgFrom"] == "postmaster@localhost":
            found.append(message | {"raw": await gateway.raw(msg_id)})
    assert len(found) == count
    return found


async def test_a_failure_is_told_to_the_sender(gateway: Running) -> None:
    answer = await gateway.send("user550@example.org", Subject="Grüße")
    failed = await gateway.webhooks.event("failed")
    assert not failed["DSN"]
    [notice] = await notices(gateway)
    meta, message = notice["Meta"], notice["Message"]
    assert (meta["DSN"], meta["MailFrom"], meta["MailboxName"]) == (True, "", "Inbox")
    assert meta["RcptTo"] == f"mox+{failed['FromID']}@localhost"
    assert message["To"] == [{"Name": "", "Address": "mox@localhost"}]
    assert message["References"] == [answer["MessageID"]]
    assert "user550@example.org" in message["Text"]
    assert "simulated failure for user550@example.org" in message["Text"]
    assert "> RCPT TO:<user550@example.org>" in message["Text"]
    kinds = [part["ContentType"] for part in notice["Structure"]["Parts"]]
    assert kinds == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert b"Diagnostic-Code: smtp; 550 5.0.0 simulated failure" in notice["raw"]
    assert b"Message-ID: " + answer["MessageID"].encode() in notice["raw"].rpartition(b"rfc822-headers")[2]
    # Nobody but the sender's mailbox hears of it.
    assert [p for p in gateway.webhooks.got if "Event" not in p] == []


async def test_a_delay_is_told_once(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["plugins"]["sets"] = ["mox", "localserve"]  # eight attempts

    clock = ManualClock()
    async with running(tmp_path, webhooks, change=change, clock=clock) as gateway:
        await gateway.send("vtemperror@example.org")
        for attempt in range(1, 8):
            await webhooks.event("delayed", Attempt=attempt)
            await notices(gateway, 1 if attempt >= 5 else 0)
            [item] = await gateway.messages()
            clock.advance(item.message.next_attempt - clock.now())
            await gateway.nudge()
        await webhooks.event("failed", Attempt=8)
        late, failed = await notices(gateway, 2)
        assert (late["Message"]["Subject"], failed["Message"]["Subject"]) == (
            "Not yet delivered: hi",
            "Not delivered: hi",
        )
        until = re.search(rb"\r\nWill-Retry-Until: (.*)\r\n", late["raw"])
        assert until is not None
        assert until[1].decode() in late["Message"]["Text"]
        said = datetime.strptime(until[1].decode(), "%a, %d %b %Y %H:%M:%S %z")
        assert abs((clock.now() - said).total_seconds()) < 1  # the last attempt was made when it said


@pytest.mark.parametrize("cut_off", [(4,), (5,), (5, 6), (6,)])
async def test_a_delay_is_told_once_though_attempts_are_cut_off(
    tmp_path: Path, webhooks: Receiver, cut_off: tuple[int, ...]
) -> None:
    """By the first attempt from the fifth on that has a result."""

    def change(raw: dict[str, Any]) -> None:
        raw["plugins"]["sets"] = ["mox", "localserve"]  # eight attempts

    clock = ManualClock()
    tells = next(attempt for attempt in range(5, 9) if attempt not in cut_off)
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path, webhooks, change=change, clock=clock))
        await gateway.send("vtemperror@example.org")
        await webhooks.event("delayed", Attempt=1)
        for attempt in range(2, 8):
            [item] = await gateway.messages()
            if attempt in cut_off:
                due = item.message.next_attempt
                assert await gateway.gateway.store.write(partial(_claim_for_another, now=due)) == 1
                await stack.aclose()
                gateway = await stack.enter_async_context(
                    running(tmp_path, webhooks, change=change, clock=clock)
                )
            else:
                clock.advance(item.message.next_attempt - clock.now())
                await gateway.nudge()
                await webhooks.event("delayed", Attempt=attempt)
            [item] = await gateway.messages()
            assert item.message.attempts == attempt
            await notices(gateway, 1 if attempt >= tells else 0)
        states = [attempt.state for attempt in (await gateway.message(1))[1]]
        assert states == ["interrupted" if n in cut_off else "done" for n in range(1, 8)]


def _claim_for_another(conn: sa.Connection, now: datetime) -> int:
    """As a process does that is killed before it can write down what came of it."""
    claim = Claim(owner="killed", now=now, lease_seconds=1800, room=10, per_destination=10, max_recipients=1)
    return len(queue.claim(conn, claim, lambda attempts, now: now + timedelta(hours=9)).transactions)


async def test_a_delay_is_told_once_though_the_store_says_that_it_failed(
    tmp_path: Path, webhooks: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the connection to a database may break between its commit and its answer."""
    clock = ManualClock()
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        store = gateway.gateway.store
        write_together, lost = store.write_together, 0

        async def losing(work: Any, given: Any, *, size: int = 0) -> Any:
            nonlocal lost
            done = await write_together(work, given, size=size)
            if work is settle.settle_all and done[0].applied:
                lost += 1
                raise StoreUnavailable("the answer was lost")
            return done

        monkeypatch.setattr(store, "write_together", losing)
        monkeypatch.setattr(attempt_module, "SETTLE_AGAIN_AFTER", 0.01)
        await gateway.send("vtemperror@example.org")
        for attempt in range(1, 8):
            await webhooks.event("delayed", Attempt=attempt)
            [item] = await gateway.messages()
            clock.advance(item.message.next_attempt - clock.now())
            await gateway.nudge()
        await webhooks.event("delayed", Attempt=8)
        assert lost >= 7
        await notices(gateway, 1)


async def test_a_delay_tells_until_when_however_many_attempts_are_to_come(
    tmp_path: Path, webhooks: Receiver
) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["plugin"]["retry"] = {"intervals": [300.0, 900.0, 3600.0]}  # the last for five days

    clock = ManualClock()
    async with running(tmp_path, webhooks, change=change, clock=clock) as gateway:
        await gateway.send("vtemperror@example.org")
        queued = clock.now()
        for attempt in range(1, 6):
            await webhooks.event("delayed", Attempt=attempt)
            [item] = await gateway.messages()
            if attempt < 5:
                clock.advance(item.message.next_attempt - clock.now())
                await gateway.nudge()
        [late] = await notices(gateway)
        until = re.search(rb"\r\nWill-Retry-Until: (.*)\r\n", late["raw"])
        assert until is not None
        assert until[1].decode() in late["Message"]["Text"]
        said = datetime.strptime(until[1].decode(), "%a, %d %b %Y %H:%M:%S %z")
        assert abs(said - queued - timedelta(days=5)) < timedelta(hours=2)  # with jitter


async def test_a_suppressed_recipient_is_told_of_too(gateway: Running) -> None:
    await gateway.call(
        "SuppressionAdd", {"EmailAddress": "user@example.org", "Manual": True, "Reason": "asked"}
    )
    await gateway.send()
    await gateway.webhooks.event("suppressed")
    [notice] = await notices(gateway)
    assert "suppression list" in notice["Message"]["Text"]
    assert b"\r\nDiagnostic-Code" not in notice["raw"]


async def test_an_operator_s_failure_is_told(gateway: Running) -> None:
    await gateway.gateway.holding.add("mox", "", "")
    await gateway.send()
    assert await gateway.gateway.operations.fail(Filter(hold=True), "not today") == 1
    await gateway.webhooks.event("failed")
    [notice] = await notices(gateway)
    assert "not today" in notice["Message"]["Text"]
