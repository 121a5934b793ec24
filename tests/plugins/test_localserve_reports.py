"""The reports that localserve makes: what they look like, and who gets one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway import Address, DeliveryStatus, FeedbackReport, Reception
from gateway.mail.report_source import read_source
from gateway_localserve.answering import MOST, Answers
from gateway_localserve.reports import MAX_RETURNED, Wanted, compose, wanted_reports
from gateway_reports import arf, rfc3464
from tests.hooks.helpers import a_reception

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SIMPLE = b"Subject: hi\r\nMessage-ID: <7@example.org>\r\n\r\n"
LATIN1 = b"Subject: gr\xfc\xdfe\r\nMessage-ID: <7@example.org>\r\n"


def taken(*recipients: str, sender: str = "app+x@localhost", header: bytes = SIMPLE) -> Reception:
    return replace(
        a_reception(),
        step="data",
        reverse_path=Address.parse(sender) if sender else None,
        recipients=tuple(map(Address.parse, recipients)),
        header=header,
    )


def test_who_gets_a_report() -> None:
    to = ("user-bounce@example.org", "user@example.org", "X-COMPLAIN@example.net", "bounced@x.example")
    assert [(one.kind, str(one.recipient)) for one in wanted_reports(taken(*to))] == [
        ("bounce", "user-bounce@example.org"),
        ("complain", "X-COMPLAIN@example.net"),
    ]
    assert wanted_reports(taken("bounce@example.org", sender="")) == []
    [long] = wanted_reports(taken("bounce@example.org", header=b"X: y\r\n" * 50_000))
    assert len(long.header) == MAX_RETURNED


@pytest.mark.parametrize("sender", ["app+x@localhost", "büro+x@bücher.example"])
@pytest.mark.parametrize("recipient", ["{}@example.org", "é{}@bücher.example", "{}@[127.0.0.1]"])
@pytest.mark.parametrize("header", [SIMPLE, LATIN1])
async def test_they_are_read_as_others_are(sender: str, recipient: str, header: bytes) -> None:
    [wanted] = wanted_reports(taken(recipient.format("bounce"), sender=sender, header=header))
    bounce = await rfc3464.read_report(read_source(compose(wanted, NOW)))
    assert isinstance(bounce, DeliveryStatus)
    [said] = bounce.recipients
    assert said.addresses == (wanted.recipient,)
    assert (said.action, said.code, said.status, said.failure) == ("failed", 550, "5.1.1", "bad-mailbox")
    assert bounce.message_id == "<7@example.org>"

    [wanted] = wanted_reports(taken(recipient.format("complain"), sender=sender, header=header))
    complaint = arf.read_report(read_source(compose(wanted, NOW)))
    assert isinstance(complaint, FeedbackReport)
    assert (complaint.is_complaint, complaint.mail_from) == (True, wanted.sender)
    assert (complaint.recipients, complaint.message_id) == ((wanted.recipient,), "<7@example.org>")


def test_no_more_than_can_wait() -> None:
    answers = Answers()
    wanted: list[Wanted] = wanted_reports(taken("bounce@example.org"))
    assert not answers.put(wanted)  # nobody sends them
    answers.served = True
    assert answers.put(wanted * (MOST - 1))
    assert not answers.put(wanted * 2)
    assert answers.put(wanted)
