"""An application's feedback loop on one machine: what localserve takes, and reports on later."""

from __future__ import annotations

import smtplib
from pathlib import Path
from typing import Any

import pytest

from gateway import Reception, Reject, hookimpl
from tests.running import Receiver, Running, running, with_plugins
from tests.whole.test_reports import PLAIN, suppressed


@pytest.mark.parametrize("auth", [None, PLAIN], ids=["unique", "plain"])
@pytest.mark.parametrize(
    ("to", "event"),
    [
        ("user-bounce@example.org", "failed"),
        ("bounce@localhost", "failed"),  # From a domain of ours, whose DMARC policy is to reject
        ("user.complain@bücher.example", "complained"),
        ("Complain@localhost", "complained"),
    ],
)
async def test_a_report_comes_back(gateway: Running, to: str, event: str, auth: Any) -> None:
    request = {"To": [{"Address": to}], "Subject": "Grüße", "Text": "hello"}
    answer = await gateway.api.post("Send", json=request, **({"auth": auth} if auth else {}))
    assert answer.status_code == 200, answer.text
    await gateway.webhooks.event("delivered")
    told = await gateway.webhooks.event(event)
    assert (told["DSN"], told["Suppressing"]) == (event == "failed", True)
    assert told["MatchedBy"] == ("messageid" if auth else "fromid")
    if event == "failed":
        assert (told["SMTPCode"], told["SMTPEnhancedCode"]) == (550, "5.1.1")
    assert len(await suppressed(gateway)) == 1
    # The report is in the Inbox, as it came; the next message is not sent.
    listed = (await gateway.call("MessageList", {}))["Messages"]
    assert [(one["Meta"]["MailFrom"], one["Meta"]["MailboxName"]) for one in listed[:1]] == [("", "Inbox")]
    assert listed[0]["Meta"]["MsgFromValidated"] is to.endswith("@localhost")
    await gateway.send(to)
    await gateway.webhooks.event("suppressed")


class Refuse:
    """Has no room for the first message."""

    def __init__(self) -> None:
        self.asked = 0

    @hookimpl
    def receive_policy(self, reception: Reception) -> Reject | None:
        if reception.step != "data":
            return None
        self.asked += 1
        return Reject(452, "4.3.1", "no room") if self.asked == 1 else None


async def test_no_report_on_what_was_not_taken(tmp_path: Path, webhooks: Receiver) -> None:
    refuse = Refuse()
    change = with_plugins("refuse", first=False)
    mail = b"From: x@example.org\r\nSubject: %s\r\n\r\nhi\r\n"
    async with running(tmp_path, webhooks, change=change, plugins={"refuse": refuse}) as gateway:
        with pytest.raises(smtplib.SMTPDataError, match="no room"):
            await gateway.mail(mail % b"one", to="bounce@example.org", sender="mox@localhost")
        await gateway.mail(mail % b"two", to="bounce@example.org", sender="mox@localhost")
        arrived = await gateway.webhooks.incoming(2)
    assert [p["Subject"] for p in arrived] == ["two", "Not delivered: two"]


async def test_from_elsewhere(gateway: Running) -> None:
    """A client that speaks SMTP to the listener gets one, too; nobody does for the null sender."""
    mail = b"From: <x@example.org>\r\nSubject: %s\r\n\r\nhi\r\n"
    await gateway.mail(mail % b"one", to="bounce@example.org", sender="")
    await gateway.mail(mail % b"two", to="bounce@example.org", sender="mox@localhost")
    arrived = await gateway.webhooks.incoming(3)
    assert [p["Subject"] for p in arrived] == ["one", "two", "Not delivered: two"]
    assert (arrived[2]["Meta"]["MailFrom"], arrived[2]["Meta"]["Automated"]) == ("", True)
