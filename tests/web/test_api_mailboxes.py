"""The methods that change messages: flags, mailboxes, deletion."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.mail.flags import MAX_FLAGS
from tests.web.test_api_messages import MESSAGE, store

CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("MessageDelete", {}),
    ("MessageFlagsAdd", {"Flags": ["\\seen"]}),
    ("MessageFlagsRemove", {"Flags": ["\\seen"]}),
    ("MessageMove", {"DestMailboxName": "Archive"}),
]


async def meta(api: Any) -> Any:
    return (await api.call("MessageGet", {"MsgID": 7})).json["Meta"]


async def test_delete(api: Any, form: str) -> None:
    store(api, MESSAGE)
    answer = await api.call("MessageDelete", {"MsgID": 7}, form)
    assert (answer.status, answer.json) == (200, {})
    for method in ("MessageDelete", "MessageGet"):
        assert (await api.call(method, {"MsgID": 7}, form)).error[0] == "messageNotFound"


async def test_flags(api: Any, form: str) -> None:
    store(api, MESSAGE, flags=("$junk",))
    for _ in range(2):
        answer = await api.call("MessageFlagsAdd", {"MsgID": 7, "Flags": ["\\SEEN", "orders"]}, form)
        assert (answer.status, answer.json) == (200, {})
        assert (await meta(api))["Flags"] == ["$junk", "\\seen", "orders"]
    for _ in range(2):
        answer = await api.call("MessageFlagsRemove", {"MsgID": 7, "Flags": ["$Junk", "Orders", "x"]}, form)
        assert (answer.status, answer.json) == (200, {})
        assert (await meta(api))["Flags"] == ["\\seen"]
    assert (await api.call("MessageFlagsAdd", {"MsgID": 7})).json == {}


@pytest.mark.parametrize("method", ["MessageFlagsAdd", "MessageFlagsRemove"])
async def test_what_is_no_flag(api: Any, method: str) -> None:
    store(api, MESSAGE)
    answer = await api.call(method, {"MsgID": 7, "Flags": ["ok", "\\recent"]})
    assert answer.error == (
        "user",
        r"Flags[1]: '\\recent' is no system flag; there are \answered, \deleted, \draft, \flagged, \seen",
    )
    for flags in (["a b"], ["ü"], [""], ["x" * 101], ["a"] * (MAX_FLAGS + 1)):
        assert (await api.call(method, {"MsgID": 7, "Flags": flags})).error[0] == "user"
    for wrong in ("\\seen", [7], {"\\seen": True}):
        assert (await api.call(method, {"MsgID": 7, "Flags": wrong})).error[0] == "protocol"
    assert (await meta(api))["Flags"] == []


async def test_too_many_flags(api: Any) -> None:
    store(api, MESSAGE)
    some = [f"a{n}" for n in range(MAX_FLAGS)]
    assert (await api.call("MessageFlagsAdd", {"MsgID": 7, "Flags": some})).status == 200
    code, text = (await api.call("MessageFlagsAdd", {"MsgID": 7, "Flags": ["more"]})).error
    assert (code, "at most 100 flags" in text) == ("user", True)
    assert len((await meta(api))["Flags"]) == MAX_FLAGS


async def test_move(api: Any, form: str) -> None:
    store(api, MESSAGE)
    for _ in range(2):
        answer = await api.call("MessageMove", {"MsgID": 7, "DestMailboxName": "Archive"}, form)
        assert (answer.status, answer.json) == (200, {})
        assert (await meta(api))["MailboxName"] == "Archive"


@pytest.mark.parametrize("name", ["", "Nowhere", "archive", "\u2028" * 3, "x" * 10_000])
async def test_move_to_no_mailbox(api: Any, name: str) -> None:
    store(api, MESSAGE)
    code, text = (await api.call("MessageMove", {"MsgID": 7, "DestMailboxName": name})).error
    assert code == "user"
    assert text.startswith("DestMailboxName: the account has no mailbox '")
    assert text.isprintable()


@pytest.mark.parametrize(("method", "fields"), CHANGES)
async def test_what_is_not_there_and_what_is_not_yours_look_the_same(
    api: Any, method: str, fields: dict[str, Any]
) -> None:
    store(api, MESSAGE, account="bea", msg_id=8)
    before = dict(api.messages.stored)
    answers = [await api.call(method, {"MsgID": n} | fields) for n in (8, 9, 0, -1, 2**63 - 1)]
    assert {answer.body for answer in answers} == {answers[0].body}
    assert answers[0].error[0] == "messageNotFound"
    assert api.messages.stored == before


@pytest.mark.parametrize(("method", "fields"), CHANGES)
async def test_store_away(api: Any, method: str, fields: dict[str, Any]) -> None:
    api.messages.error = StoreUnavailable("disk full")
    answer = await api.call(method, {"MsgID": 1} | fields)
    assert (answer.status, answer.json["Code"]) == (503, "server")
