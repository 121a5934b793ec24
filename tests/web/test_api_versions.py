"""Send with Template, Variables, List and Unsubscribe: who gets what, and who learns of whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

from gateway.web.api import versions

BASE = {"web": {"base_url": "https://mail.example.org"}}
TEMPLATE = {"Name": "t", "Subject": "For {}", "Text": "Text {}\n", "HTML": "<p>{}</p>"}
THREE: dict[str, Any] = {
    "To": [{"Name": "Bob", "Address": "bob@example.com", "Variables": {"name": "Bob"}}],
    "CC": [{"Address": "cy@example.com", "Variables": {"name": "Cy", "vip": True}}],
    "BCC": [{"Address": "di@example.com", "Variables": {"name": "Di", "items": [{"price": 1.5}, None]}}],
}


@pytest.fixture
async def api(make_api: Callable[..., Any]) -> Any:
    api = make_api(**BASE)
    await api.call("TemplateSet", TEMPLATE)
    return api


async def send(api: Any, form: str = "json", **fields: Any) -> Any:
    return await api.call("Send", fields, form)


def parsed(api: Any) -> list[EmailMessage]:
    return [message_from_bytes(new.data, policy=policy.default) for new in api.submitter.submitted]


async def test_each_gets_its_own_and_nothing_of_others(api: Any, form: str) -> None:
    answer = await send(api, form, Template="t", Variables={"name": "you", "order": 7}, **THREE)
    assert answer.status == 200
    assert [s["Address"] for s in answer.json["Submissions"]] == [
        "bob@example.com",
        "cy@example.com",
        "di@example.com",
    ]
    bob, cy, di = parsed(api)
    assert (bob["To"], cy["To"], di["To"]) == ("Bob <bob@example.com>", "cy@example.com", "di@example.com")
    assert {message["Message-ID"] for message in (bob, cy, di)} == {answer.json["MessageID"]}
    for message, own in zip((bob, cy, di), ("Bob", "Cy", "Di"), strict=True):
        assert message["Cc"] is None
        assert message["Bcc"] is None
        text = message.get_body(("plain",))
        assert text is not None
        given = json.loads(text.get_content().removeprefix("Text "))
        assert (given["name"], given["order"]) == (own, 7)
        assert message["Subject"].startswith("For {")
        whole = message.as_bytes().lower()
        for other in {"bob", "cy", "di"} - {own.lower()}:
            assert f"{other}@example.com".encode() not in whole
    assert json.loads(di.get_body(("plain",)).get_content()[5:])["items"] == [{"price": 1.5}, None]  # type: ignore[union-attr]
    assert [new.subject for new in api.submitter.submitted] == [m["Subject"] for m in (bob, cy, di)]
    # Who knows the Message-ID may be any of them.
    assert not any(new.made_message_id for new in api.submitter.submitted)


async def test_one_recipient_alone_has_a_secret_message_id(api: Any) -> None:
    await send(api, Template="t", To=[{"Address": "bob@example.com"}])
    assert api.last.made_message_id


async def test_unsubscribe(api: Any) -> None:
    request: dict[str, Any] = {
        field: [{"Address": entry["Address"]} for entry in entries] for field, entries in THREE.items()
    }
    request |= {"Subject": "hi", "Text": "hello", "List": "news", "Unsubscribe": True, "SaveSent": True}
    answer = await send(api, **request)
    assert answer.status == 200
    for name, message, new in zip(("bob", "cy", "di"), parsed(api), api.submitter.submitted, strict=True):
        assert message["List-Unsubscribe"] == (
            f"<https://mail.example.org/unsubscribe/news-{name}@example.com>"
        )
        assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in new.data
        assert new.list_name == "news"
        assert new.sent_copy == new.data


async def test_a_list_alone_changes_nothing_of_the_message(api: Any) -> None:
    await send(api, Text="hello", List="news", To=[{"Address": "a@b.example"}, {"Address": "c@d.example"}])
    [new] = api.submitter.submitted
    assert (new.list_name, len(new.recipients)) == ("news", 2)
    assert b"List-" not in new.data


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"Template": "other"}, "user", "Template: there is no template 'other' in your account"),
        ({"Template": "t", "Subject": "x"}, "user", "Subject: the template has it"),
        ({"Template": "t", "HTML": "x"}, "user", "HTML: the template has it"),
        ({"Text": "x", "Variables": {"a": 1}}, "user", "Variables: they are for a Template"),
        (
            {"Text": "x", "To": [{"Address": "a@b.example", "Variables": {"a": 1}}]},
            "user",
            "Variables: they are for a Template",
        ),
        ({}, "missingBody", "a message needs Text or HTML, or a Template"),
        ({"Template": "t", "Variables": {"bad": 1}}, "user", "template 't', Text, line 1: bad"),
        ({"Template": "t", "Variables": []}, "protocol", "Variables: is a list; expected an object"),
        ({"Text": "x", "List": "a b"}, "user", "List: must be"),
        (
            {"Text": "x", "Unsubscribe": True, "Headers": [["list-unsubscribe", "<https://x>"]]},
            "user",
            "Headers[0]: list-unsubscribe is set by Unsubscribe",
        ),
    ],
)
async def test_refusals(api: Any, fields: dict[str, Any], code: str, said: str) -> None:
    answer = await send(api, **({"To": [{"Address": "a@b.example"}]} | fields))
    assert answer.error[0] == code
    assert said in answer.error[1]
    assert api.submitter.submitted == []


async def test_what_a_template_makes_is_checked_as_if_it_was_written(api: Any) -> None:
    await api.call("TemplateSet", TEMPLATE | {"Subject": "two\nlines"})
    code, message = (await send(api, Template="t", **THREE)).error
    assert (code, message.partition(":")[0]) == ("user", "To[0]")
    assert "this recipient's Subject: " in message
    assert api.submitter.submitted == []


async def test_no_address_for_links(make_api: Callable[..., Any]) -> None:
    api = make_api()
    code, message = (await send(api, Text="x", Unsubscribe=True, To=[{"Address": "a@b.example"}])).error
    assert code == "user"
    assert "web.base_url" in message


async def test_all_versions_together_are_bounded(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "MAX_TOGETHER", 10_000)
    to = [{"Address": f"u{i}@b.example"} for i in range(20)]
    request: dict[str, Any] = {"Text": "x" * 1000, "Unsubscribe": True, "To": to}
    assert (await send(api, **request)).error[0] == "messageTooLarge"
    assert (await send(api, **(request | {"Unsubscribe": False}))).status == 200
    batch = {"Messages": [request | {"To": to[:5]}] * 3}
    results = (await api.call("SendBatch", batch)).json["Results"]
    assert ["MessageID" in result for result in results] == [True, False, False]


async def test_in_a_batch(api: Any) -> None:
    good = {"Template": "t", **THREE}
    bad = good | {"Variables": {"bad": 1}}
    refused = good | {"To": [{"Address": "refused@example.com"}]}
    answer = await api.call("SendBatch", {"Messages": [good, bad, refused, good]})
    codes = [result.get("Code", "sent") for result in answer.json["Results"]]
    assert codes == ["sent", "user", "messageLimitReached", "sent"]
    assert [len(result.get("Submissions", ())) for result in answer.json["Results"]] == [3, 0, 0, 3]
    assert len(api.submitter.submitted) == 6  # all copies of a message, or none


async def test_the_order_of_variables_does_not_matter_to_an_idempotency_key(api: Any) -> None:
    headers = {"Idempotency-Key": "k"}
    to = '"Template": "t", "To": [{"Address": "a@b.example"}]'
    one = f'{{"Variables": {{"a": {{"x": 1, "y": 2}}, "b": 3}}, {to}}}'
    two = f'{{"Variables": {{"b": 3, "a": {{"y": 2, "x": 1}}}}, {to}}}'
    first = await api.text("Send", one, headers=headers)
    again = await api.text("Send", two, headers=headers)
    assert first.status == 200
    assert first.json == again.json
    assert len(api.submitter.submitted) == 1
    other = await api.text("Send", two.replace("3", "4"), headers=headers)
    assert other.error[0] == "badIdempotencyKey"
