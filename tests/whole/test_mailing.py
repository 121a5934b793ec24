"""A mailing with a template and one-click unsubscribe, from TemplateSet to what the next message meets."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from pathlib import Path

import httpx

from tests.running import PATIENCE, receiving, running
from tests.whole.test_delivery import verified


async def test_a_mailing(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        template = {
            "Name": "news",
            "Subject": "News for {{ name }}",
            "Text": "Hi {{ name }}",
            "HTML": "<p>Hi {{ name }}, see {{ link }}</p>",
        }
        await gateway.call("TemplateSet", template)
        to = [
            {"Address": "mox+ann@localhost", "Variables": {"name": "Ann & Co"}},
            {"Address": "mox+bob@localhost", "Variables": {"name": "Bob"}},
        ]
        mailing = {
            "To": to,
            "Template": "news",
            "Variables": {"link": "<here>"},
            "List": "news",
            "Unsubscribe": True,
        }
        sent = await gateway.call("Send", mailing)
        assert len(sent["Submissions"]) == 2
        incoming = await webhooks.incoming(2)
        links = {}
        for payload in incoming:
            data = await gateway.raw(payload["Meta"]["MsgID"])
            message = message_from_bytes(data, policy=policy.default)
            name = {"mox+ann@localhost": "Ann & Co", "mox+bob@localhost": "Bob"}[payload["Meta"]["RcptTo"]]
            assert message["Subject"] == f"News for {name}"
            assert message["To"] == payload["Meta"]["RcptTo"]
            shown = message.get_body(("html",))
            assert shown is not None
            assert shown.get_content().strip() == f"<p>Hi {name.replace('&', '&amp;')}, see &lt;here&gt;</p>"
            links[name] = message["List-Unsubscribe"].strip("<>")
            assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
            verified(data, gateway.directory)
            [signature] = re.findall(rb"(?s)DKIM-Signature: (.*?)\r\n\S", data)
            signed = re.sub(rb"\s", b"", signature).lower()
            assert b":list-unsubscribe:" in signed
            assert b"list-unsubscribe-post" in signed
        assert links["Bob"] != links["Ann & Co"]
        # The URL is as the configuration has it, which names the port that the gateway listens on.
        async with httpx.AsyncClient(timeout=PATIENCE) as browser:
            page = await browser.get(links["Bob"])
            assert (page.status_code, "Unsubscribe" in page.text) == (200, True)
            assert (await gateway.call("SuppressionList", {}))["Suppressions"] == []
            for _ in range(2):
                done = await browser.post(links["Bob"], data={"List-Unsubscribe": "One-Click"})
                assert done.status_code == 200
            forged = links["Bob"][:-1] + ("A" if links["Bob"][-1] != "A" else "B")
            assert (await browser.post(forged, data={"List-Unsubscribe": "One-Click"})).status_code == 404
        told = await webhooks.event("unsubscribed")
        ids = {s["Address"]: s["QueueMsgID"] for s in sent["Submissions"]}
        assert told["QueueMsgID"] == ids["mox+bob@localhost"]
        assert (told["Recipient"], told["Suppressing"]) == ("mox+bob@localhost", True)
        assert told["MessageID"] == sent["MessageID"]
        [entry] = (await gateway.call("SuppressionList", {}))["Suppressions"]
        assert (entry["List"], entry["OriginalAddress"]) == ("news", "mox+bob@localhost")

        # mox@localhost is the base address of both, and of the sender: all of that list is suppressed, and
        # what belongs to another, or to none, goes out.
        again = await gateway.call("Send", mailing)
        for submission in again["Submissions"]:
            await webhooks.event("suppressed", QueueMsgID=submission["QueueMsgID"])
        for other in ({"List": "offers"}, {}):
            fine = await gateway.send("mox+bob@localhost", **other)
            await webhooks.event("delivered", QueueMsgID=fine["Submissions"][0]["QueueMsgID"])
        assert len([p for p in webhooks.got if p.get("Event") == "unsubscribed"]) == 1
