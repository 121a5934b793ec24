"""docs/webhooks.md has every event, key and header as the code has them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from gateway import EventName, IncomingEvent, ReceivedMessage
from gateway.mail.reading import parse_message
from gateway.webhooks import schedule
from gateway_mox import webhook
from tests.docs.pages import all_sections, code, tables, text
from tests.hooks.helpers import NOW, an_event
from tests.running import Receiver, receiving, running

SECTIONS = all_sections(text("webhooks.md"))


@pytest.fixture
async def webhooks() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def test_events() -> None:
    events, _ = tables(SECTIONS["Outgoing"])
    assert sorted(row["event"] for row in events) == sorted(get_args(EventName))


def test_an_outgoing_payload() -> None:
    [example] = code("json", SECTIONS["Outgoing"])
    payload = webhook.outgoing(replace(an_event(), name="failed"))
    assert [(k, type(v)) for k, v in json.loads(example).items()] == [
        (k, type(v)) for k, v in payload.items()
    ]
    _, keys = tables(SECTIONS["Outgoing"])
    assert [row["key"] for row in keys] == list(payload)


RECEIVED = ReceivedMessage(
    id=1,
    account="mox",
    mailbox="Inbox",
    received=NOW,
    size=90,
    flags=(),
    mail_from="ada@example.com",
    mail_from_validated=False,
    rcpt_to="mox@localhost",
    msg_from="ada@example.com",
    msg_from_validated=False,
    dkim_verified_domains=(),
    remote_ip="192.0.2.7",
    dsn=False,
    automated=False,
)


def test_an_incoming_payload() -> None:
    data = b"From: Ada <ada@example.com>\r\nDate: Sat, 31 Jan 2026 08:00:00 +0000\r\n\r\nWhere?\r\n"
    event = IncomingEvent(
        id=1,
        time=NOW,
        account="mox",
        message=RECEIVED,
        parsed=parse_message(data),
        data=data,
    )
    payload = webhook.incoming(event)
    [example] = code("json", SECTIONS["Incoming"])
    shown = json.loads(example)
    for ours, theirs in (
        (shown, payload),
        (shown["Meta"], payload["Meta"]),
        (shown["Structure"], payload["Structure"]),
    ):
        assert [(k, type(v)) for k, v in ours.items()] == [(k, type(v)) for k, v in theirs.items()]
    [keys] = tables(SECTIONS["Incoming"])
    assert {row["key"] for row in keys} <= payload.keys() | payload["Meta"].keys()


async def test_headers(tmp_path: Path, webhooks: Receiver) -> None:
    [secret] = set(re.findall(r"whsec_[\w+/]+", text("webhooks.md")))

    def change(raw: dict[str, Any]) -> None:
        raw["accounts"]["mox"]["webhook_outgoing"] |= {"authorization": "Bearer x", "secrets": [secret]}

    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send()
        await webhooks.event("delivered")
    [headers] = [h for h in webhooks.headers if "authorization" in h]
    [rows] = tables(SECTIONS["The request"])
    of_http = {"host", "content-length"}
    listed = [name for row in rows for name in row["header"].lower().split("`, `")]
    assert [name.strip("`") for name in listed] == [name for name in headers if name not in of_http]
    assert rows[0]["value"] == headers["content-type"]
    assert headers["user-agent"].startswith("mail-gateway/")
    body = webhooks.bodies[webhooks.headers.index(headers)]
    [example] = [block for block in code("python", text("webhooks.md")) if "standardwebhooks" in block]
    names: dict[str, Any] = {"body": body, "headers": headers}
    exec(example, names)
    assert names["payload"]["Event"] == "delivered"


def test_schedule() -> None:
    section = " ".join(SECTIONS["When calls are made"].split())
    minutes, hours = re.findall(r"([\d., ]+(?: and \d+)?) (?:minutes|hours)", section)
    numbers = [float(n) * 60 for n in re.findall(r"[\d.]+", minutes)]
    numbers += [float(n) * 3600 for n in re.findall(r"[\d.]+", hours)]
    assert tuple(numbers) == schedule.INTERVALS
    assert "After twelve attempts" in section
    assert schedule.MAX_ATTEMPTS == 12
