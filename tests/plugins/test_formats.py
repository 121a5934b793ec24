"""Formats of other services, read by software that others wrote for these services: django-anymail has
receivers for Postmark and Mailgun, the CloudEvents project a library."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import django
import pytest
from anymail.exceptions import AnymailWebhookValidationFailure
from anymail.signals import inbound, tracking
from anymail.webhooks import mailgun as anymail_mailgun
from anymail.webhooks import postmark as anymail_postmark
from cloudevents.v1.http import from_http
from django.conf import settings as django_settings
from django.test import RequestFactory
from pydantic import SecretStr

from gateway import Event, EventName, IncomingEvent, ReceivedMessage, WebhookBody
from gateway.mail.reading import parse_message
from gateway_formats.cloudevents import CloudEvents, CloudEventsSettings
from gateway_formats.mailgun import Mailgun, MailgunSettings, event_data
from gateway_formats.postmark import Postmark, PostmarkSettings
from gateway_formats.postmark import outgoing as postmark_event
from gateway_mox import webhook

KEY = "key-0123456789"
AUTH = "Basic " + b64encode(b"hooks:secret").decode()
TIME = datetime(2030, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)

EVENT = Event(
    id=5,
    time=TIME,
    account="a/b",
    name="delivered",
    queue_msg_id=7,
    from_id="",
    message_id="<m@example.com>",
    subject="Grüße",
    recipient="you@example.org",
    attempt=3,
    remote_mta="mx.example.org",
    extra={"tag": "welcome", "order": "1001"},
)

MESSAGE = """\
Return-Path: <bounces@example.org>
Received: from mx.example.org
From: =?utf-8?q?J=C3=BCrgen_=22J=22?= <juergen@example.org>
To: Shop <shop+1001@example.com>, other@example.com
Cc: cc@example.com
Reply-To: answers@example.org
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
Date: Wed, 02 Jan 2030 03:04:05 +0100
Message-ID: <in@example.org>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: multipart/alternative; boundary=c

--c
Content-Type: text/plain; charset=utf-8

h\u00e9llo
--c
Content-Type: text/html; charset=utf-8

<p>h\u00e9llo</p>
--c--
--b
Content-Type: application/pdf; name="a\\"b.pdf"
Content-Disposition: attachment; filename="a\\"b.pdf"
Content-Transfer-Encoding: base64

JVBERi0=
--b
Content-Type: image/png
Content-ID: <logo>
Content-Disposition: inline; filename=logo.png
Content-Transfer-Encoding: base64

AAECAw==
--b--
""".replace("\n", "\r\n").encode()
PLAIN = b"From: <x@example.org>\r\nTo: shop@example.com\r\nSubject: hi\r\n\r\nhello\r\n"


def arrived(data: bytes) -> IncomingEvent:
    message = ReceivedMessage(
        id=12,
        account="a/b",
        mailbox="Inbox",
        received=TIME,
        size=len(data),
        flags=(),
        mail_from="bounces@example.org",
        mail_from_validated=True,
        rcpt_to="shop+1001@example.com",
        msg_from="juergen@example.org",
        msg_from_validated=True,
        dkim_verified_domains=(),
        remote_ip="192.0.2.1",
        dsn=False,
        automated=False,
    )
    return IncomingEvent(
        id=6, time=TIME, account="a/b", message=message, parsed=parse_message(data), data=data
    )


def named(name: EventName, **fields: Any) -> Event:
    return replace(EVENT, name=name, **fields)


FAILED = {"code": 550, "enhanced": "5.1.1", "error": "550 5.1.1 no such user"}

# --- django-anymail -------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _django() -> None:
    if not django_settings.configured:
        django_settings.configure(
            INSTALLED_APPS=["anymail"],
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="x",
            USE_TZ=True,
            DATABASES={},
            ANYMAIL={"WEBHOOK_SECRET": "hooks:secret", "MAILGUN_WEBHOOK_SIGNING_KEY": KEY},
        )
        django.setup()


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    """What Anymail tells an application."""
    events: list[Any] = []

    def hear(sender: Any, event: Any, esp_name: str, **_: Any) -> None:
        events.append(event)

    for signal in (tracking, inbound):
        signal.connect(hear)
    yield events
    for signal in (tracking, inbound):
        signal.disconnect(hear)


def receive(view: Any, body: WebhookBody) -> int:
    request = RequestFactory().post(
        "/", data=body.body, content_type=body.content_type, HTTP_AUTHORIZATION=AUTH
    )
    status: int = view.as_view()(request).status_code
    return status


def name_of(plugin: Any) -> str:
    """The format's, as the class is called."""
    return type(plugin).__name__.lower()


async def written(plugin: Any, event: Event | IncomingEvent, settings: Any) -> WebhookBody:
    body = await plugin.format_webhook(
        event, plugin.Settings.__name__.removesuffix("Settings").lower(), settings
    )
    assert isinstance(body, WebhookBody)
    return body


EVENTS = [
    (named("delivered"), "delivered", None),
    (named("failed", **FAILED, suppressing=True), "bounced", "bounced"),
    (named("delayed", code=451, error="451 later"), "deferred", None),
    (named("complained"), "complained", None),
    (named("unsubscribed"), "unsubscribed", None),
]


@pytest.mark.parametrize(("event", "kind", "reason"), EVENTS, ids=[event.name for event, _, _ in EVENTS])
async def test_postmark_events(event: Event, kind: str, reason: str | None, heard: list[Any]) -> None:
    body = await written(Postmark(), event, PostmarkSettings())
    assert receive(anymail_postmark.PostmarkTrackingWebhookView, body) == 200
    [told] = heard
    assert (told.event_type, told.recipient, told.message_id) == (kind, "you@example.org", "<m@example.com>")
    assert (told.timestamp, told.tags, told.metadata) == (TIME, ["welcome"], dict(EVENT.extra))
    if reason:
        assert (told.reject_reason, told.mta_response) == (reason, "550 5.1.1 no such user")


@pytest.mark.parametrize(("event", "kind", "reason"), EVENTS, ids=[event.name for event, _, _ in EVENTS])
async def test_mailgun_events(event: Event, kind: str, reason: str | None, heard: list[Any]) -> None:
    body = await written(Mailgun(), event, MailgunSettings(signing_key=SecretStr(KEY)))
    assert body.content_type.startswith("application/json")
    assert (
        receive(anymail_mailgun.MailgunTrackingWebhookView, replace(body, content_type="application/json"))
        == 200
    )
    [told] = heard
    assert (told.event_type, told.recipient, told.message_id) == (kind, "you@example.org", "<m@example.com>")
    assert (told.timestamp, told.tags, told.metadata) == (TIME, ["welcome"], dict(EVENT.extra))
    if reason:
        assert (told.reject_reason, told.mta_response) == (reason, "550 5.1.1 no such user")
    other = await written(Mailgun(), event, MailgunSettings(signing_key=SecretStr("another")))
    with pytest.raises(AnymailWebhookValidationFailure):
        receive(anymail_mailgun.MailgunTrackingWebhookView, other)


@pytest.mark.parametrize(
    ("mail_from", "from_id", "shown"),
    [
        ("shop@example.com", "", "shop@example.com"),
        ("shop+-q2_@example.com", "-q2_", "shop@example.com"),
        ("shop@example.com", "q2", "shop@example.com"),
        ("", "", ""),
    ],
)
def test_the_sender(mail_from: str, from_id: str, shown: str) -> None:
    event = named("failed", **FAILED, sender=mail_from, from_id=from_id)
    bounce, failed = postmark_event(event, PostmarkSettings()), event_data(event)
    assert bounce is not None
    assert failed is not None
    assert bounce["From"] == failed["envelope"]["sender"] == failed["message"]["headers"]["from"] == shown


@pytest.mark.parametrize("data", [MESSAGE, PLAIN])
@pytest.mark.parametrize(
    ("plugin", "settings", "view"),
    [
        (Postmark(), PostmarkSettings(), "PostmarkInboundWebhookView"),
        (Mailgun(), MailgunSettings(signing_key=SecretStr(KEY)), "MailgunInboundWebhookView"),
    ],
    ids=["postmark", "mailgun"],
)
async def test_incoming_mail(data: bytes, plugin: Any, settings: Any, view: str, heard: list[Any]) -> None:
    views = anymail_postmark if "Postmark" in view else anymail_mailgun
    assert receive(getattr(views, view), await written(plugin, arrived(data), settings)) == 200
    [told] = heard
    message = told.message
    assert told.event_type == "inbound"
    assert (message.envelope_recipient, message.envelope_sender) == (
        "shop+1001@example.com",
        "bounces@example.org" if data is MESSAGE or "Mailgun" in view else None,
    )
    if data is PLAIN:
        assert (message.subject, message.text, message.html) == (
            "hi",
            "hello\n",
            "" if "Postmark" in view else None,
        )
        assert message.attachments == []
        return
    assert message.subject == "Grüße"
    assert (message.from_email.display_name, message.from_email.addr_spec) == (
        'Jürgen "J"',
        "juergen@example.org",
    )
    assert [address.addr_spec for address in message.to] == ["shop+1001@example.com", "other@example.com"]
    assert [address.addr_spec for address in message.cc] == ["cc@example.com"]
    assert (message.text.strip(), message.html.strip()) == ("héllo", "<p>héllo</p>")
    assert message.date.timestamp() == datetime(2030, 1, 2, 2, 4, 5, tzinfo=UTC).timestamp()
    assert (message["Message-ID"], message["Reply-To"]) == ("<in@example.org>", "answers@example.org")
    found = {
        part.get_content_type(): part for part in [*message.attachments, *message.content_id_map.values()]
    }
    assert found["application/pdf"].get_content_bytes() == b"%PDF-"
    assert found["image/png"].get_content_bytes() == bytes([0, 1, 2, 3])
    assert "logo" in message.content_id_map


# --- What nobody else checks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "kind", "code", "inactive"),
    [
        (named("failed", **FAILED), "HardBounce", 1, False),
        (named("failed", **FAILED, suppressing=True), "HardBounce", 1, True),
        (named("failed", code=550, enhanced="5.7.1"), "Blocked", 100006, False),
        (named("failed", code=552, enhanced="5.2.2"), "SoftBounce", 4096, False),
        (named("failed", code=451, enhanced="4.4.1"), "SoftBounce", 4096, False),
        (named("failed"), "SoftBounce", 4096, False),
        (named("delayed"), "Transient", 2, False),
        (named("suppressed"), "ManuallyDeactivated", 100002, True),
        (named("unrecognized"), "Unknown", 2048, False),
        (named("complained", suppressing=True), "SpamComplaint", 512, True),
    ],
)
async def test_postmark_types(event: Event, kind: str, code: int, inactive: bool) -> None:
    payload = json.loads((await written(Postmark(), event, PostmarkSettings(server_id=23))).body)
    assert (payload["Type"], payload["TypeCode"], payload["Inactive"]) == (kind, code, inactive)
    assert payload["RecordType"] == ("SpamComplaint" if kind == "SpamComplaint" else "Bounce")
    assert (payload["ID"], payload["ServerID"], payload["Subject"]) == (5, 23, "Grüße")


NOTHING: list[tuple[Any, Any, EventName]] = [
    (Postmark(), PostmarkSettings(), "canceled"),
    (Postmark(), PostmarkSettings(), "relayed"),
    (Postmark(), PostmarkSettings(), "expanded"),
    (Mailgun(), MailgunSettings(signing_key=SecretStr(KEY)), "canceled"),
    (Mailgun(), MailgunSettings(signing_key=SecretStr(KEY)), "relayed"),
    (Mailgun(), MailgunSettings(signing_key=SecretStr(KEY)), "expanded"),
    (Mailgun(), MailgunSettings(signing_key=SecretStr(KEY)), "unrecognized"),
]


@pytest.mark.parametrize(("plugin", "settings", "name"), NOTHING)
async def test_events_that_a_service_does_not_have(plugin: Any, settings: Any, name: EventName) -> None:
    assert await plugin.format_webhook(named(name), name_of(plugin), settings) is False


async def test_mailgun_is_signed_or_not_at_all() -> None:
    with pytest.raises(ValueError, match=r'set signing_key in \[plugin."formats.mailgun"\]'):
        await Mailgun().format_webhook(EVENT, "mailgun", MailgunSettings())


async def test_attachments_have_a_limit() -> None:
    payload = json.loads(
        (await written(Postmark(), arrived(MESSAGE), PostmarkSettings(max_attachments=5))).body
    )
    assert [attachment["Name"] for attachment in payload["Attachments"]] == ['a"b.pdf']
    assert payload["Attachments"][0]["ContentLength"] == 5
    assert payload["MailboxHash"] == "1001"


async def test_a_large_message_is_taken_apart_as_well() -> None:
    large = MESSAGE.replace(b"JVBERi0=", b"JVBERi0t" * 20_000)
    payload = json.loads((await written(Postmark(), arrived(large), PostmarkSettings())).body)
    assert payload["Attachments"][0]["ContentLength"] == 120_000


@pytest.mark.parametrize("event", [EVENT, named("failed", **FAILED), arrived(MESSAGE)])
def test_cloudevents(event: Event | IncomingEvent) -> None:
    settings = CloudEventsSettings(source="https://mail.example/", type_prefix="com.example.mail.")
    body = CloudEvents().format_webhook(event, "cloudevents", settings)
    assert body is not None
    read = from_http({"content-type": body.content_type}, body.body)
    if isinstance(event, Event):
        expected = (f"com.example.mail.outgoing.{event.name}", "7", webhook.outgoing(event))
    else:
        expected = ("com.example.mail.incoming", "12", webhook.incoming(event))
    assert (read["type"], read["subject"], read.data) == expected
    assert (read["specversion"], read["id"], read["source"]) == (
        "1.0",
        str(event.id),
        "https://mail.example/a%2Fb",
    )
    assert read["time"] == "2030-01-02T03:04:05.600000Z"
    assert read["datacontenttype"] == "application/json"


@pytest.mark.parametrize(
    ("plugin", "settings"),
    [(Postmark(), PostmarkSettings()), (Mailgun(), MailgunSettings())],
)
async def test_other_formats_are_left_to_others(plugin: Any, settings: Any) -> None:
    for event in (EVENT, arrived(PLAIN)):
        assert await plugin.format_webhook(event, "mox", settings) is None
        assert CloudEvents().format_webhook(event, "mox", CloudEventsSettings()) is None
        assert webhook.format_webhook(event, "postmark") is None
