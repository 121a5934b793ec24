"""Of two accounts one has a plugin set of its own: its mail goes another way, the other's as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.clock import ManualClock
from tests.running import Receiver, running
from tests.thirdparty.gateways import add_account, send_as, usual, with_sets

ACME = [
    "acme.screening",
    "acme.seal",
    "acme.quarantine",
    "acme.routing",
    "acme.trace",
    "acme.patience",
    "acme.journal",
    "acme.chat",
]
SETTINGS: dict[str, dict[str, Any]] = {
    "acme.screening": {"refused_words": ["lottery"]},
    "acme.seal": {"key": "secret"},
    "acme.quarantine": {"domains": ["held.example"]},
    "acme.routing": {"domains": {"files.example": "files"}},
    "acme.trace": {"file": "trace.log"},
    "acme.patience": {"intervals": [5.0]},
    "acme.journal": {"file": "journal.jsonl"},
}


async def test_two_accounts(tmp_path: Path, webhooks: Receiver) -> None:
    drop = tmp_path / "drop"

    def change(raw: dict[str, Any]) -> None:
        transports = {"files": {"type": "maildrop", "directory": "drop"}}
        # Types of transports are the whole gateway's.
        with_sets(
            [*usual(), "acme.transports"],
            SETTINGS,
            {"acme": [*ACME, *usual(without=("localserve",))]},
            transports=transports,
        )(raw)
        add_account(raw, "acme", plugin_set="acme")

    clock = ManualClock()
    async with running(tmp_path, webhooks, change=change, clock=clock) as gateway:
        # Submission.
        assert (await send_as(gateway, "acme", Subject="lottery"))["Code"] == "rejected"
        await gateway.send(Subject="lottery")
        # Hold.
        await send_as(gateway, "acme", "user@held.example")
        await gateway.send("user@held.example")
        assert [m.message.account for m in await gateway.messages(hold=True)] == ["acme"]
        # Route.
        await send_as(gateway, "acme", "user@files.example")
        await gateway.send("user@files.example")
        # Retry.
        await send_as(gateway, "acme", "vtemperror@example.org")
        await gateway.send("vtemperror@example.org")

        arrived = await webhooks.wait_for(lambda p: "Meta" in p, 3)
        assert {p["From"][0]["Address"] for p in arrived} == {"mox@localhost"}
        for payload in arrived:
            assert b"X-Acme-Seal" not in await gateway.raw(payload["Meta"]["MsgID"])
        await webhooks.event("delayed", Recipient="vtemperror@example.org")
        # Webhooks: the chat's are the other account's only.
        await webhooks.wait_for(lambda p: "text" in p, 2)
        chat = {p["text"] for p in webhooks.got if "text" in p}
        assert chat == {
            "delivered: hi to user@files.example",
            "delayed: hi to vtemperror@example.org",
        }

        waits = {
            m.message.account: (m.message.next_attempt - clock.now()).total_seconds()
            for m in await gateway.messages(to="vtemperror")
        }
        assert waits["acme"] == 5.0
        assert waits["mox"] > 400

        # Event.
        journal = tmp_path / "journal.jsonl"

        async def told() -> int:
            return len(journal.read_text().splitlines()) if journal.exists() else 0

        await gateway.until(told, 2)
        assert {line["account"] for line in map(json.loads, journal.read_text().splitlines())} == {"acme"}

    [filed] = drop.iterdir()
    assert filed.read_bytes().count(b"X-Acme-Seal") == 1
    assert sorted((tmp_path / "trace.log").read_text().splitlines()) == [
        "begin user@files.example",
        "begin vtemperror@example.org",
        "end user@files.example",
        "end vtemperror@example.org",
    ]
