"""The account's own queue and events over the API, of a whole gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import Receiver, Running, receiving, running


@pytest.fixture
async def webhooks() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def with_another_account(raw: dict[str, Any]) -> None:
    raw["accounts"]["other"] = {"addresses": ["other@localhost"]}


async def events(
    gateway: Running, cursor: str = "", maximum: int = 100, *names: str
) -> tuple[list[Any], str]:
    answer = await gateway.call("EventList", {"Cursor": cursor, "Max": maximum, "Events": list(names)})
    return answer["Events"], answer["NextCursor"]


async def test_a_queue_of_ones_own(tmp_path: Path, webhooks: Receiver) -> None:
    async with running(tmp_path, webhooks, change=with_another_account) as gateway:
        await gateway.gateway.authenticator.set_password("other", "another secret")
        await gateway.gateway.holding.add("", "", "held.example")
        ids = [
            (await gateway.send(f"u{i}@held.example", Subject=f"s{i}"))["Submissions"][0]["QueueMsgID"]
            for i in range(5)
        ]
        others = await gateway.api.post(
            "Send",
            json={"To": [{"Address": "x@held.example"}], "Text": "x"},
            auth=("other@localhost", "another secret"),
        )
        theirs = others.json()["Submissions"][0]["QueueMsgID"]

        # Pages, both ways, of this account only.
        found, cursor = [], ""
        while True:
            page = await gateway.call(
                "QueueList", {"Sort": "Queued", "Asc": True, "Max": 2, "Cursor": cursor}
            )
            found += [message["ID"] for message in page["Messages"]]
            cursor = page["NextCursor"]
            if not cursor:
                break
        assert found == ids
        [newest] = (await gateway.call("QueueList", {"Sort": "Queued", "Max": 1}))["Messages"]
        assert (newest["ID"], newest["Hold"], newest["SenderAccount"]) == (ids[-1], True, "mox")

        # Another account's messages cannot be seen, released or canceled.
        answer = await gateway.api.post("QueueGet", json={"QueueMsgID": theirs})
        assert answer.json()["Code"] == "messageNotFound"
        for action in ("QueueRelease", "QueueHold", "QueueCancel"):
            assert await gateway.call(action, {"Filter": {"IDs": [theirs]}}) == {"Affected": 0}

        assert await gateway.call("QueueRelease", {"Filter": {"To": "u0@held"}}) == {"Affected": 1}
        delivered = await webhooks.event("delivered", QueueMsgID=ids[0])
        assert await gateway.call("QueueCancel", {"Filter": {"IDs": ids[1:3]}}) == {"Affected": 2}
        canceled = [await webhooks.event("canceled", QueueMsgID=i) for i in ids[1:3]]
        assert canceled[0]["Error"] == "canceled by the account"
        assert await gateway.call("QueueHold", {"Filter": {"IDs": ids}}) == {"Affected": 0}

        got = await gateway.call("QueueGet", {"QueueMsgID": ids[0]})
        assert got["Message"]["State"] == "retired"
        assert got["Message"]["RetiredAs"] == "delivered"
        assert [(a["Success"], a["Transport"]) for a in got["Attempts"]] == [(True, "localserve")]
        assert got["Events"] == [delivered]

        # The events are what the webhooks told, in order; a cursor goes on where the last page ended.
        [looped] = await webhooks.incoming()  # localserve delivers to itself
        told, cursor = await events(gateway)
        assert [e for e in told if "Event" in e] == [delivered, *canceled]
        assert [e for e in told if "Event" not in e] == [looped]
        assert await events(gateway, cursor) == ([], cursor)
        first, middle = await events(gateway, "", 1)
        assert first == told[:1]
        assert (await events(gateway, middle))[0] == told[1:]
        assert (await events(gateway, "", 100, "canceled"))[0] == canceled
        await gateway.mail(b"From: a@example.org\r\nSubject: in\r\n\r\nhello\r\n")
        _, incoming = await webhooks.incoming(2)
        assert await events(gateway, cursor) == await events(gateway, cursor, 1, "incoming")
        assert (await events(gateway, cursor))[0] == [incoming]
        await gateway.call("MessageDelete", {"MsgID": incoming["Meta"]["MsgID"]})
        assert (await events(gateway, cursor))[0] == []
        wrong = await gateway.api.post("EventList", json={"Cursor": "nonsense"})
        assert wrong.json()["Code"] == "user"
        mine = await gateway.api.post("EventList", json={}, auth=("other@localhost", "another secret"))
        assert mine.json() == {"Events": [], "NextCursor": ""}
