"""Complaints, bounces for people, and automatic replies: from the listener to the webhook."""

from __future__ import annotations

from email import message_from_bytes
from typing import Any

import pytest

from tests.plugins.report_formats import FORMATS
from tests.reports import feedback
from tests.running import Running
from tests.whole.test_reports import PLAIN, report, sent, suppressed

FBL = "fbl@isp.example"


async def complained(gateway: Running, data: bytes, to: str = "mox@localhost") -> dict[str, Any]:
    await gateway.mail(data, to=to, sender=FBL)
    return await gateway.webhooks.event("complained")


@pytest.mark.parametrize("kind", ["abuse", "Fraud"])
async def test_a_complaint_about_a_unique_address(gateway: Running, kind: str) -> None:
    """The FromID is in Original-Mail-From; who complains is hidden."""
    item = await sent(gateway)
    told = await complained(gateway, feedback(kind, mail_from=str(item.message.sender)))
    assert (told["QueueMsgID"], told["MatchedBy"], told["DSN"]) == (item.message.id, "fromid", False)
    assert (told["Suppressing"], told["SMTPCode"], told["Recipient"]) == (True, 0, "user@example.org")
    assert told["Error"] == f"complaint: {kind.lower()}, by Loop/1.0"
    [entry] = (await gateway.call("SuppressionList", {}))["Suppressions"]
    assert (entry["OriginalAddress"], entry["Reason"]) == ("user@example.org", told["Error"])
    after, [_, said] = await gateway.message(item.message.id)
    assert (after.success, said.success) == (True, None)  # it was delivered all the same
    assert told["Error"] in said.error
    answer = await gateway.send()
    await gateway.webhooks.event("suppressed", QueueMsgID=answer["Submissions"][0]["QueueMsgID"])


async def test_a_complaint_to_a_unique_address(gateway: Running) -> None:
    item = await sent(gateway)
    told = await complained(gateway, feedback(), to=str(item.message.sender))
    assert (told["MatchedBy"], told["Suppressing"]) == ("fromid", True)


async def test_somebody_else_s_complaint_suppresses_nobody(gateway: Running) -> None:
    item = await sent(gateway)
    data = feedback(mail_from=str(item.message.sender), recipient="other@example.org")
    assert (await complained(gateway, data))["Suppressing"] is False
    assert await suppressed(gateway) == []


@pytest.mark.parametrize("recipient", ["", "USER@example.org"])
async def test_by_a_message_id_that_only_the_recipient_knows(gateway: Running, recipient: str) -> None:
    item = await sent(gateway, auth=PLAIN)
    told = await complained(gateway, feedback(message_id=item.message.message_id, recipient=recipient))
    assert (told["QueueMsgID"], told["MatchedBy"]) == (item.message.id, "messageid")
    assert told["Suppressing"]


@pytest.mark.parametrize("known", ["chosen", "by two"])
async def test_by_a_message_id_that_others_know(gateway: Running, known: str) -> None:
    """With the recipient's name it makes the event; without, it could be anybody's."""
    fields: dict[str, Any] = {"MessageID": "<1@example.org>"}
    if known == "by two":
        fields = {"CC": [{"Address": "curious@example.org"}]}
    item = await sent(gateway, auth=PLAIN, **fields)
    await gateway.mail(feedback(message_id=item.message.message_id), sender=FBL)
    await gateway.webhooks.wait_for(lambda p: "Event" not in p and p["Subject"] == "a complaint")
    data = feedback(message_id=item.message.message_id, recipient="user@example.org")
    told = await complained(gateway, data)
    assert (told["MatchedBy"], told["Suppressing"]) == ("messageid", False)
    assert await suppressed(gateway) == []


async def feedback_ids(gateway: Running) -> list[str]:
    """Of the message that arrived first."""
    arrived = (await gateway.webhooks.incoming())[0]
    answer = await gateway.api.post("MessageRawGet", json={"MsgID": arrived["Meta"]["MsgID"]})
    return message_from_bytes(answer.content).get_all("CFBL-Feedback-ID", [])


ANNOUNCED = [["CFBL-Address", "mox@localhost; report=arf"]]


async def test_by_the_id_of_a_feedback_loop(gateway: Running) -> None:
    """RFC 9477: all that a provider which protects its users gives back."""
    item = await sent(gateway, auth=PLAIN, Headers=ANNOUNCED)
    [feedback_id] = await feedback_ids(gateway)
    assert feedback_id == item.message.env_id
    told = await complained(gateway, feedback(returned=f"CFBL-Feedback-ID: {feedback_id}\r\n"))
    assert (told["QueueMsgID"], told["MatchedBy"], told["Suppressing"]) == (item.message.id, "envid", True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"Headers": [["X-Other", "cfbl-address"]]}, []),
        ({"Headers": ANNOUNCED, "CC": [{"Address": "curious@example.org"}]}, []),  # it would be of two
        ({"Headers": [*ANNOUNCED, ["CFBL-Feedback-ID", "17"]]}, ["17"]),
        ({"Headers": ANNOUNCED, "EnvID": "17+a"}, ["17+a"]),
    ],
)
async def test_the_id_of_a_feedback_loop_is_added_where_it_is_of_use(
    gateway: Running, fields: dict[str, Any], expected: list[str]
) -> None:
    item = await sent(gateway, auth=PLAIN, **fields)
    assert await feedback_ids(gateway) == expected
    if "EnvID" in fields:  # anybody may guess what was chosen
        data = feedback(recipient="user@example.org", returned="CFBL-Feedback-ID: 17+a\r\n")
        told = await complained(gateway, data)
        assert (told["QueueMsgID"], told["Suppressing"]) == (item.message.id, False)


@pytest.mark.parametrize("kind", ["not-spam", "auth-failure", "opt-out"])
async def test_other_feedback_is_no_complaint(gateway: Running, kind: str) -> None:
    item = await sent(gateway)
    await gateway.mail(feedback(kind, mail_from=str(item.message.sender)), sender=FBL)
    told = await gateway.webhooks.event("unrecognized")
    assert (told["QueueMsgID"], told["Suppressing"]) == (item.message.id, False)
    assert f"feedback report of type '{kind}'" in told["Error"]
    assert await suppressed(gateway) == []


async def test_feedback_on_something_else_is_mail(gateway: Running) -> None:
    await gateway.mail(feedback(message_id="<other@example.org>", recipient="x@example.org"), sender=FBL)
    [arrived] = await gateway.webhooks.incoming()
    assert (arrived["Subject"], arrived["Meta"]["Automated"]) == ("a complaint", True)


# --- Bounces for people ----------------------------------------------------------------------------


def of(name: str) -> bytes:
    """A format's message, about user@example.org."""
    return FORMATS[name].data.replace(b"ada@example.net", b"user@example.org")


@pytest.mark.parametrize(
    "name", ["sendmail, without fields", "exchange, HTML only", "why before to whom", "another language"]
)
async def test_a_bounce_for_people(gateway: Running, name: str) -> None:
    item = await sent(gateway)
    await report(gateway, item, of(name))
    failed = await gateway.webhooks.event("failed", QueueMsgID=item.message.id)
    assert (failed["DSN"], failed["MatchedBy"], failed["Suppressing"]) == (True, "fromid", True)
    assert (failed["SMTPCode"], failed["SMTPEnhancedCode"]) == (550, "5.1.1")
    _, [_, said] = await gateway.message(item.message.id)
    assert "a report, matched by fromid, says failed (bad mailbox): " in said.error


async def test_one_that_returns_the_message(gateway: Running) -> None:
    item = await sent(gateway, auth=PLAIN)
    data = of("sendmail, without fields").replace(b"<order-1@example.org>", item.message.message_id.encode())
    await report(gateway, item, data, to="mox@localhost")
    failed = await gateway.webhooks.event("failed")
    assert (failed["MatchedBy"], failed["Suppressing"]) == ("messageid", True)


async def test_a_large_one(gateway: Running) -> None:
    """It is decoded in a worker process."""
    item = await sent(gateway)
    for number, lines in enumerate((10_000, 300_000), 1):  # of the larger one only the beginning is read
        await report(gateway, item, of("sendmail, without fields") + b"All that was said.\r\n" * lines)
        failed = await gateway.webhooks.wait_for(lambda p: p.get("Event") == "failed", number)
        assert failed[-1]["SMTPEnhancedCode"] == "5.1.1"


async def test_one_without_a_code_suppresses_nobody(gateway: Running) -> None:
    item = await sent(gateway)
    await report(gateway, item, of("domino"))
    failed = await gateway.webhooks.event("failed")
    assert (failed["SMTPCode"], failed["Suppressing"]) == (0, False)


async def test_a_delay(gateway: Running) -> None:
    item = await sent(gateway)
    await report(gateway, item, of("exim, delayed"))
    delayed = await gateway.webhooks.event("delayed")
    assert (delayed["SMTPCode"], delayed["SMTPEnhancedCode"], delayed["DSN"]) == (451, "4.7.1", True)
    assert (await gateway.message(item.message.id))[0].success is True


# --- Neither --------------------------------------------------------------------------------------

AWAY = b"From: <user@example.org>\r\nAuto-Submitted: auto-replied\r\nSubject: away\r\n\r\nNot here.\r\n"
READ = (
    b"From: <user@example.org>\r\nSubject: Read: hi\r\n"
    b"Content-Type: multipart/report; report-type=disposition-notification; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: message/disposition-notification\r\n\r\n"
    b"Disposition: manual-action; displayed\r\n--b--\r\n"
)


@pytest.mark.parametrize("data", [AWAY, READ], ids=["automatic reply", "MDN"])
async def test_automatic_replies_are_mail(gateway: Running, data: bytes) -> None:
    item = await sent(gateway, auth=PLAIN)
    await report(gateway, item, data, to="mox@localhost")
    arrived = await gateway.webhooks.wait_for(lambda p: "Event" not in p and p["Subject"] != "hi")
    assert arrived[0]["Meta"]["Automated"]
    assert len((await gateway.message(item.message.id))[1]) == 1


async def test_an_automatic_reply_to_a_unique_address(gateway: Running) -> None:
    item = await sent(gateway)
    await report(gateway, item, AWAY)
    told = await gateway.webhooks.event("unrecognized")
    assert (told["DSN"], told["Error"]) == (False, "not recognized: it is an automatic reply")
