from gateway_vendor_report import VendorReport

from gateway.testing import report_source
from gateway.testing.conformance import ReportReaderSuite

REPORT = """\
From: frob@mx.example.com
To: app@example.org
Subject: 2 of 3 recipients
X-Mailer: Frob 4.2
X-Frob-Host: mx.example.com
Content-Type: multipart/mixed; boundary="b"

--b
Content-Type: text/csv

recipient,code,reason
{lines}
--b
Content-Type: message/rfc822

From: app@example.org
Message-ID: {message_id}
Subject: news

hello
--b--
"""
LINES = 'ada@example.com,550,user unknown\nbob@example.com,452,"full, try later"'


def report(lines=LINES, message_id="<1@example.org>"):
    return REPORT.format(lines=lines, message_id=message_id).replace("\n", "\r\n").encode()


class TestConformance(ReportReaderSuite):
    def plugin(self):
        return VendorReport()

    def reports(self):
        return {"two recipients": report()}


def test_each_line_is_a_recipient():
    read = VendorReport().read_report(report_source(report()))
    assert (read.reporting_mta, read.message_id) == ("mx.example.com", "<1@example.org>")
    said = [(str(one.addresses[0]), one.action, one.code, one.diagnostic) for one in read.recipients]
    assert said == [
        ("ada@example.com", "failed", 550, "user unknown"),
        ("bob@example.com", "delayed", 452, "full, try later"),
    ]


def test_lines_that_cannot_be_read_say_nothing():
    wrong = "nobody,550,x\nada@example.com,200,x\nada@example.com,5x0,x\nada@example.com,550\n\n"
    assert VendorReport().read_report(report_source(report(wrong))) is None
    mixed = VendorReport().read_report(report_source(report(wrong + LINES)))
    assert len(mixed.recipients) == 2


async def test_the_event(mail_gateway):
    async with mail_gateway(VendorReport()) as gateway:
        sent = await gateway.deliver(to="ada@example.com")
        bounce = report(message_id=sent["ada@example.com"].message.message_id)
        happened = await gateway.receive(bounce, mail_from="")
        assert [(event.recipient, event.name, event.code) for event in happened.events] == [
            ("ada@example.com", "failed", 550)
        ]
