"""QueueList and its neighbours, and EventList: what their requests mean, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.durations import parse_bound, parse_duration
from gateway.outbound.account_queue import History
from gateway.store import events, listing
from gateway.store.listing import Filter, Page
from gateway.webhooks.calling import NoPayload
from tests.store import sample
from tests.web.conftest import NOW


def stored() -> History:
    """A message with a failed attempt and its event, as the store has them."""
    with sample.database() as conn:
        [claimed] = (sample.add(conn, extra={"k": "v"}), sample.claim(conn))[1]
        sample.settle_one(conn, sample.delayed(claimed, sample.at(450)), sample.at(1))
        found = listing.get(conn, claimed.message.id)
        assert found is not None
        return History(*found, events.of_message(conn, claimed.message.id))


async def test_list(api: Any, form: str) -> None:
    api.queue.answer = Page((stored().item,), "next")
    filter_ = {
        "IDs": [1, 2, 1], "From": "a", "To": "b", "Hold": False, "Submitted": "<-1h", "NextAttempt": ">now",
        "MessageID": "m@b.example", "FromID": "f", "State": "queued", "Success": True,
    }  # fmt: skip
    request = {"Filter": filter_, "Sort": "Queued", "Asc": True, "Cursor": "c", "Max": 7}
    answer = (await api.call("QueueList", request, form)).json
    assert answer["NextCursor"] == "next"
    [message] = answer["Messages"]
    assert (message["SenderAccount"], message["RecipientDomain"], message["Extra"]) == (
        "shop", "example.net", {"k": "v"},
    )  # fmt: skip
    assert message["NextAttempt"] == "2030-05-01T12:07:30Z"
    assert message["Success"] is message["LastActivity"] is None
    [(_, account, wanted, how)] = api.queue.asked
    assert (account, how) == ("ann", {"sort": "queued", "ascending": True, "cursor": "c", "maximum": 7})
    assert wanted == Filter(
        ids=(1, 2), from_="a", to="b", hold=False, submitted_before=NOW - timedelta(hours=1),
        next_attempt_after=NOW, message_id="<m@b.example>", from_id="f", state="queued", success=True,
    )  # fmt: skip


async def test_list_of_everything(api: Any) -> None:
    for request in ({}, {"Filter": None}, {"filter": {"ids": None, "hold": None}}):
        assert (await api.call("QueueList", request)).json == {"Messages": [], "NextCursor": ""}
        *_, wanted, how = api.queue.asked[-1]
        assert wanted == Filter()
        assert how == {"sort": "next_attempt", "ascending": False, "cursor": "", "maximum": 100}


@pytest.mark.parametrize(
    ("request_", "code", "begins"),
    [
        ({"Sort": "Size"}, "user", "Sort: "),
        ({"Cursor": "wrong"}, "user", "Cursor: "),
        ({"Max": 1001}, "user", "Max: "),
        ({"Max": -1}, "user", "Max: "),
        ({"Filter": {"State": "sent"}}, "user", "Filter.State: "),
        ({"Filter": {"Submitted": "-1h"}}, "user", "Filter.Submitted: '-1h' must start with"),
        ({"Filter": {"NextAttempt": "<soon"}}, "user", "Filter.NextAttempt: 'soon' is no duration"),
        ({"Filter": {"NextAttempt": ">99999d"}}, "user", "Filter.NextAttempt: '99999d' is too long"),
        ({"Filter": {"To": "x" * 501}}, "user", "Filter.To: "),
        ({"Filter": {"FromID": "\0"}}, "user", "Filter.FromID: "),
        ({"Filter": {"IDs": list(range(10_001))}}, "user", "Filter.IDs: at most 10000"),
        ({"Filter": {"IDs": ["1"]}}, "protocol", "Filter.IDs[0]: "),
        ({"Filter": {"Account": "bea"}}, "protocol", "Filter: unknown key 'Account'"),
        ({"Filter": []}, "protocol", "Filter: is a list; expected an object"),
    ],
)
async def test_refused(api: Any, request_: dict[str, Any], code: str, begins: str) -> None:
    said, message = (await api.call("QueueList", request_)).error
    assert (said, message[: len(begins)]) == (code, begins)


@pytest.mark.parametrize(("method", "number"), [("hold", 1), ("release", 2), ("cancel", 3)])
async def test_actions(api: Any, method: str, number: int) -> None:
    name = f"Queue{method.title()}"
    assert (await api.call(name, {"Filter": {"IDs": [5]}})).json == {"Affected": number}
    assert api.queue.asked == [(method, "ann", Filter(ids=(5,)), {})]
    empty: dict[str, Any]
    for empty in ({}, {"Filter": {}}, {"Filter": {"IDs": [], "State": "queued", "From": ""}}):
        code, message = (await api.call(name, empty)).error
        assert (code, message.partition(":")[0]) == ("user", "Filter")
    # As the error says, this is how to mean everything.
    assert (await api.call(name, {"Filter": {"NextAttempt": ">-3650d"}})).json == {"Affected": number}
    assert len(api.queue.asked) == 2


async def test_get(api: Any) -> None:
    history = stored()
    relayed = replace(history.events[0], name="relayed")  # of which the fake format has nothing
    api.queue.history["ann", 1] = replace(history, events=(*history.events, relayed))
    answer = (await api.call("QueueGet", {"QueueMsgID": 1})).json
    assert list(answer) == ["Message", "Attempts", "Events"]
    assert answer["Message"]["ID"] == history.item.message.id
    assert answer["Events"] == [{"Event": "delayed"}]
    [attempt] = answer["Attempts"]
    assert list(attempt) == [
        "Start", "Duration", "Success", "Code", "EnhancedCode", "Error", "Transport", "RemoteMTA", "RemoteIP",
        "TLS", "Transcript",
    ]  # fmt: skip
    assert (attempt["Success"], attempt["Code"]) == (False, 451)
    for request in ({}, {"QueueMsgID": 2}):
        assert (await api.call("QueueGet", request)).error[0] == "messageNotFound"
    api.login = "bea@example.org"
    assert (await api.call("QueueGet", {"QueueMsgID": 1})).error[0] == "messageNotFound"


async def test_events(api: Any, form: str) -> None:
    answer = await api.call(
        "EventList", {"Cursor": "c", "Max": 5, "Events": ["failed", "incoming", "failed"]}, form
    )
    assert answer.json == {"Events": [{"Event": "delivered"}], "NextCursor": "after"}
    await api.call("EventList", {})
    assert api.events.asked == [("ann", "c", 5, ("failed", "incoming")), ("ann", "", 100, ())]
    code, message = (await api.call("EventList", {"Events": ["failed", "bounced"]})).error
    assert (code, message.partition(":")[0]) == ("user", "Events[1]")
    assert (await api.call("EventList", {"Max": 1001})).error[0] == "user"
    api.events.error = ValueError("cursor 'x' is none that a page ended with")
    assert (await api.call("EventList", {"Cursor": "x"})).error[0] == "user"
    api.events.error = NoPayload("the payload was not made")
    assert (await api.call("EventList", {})).error == ("server", "the payload was not made")


def test_durations() -> None:
    assert parse_duration("1h30m") == timedelta(minutes=90)
    assert parse_duration("0.5d") == timedelta(hours=12)
    assert parse_bound("<now") == ("<", timedelta())
    assert parse_bound("> -2w") == (">", timedelta(weeks=-2))
    for wrong in ("", "now", "=1h", "<", "<1", "<h", "<1h-", "<--1h", "<1e9d", ">" + "9" * 400 + "d"):
        with pytest.raises(ValueError, match=r"must start|is no duration|is too long"):
            parse_bound(wrong)
