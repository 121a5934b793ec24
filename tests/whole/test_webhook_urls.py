"""An account with several URLs for its webhooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.config.settings import Settings
from gateway.errors import ConfigError
from gateway.store import call_listing
from gateway.store.call_listing import CallFilter
from tests.running import PATIENCE, Receiver, receiving, running

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


async def test_each_url_gets_its_events(tmp_path: Path, webhooks: Receiver) -> None:
    async with receiving() as everything, receiving() as failures, receiving() as mail:

        def change(raw: dict[str, Any]) -> None:
            raw["accounts"]["mox"]["webhooks"] = [
                {"url": everything.url},
                {"url": failures.url, "events": ["failed"], "secrets": [SECRET], "authorization": "Bearer x"},
                {"url": mail.url, "events": ["incoming"]},
            ]

        async with running(tmp_path, webhooks, change=change) as gateway:
            await gateway.send("user550@example.org")
            await gateway.send("user@example.org")
            for receiver in (webhooks, everything):
                await receiver.event("failed")
                await receiver.event("delivered")
                await receiver.incoming()
            await failures.event("failed")
            await mail.incoming()
            page, _ = await gateway.gateway.store.read(lambda conn: call_listing.page(conn, CallFilter()))
    assert len(failures.got) == len(mail.got) == 1
    assert failures.headers[0]["webhook-id"] == "msg_" + failures.headers[0]["x-mox-webhook-id"]
    assert failures.headers[0]["authorization"] == "Bearer x"
    assert not {"webhook-id", "authorization"} & everything.headers[0].keys()
    receivers = (webhooks, everything, failures, mail)
    ids = [headers["x-mox-webhook-id"] for receiver in receivers for headers in receiver.headers]
    assert len(ids) == len(set(ids)) == len(page) == 8


async def test_each_url_has_its_format(tmp_path: Path, webhooks: Receiver) -> None:
    async with receiving() as postmark, receiving() as cloud:

        def change(raw: dict[str, Any]) -> None:
            raw["accounts"]["mox"]["webhooks"] = [
                {"url": postmark.url, "format": "postmark"},
                {"url": cloud.url, "format": "cloudevents"},
            ]

        async with running(tmp_path, webhooks, change=change) as gateway:
            await gateway.send("user@example.org", Extra={"order": "1001"})
            [inbound] = await postmark.wait_for(lambda p: "FromFull" in p)
            [delivery] = await postmark.wait_for(lambda p: p.get("RecordType") == "Delivery")
            mail, event = await cloud.wait_for(lambda p: p["specversion"] == "1.0", 2)
            told = await webhooks.event("delivered")
            await gateway.send("user550@example.org")
            [bounce] = await postmark.wait_for(lambda p: p.get("RecordType") == "Bounce")
    assert bounce["From"] == "mox@localhost"
    assert delivery["Metadata"] == {"order": "1001"}
    assert delivery["MessageID"] == told["MessageID"]
    assert inbound["Headers"][0]["Name"] == "Return-Path"
    assert {mail["type"], event["type"]} == {"mail.incoming", "mail.outgoing.delivered"}
    assert {headers["content-type"] for headers in cloud.headers} == {
        "application/cloudevents+json; charset=utf-8"
    }


async def test_one_test_call_at_a_time(tmp_path: Path, webhooks: Receiver) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")  # it never answers
    silent = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"

    def change(raw: dict[str, Any]) -> None:
        raw["accounts"]["mox"]["webhooks"] = [{"url": silent}]

    async with running(tmp_path, webhooks, change=change) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(gateway.call, "WebhookTest", {"URL": silent})
        with trio.fail_after(PATIENCE):
            connection = await listeners[0].accept()
        refused = await gateway.api.post("WebhookTest", json={})
        assert (refused.status_code, refused.json()["Code"]) == (400, "user")
        assert "a test call of account 'mox' is under way" in refused.json()["Message"]
        await connection.aclose()  # now the first one is over
    await listeners[0].aclose()


def account(**more: Any) -> dict[str, Any]:
    return {
        "hostname": "gateway.example",
        "domains": {"example.org": {}},
        "accounts": {"shop": {"addresses": ["shop@example.org"], **more}},
    }


ONE = {"url": "https://shop.example.org/hook"}


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ({"webhooks": [ONE, ONE]}, "https://shop.example.org/hook would be called twice for 'delivered'"),
        ({"webhook_incoming": ONE, "webhooks": [ONE]}, "would be called twice for 'incoming'"),
        ({"webhooks": [{**ONE, "secrets": ["whsec_dG9vIHNob3J0"]}]}, "24 to 64 bytes in base64"),
        ({"webhooks": [{**ONE, "secrets": [SECRET[6:]]}]}, "a secret is whsec_ and"),
        ({"webhooks": [{**ONE, "secrets": [SECRET] * 3}]}, "at most 2 items"),
        ({"webhooks": [{**ONE, "events": ["opened"]}]}, "Input should be"),
    ],
)
def test_what_is_wrong_is_said(more: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match="validation error") as refused:
        Settings.model_validate(account(**more))
    assert wrong in str(refused.value)


def test_one_url_for_different_events_is_fine() -> None:
    targets = [{**ONE, "events": ["failed"]}, {**ONE, "events": ["delivered"], "format": "other"}]
    settings = Settings.model_validate(account(webhook_incoming=ONE, webhooks=targets)).accounts["shop"]
    for event, formats in (
        ("failed", ["mox"]),
        ("delivered", ["other"]),
        ("delayed", []),
        ("incoming", ["mox"]),
    ):
        assert [target.format for target in settings.webhook_targets(event)] == formats


async def test_a_format_that_nobody_writes_is_refused_at_start(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["accounts"]["mox"]["webhooks"] = [{**ONE, "format": "postmrk"}]

    with pytest.raises(ConfigError, match=r"accounts.mox: .* have the format 'postmrk', which no plugin"):
        async with running(tmp_path, webhooks, change=change):
            pass
