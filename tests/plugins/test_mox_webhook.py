from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway import Event, IncomingEvent, ReceivedMessage, TransportType, hookimpl
from gateway.config.settings import Settings
from gateway.mail.reading import parse_message
from gateway.plugins.loading import load_plugins
from gateway_mox import hold, retry, routing, webhook
from tests.plugins.mox_messages import QUEUED

FAILED = Event(
    id=5,
    time=datetime(2030, 1, 2, 3, 4, 5, 600000, tzinfo=UTC),
    account="a",
    name="failed",
    queue_msg_id=7,
    from_id="ifXvMNZ5Hhr1VSRMUUPqYg",
    message_id="<m@example.com>",
    subject="Grüße",
    recipient="you@example.org",
    attempt=3,
    dsn=False,
    suppressing=True,
    code=550,
    enhanced="5.1.1",
    error="550 5.1.1 no such user",
    remote_mta="mx.example.org",
    extra={"Order": "17"},
)
RECEIVED = ReceivedMessage(
    id=9,
    account="a",
    mailbox="Inbox",
    received=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
    size=100,
    flags=(),
    mail_from="bounce@example.org",
    mail_from_validated=True,
    rcpt_to="me@example.com",
    msg_from="you@example.org",
    msg_from_validated=False,
    dkim_verified_domains=("example.org",),
    remote_ip="192.0.2.1",
    dsn=False,
    automated=True,
)
DATA = b"""\
From: =?utf-8?q?J=C3=BCrgen?= <you@example.org>
To: me@example.com, "Other, One" <other@example.net>
Cc: Third <third@example.net>
Reply-To: <reply@example.org>
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
Message-ID: <in@example.org>
In-Reply-To: <m@example.com>
References: <m0@example.com> <m@example.com>
Date: Wed, 2 Jan 2030 04:04:05 +0130
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain; charset=utf-8

hello
--b
Content-Type: application/pdf; name="a.pdf"
Content-Disposition: attachment; filename="=?utf-8?q?=C3=A4.pdf?="
Content-ID: <cid@x>
Content-Transfer-Encoding: base64

aGVsbG8=
--b--
""".replace(b"\n", b"\r\n")


def payload(event: Event | IncomingEvent) -> Any:
    answer = webhook.format_webhook(event, "mox")
    assert answer is not None
    assert answer.content_type == "application/json; charset=utf-8"
    return json.loads(answer.body.decode("utf-8"))


def test_an_outgoing_event() -> None:
    found = payload(FAILED)
    assert found == {
        "Version": 0,
        "Event": "failed",
        "DSN": False,
        "Suppressing": True,
        "QueueMsgID": 7,
        "FromID": "ifXvMNZ5Hhr1VSRMUUPqYg",
        "MessageID": "<m@example.com>",
        "Subject": "Grüße",
        "WebhookQueued": "2030-01-02T03:04:05.600000Z",
        "SMTPCode": 550,
        "SMTPEnhancedCode": "5.1.1",
        "Error": "550 5.1.1 no such user",
        "Extra": {"Order": "17"},
        "Recipient": "you@example.org",
        "Attempt": 3,
        "RemoteMTA": "mx.example.org",
        "MatchedBy": "",
    }
    in_order = "Version Event DSN Suppressing QueueMsgID FromID MessageID Subject WebhookQueued"
    assert " ".join(found).startswith(f"{in_order} SMTPCode SMTPEnhancedCode Error Extra")


def test_a_delivery_by_the_queue_has_no_codes_but_one_that_a_dsn_reports_has() -> None:
    delivered = dataclasses.replace(FAILED, name="delivered", code=250, enhanced="2.0.0", error="250 ok")
    found = payload(delivered)
    assert (found["SMTPCode"], found["SMTPEnhancedCode"], found["Error"]) == (0, "", "")
    found = payload(dataclasses.replace(delivered, dsn=True, matched_by="fromid"))
    assert (found["DSN"], found["SMTPCode"], found["SMTPEnhancedCode"]) == (True, 250, "2.0.0")
    assert found["MatchedBy"] == "fromid"


def test_an_empty_event_has_no_nulls() -> None:
    empty = dataclasses.replace(
        FAILED, time=QUEUED, from_id="", message_id="", subject="", recipient="", error="", extra={}
    )
    found = payload(empty)
    assert None not in found.values()
    assert found["Extra"] == {}
    assert found["WebhookQueued"] == "2030-01-01T00:00:00Z"


def test_an_incoming_message() -> None:
    event = IncomingEvent(
        id=6, time=QUEUED, account="a", message=RECEIVED, parsed=parse_message(DATA), data=DATA
    )
    assert payload(event) == {
        "Version": 0,
        "From": [{"Name": "Jürgen", "Address": "you@example.org"}],
        "To": [
            {"Name": "", "Address": "me@example.com"},
            {"Name": "Other, One", "Address": "other@example.net"},
        ],
        "CC": [{"Name": "Third", "Address": "third@example.net"}],
        "BCC": [],
        "ReplyTo": [{"Name": "", "Address": "reply@example.org"}],
        "Subject": "Grüße",
        "MessageID": "<in@example.org>",
        "InReplyTo": "<m@example.com>",
        "References": ["<m0@example.com>", "<m@example.com>"],
        "Date": "2030-01-02T04:04:05+01:30",
        "Text": "hello",
        "HTML": "",
        "Structure": {
            "ContentType": "multipart/mixed",
            "ContentTypeParams": {"boundary": "b"},
            "ContentID": "",
            "ContentDisposition": "",
            "Filename": "",
            "DecodedSize": found_size(),
            "Parts": [
                {
                    "ContentType": "text/plain",
                    "ContentTypeParams": {"charset": "utf-8"},
                    "ContentID": "",
                    "ContentDisposition": "",
                    "Filename": "",
                    "DecodedSize": 5,
                    "Parts": [],
                },
                {
                    "ContentType": "application/pdf",
                    "ContentTypeParams": {"name": "a.pdf"},
                    "ContentID": "<cid@x>",
                    "ContentDisposition": "attachment",
                    "Filename": "ä.pdf",
                    "DecodedSize": 5,
                    "Parts": [],
                },
            ],
        },
        "Meta": {
            "MsgID": 9,
            "MailFrom": "bounce@example.org",
            "MailFromValidated": True,
            "MsgFromValidated": False,
            "RcptTo": "me@example.com",
            "DKIMVerifiedDomains": ["example.org"],
            "RemoteIP": "192.0.2.1",
            "Received": "2030-01-02T03:04:05Z",
            "MailboxName": "Inbox",
            "Automated": True,
        },
    }


def found_size() -> int:
    return len(DATA) - DATA.index(b"\r\n\r\n") - 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"no header at all",
        b"Subject: \xff\xfe\x00\r\nTo: ,,,;<>\r\nDate: yesterday\r\n\r\n\x00\xff",
        b"Content-Type: text/html; charset=utf-16\r\n\r\n\xd8\x00\xd8\x00",
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n' + b"--b\r\n" * 2000,
        b"".join(
            b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(1000)
        ),
    ],
)
def test_any_message_has_a_payload_without_nulls_but_its_date(data: bytes) -> None:
    found = payload(
        IncomingEvent(id=6, time=QUEUED, account="a", message=RECEIVED, parsed=parse_message(data), data=data)
    )
    assert found["Date"] is None
    assert [key for key, value in found.items() if value is None] == ["Date"]
    assert isinstance(found["Structure"]["Parts"], list)
    assert found["References"] == []


def test_all_plugins_of_the_package_load_with_their_settings() -> None:
    class Rest:
        @hookimpl
        def transports(self) -> dict[str, TransportType]:
            return {}

    plugins: dict[str, object] = {
        "mox.hold": hold,
        "mox.routing": routing,
        "mox.retry": retry.MoxRetry,
        "retry": retry.Retry,
        "mox.webhook": webhook,
        "rest": Rest(),
    }
    settings = Settings.model_validate(
        {
            "hostname": "gateway.example",
            "plugins": {"sets": ["all"]},
            "plugin_sets": {"all": {"plugins": list(plugins)}},
            "plugin": {
                "retry": {"intervals": [60, 120], "give_up_after": 3600},
                "mox.retry": {"max_attempts": 3},
            },
        }
    )
    stages = load_plugins(settings, Path("/etc"), extra=plugins).for_account("")
    assert stages.plugins("retry") == ("mox.retry", "retry")
    assert stages.plugins("route") == ("mox.routing",)
    assert stages.plugins("hold") == ("mox.hold",)
    assert stages.plugins("format_webhook") == ("mox.webhook",)
