"""MessageList."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.mailbox_listing import MessageFilter
from tests.web.test_api_messages import MESSAGE, store


async def test_list(api: Any, form: str) -> None:
    store(api, MESSAGE, flags=("\\seen",))
    store(api, MESSAGE, account="bea", msg_id=8)
    answer = await api.call("MessageList", {}, form)
    [one] = answer.json["Messages"]
    meta = (await api.call("MessageGet", {"MsgID": 7})).json["Meta"]
    assert one == {
        "MsgID": 7,
        "Received": "2026-01-31T00:00:00Z",
        "MessageID": "<7>",
        "Subject": "About",
        "Meta": meta,
    }
    assert answer.json["NextCursor"] == ""
    assert api.messages.wanted == MessageFilter()


async def test_the_filter(api: Any, form: str) -> None:
    request = {
        "MailboxName": "Inbox",
        "Flags": ["\\Seen", "Orders"],
        "NotFlags": ["$JUNK"],
        "From": "ada",
        "To": "@example.org",
        "Subject": "Grüße",
        "Since": "2026-01-31T08:00:00+01:00",
        "Before": "2026-02-01T00:00:00Z",
    }
    assert (await api.call("MessageList", request, form)).json == {"Messages": [], "NextCursor": ""}
    assert api.messages.wanted == MessageFilter(
        mailbox="Inbox",
        flags=frozenset({"\\seen", "orders"}),
        not_flags=frozenset({"$junk"}),
        from_="ada",
        to="@example.org",
        subject="Grüße",
        since=datetime(2026, 1, 31, 7, tzinfo=UTC),
        before=datetime(2026, 2, 1, tzinfo=UTC),
    )


async def test_pages(api: Any) -> None:
    for n in range(1, 6):
        store(api, MESSAGE, msg_id=n)
    cursor, pages = "", []
    while True:
        answer = (await api.call("MessageList", {"Max": 2, "Cursor": cursor})).json
        pages.append([one["MsgID"] for one in answer["Messages"]])
        cursor = answer["NextCursor"]
        if not cursor:
            break
    assert pages == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"MailboxName": "Nowhere"}, "MailboxName: the account has no mailbox 'Nowhere'"),
        ({"Cursor": "nonsense"}, "Cursor: is none that a page ended with"),
        ({"Max": 1001}, "Max: must be from 1 to 1000, or 0 for 100"),
        ({"Max": -1}, "Max: must be from 1 to 1000, or 0 for 100"),
        ({"From": "x" * 201}, "From: at most 200 characters can be looked for"),
        ({"To": "x" * 201}, "To: at most 200 characters can be looked for"),
        ({"Subject": "x" * 201}, "Subject: at most 200 characters can be looked for"),
        ({"NotFlags": ["a", "b b"]}, "NotFlags[1]: 'b b' is no keyword"),
        ({"Flags": ["a"] * 101}, "Flags: at most 100 at a time"),
    ],
)
async def test_what_cannot_be_asked_for(api: Any, request_: dict[str, Any], text: str) -> None:
    code, message = (await api.call("MessageList", request_)).error
    assert code == "user"
    assert message.startswith(text)


async def test_store_away(api: Any) -> None:
    api.messages.error = StoreUnavailable("disk full")
    answer = await api.call("MessageList", {})
    assert (answer.status, answer.json["Code"]) == (503, "server")
