"""Idempotency-Key, as webapi.md has it; tests/whole/test_idempotency.py has the gateway killed in between."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import trio

from gateway.errors import SubmissionRefused
from gateway.store.idempotency import Kept
from gateway.web.api import idempotency
from tests.commands import PATIENCE

HEAD = 'Content-Disposition: form-data; name="attachedfile"; filename="{}"\r\nContent-Type: text/plain'
BATCH = {
    "Messages": [
        {"To": [{"Address": "bob@example.com"}], "Text": "one"},
        {"To": [{"Address": "bob"}], "Text": "two"},
        {"To": [{"Address": "refused@example.com"}], "Text": "three"},
    ]
}


def key(value: str = "k1") -> dict[str, dict[str, str]]:
    return {"headers": {"Idempotency-Key": value}}


async def test_a_repeat_is_answered_as_the_first(api: Any, form: str) -> None:
    request = {"To": [{"Address": "bob@example.com"}], "Text": "hi", "Extra": {"a": "1", "b": "2"}}
    first = await api.call("Send", request, form, **key())
    assert first.status == 200
    again = await api.call("Send", request, form, **key())
    assert (again.status, again.json) == (200, first.json)
    # Compared as parsed: other forms, other spellings, another order of what has no order.
    other = {
        "text": "hi",
        "TO": [{"Name": None, "Address": "bob@example.com"}],
        "Extra": {"b": "2", "a": "1"},
    }
    for other_form in ("urlencoded", "multipart", "json"):
        assert (await api.call("Send", other, other_form, **key())).json == first.json
    assert len(api.submitter.submitted) == 1
    assert (await api.call("Send", request, form, **key("k2"))).json != first.json
    assert (await api.call("Send", request, form)).status == 200
    assert len(api.submitter.submitted) == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"Text": "ho"},
        {"Text": "hi", "HTML": "hi"},
        {"Text": "hi", "Date": "2026-01-01T00:00:00Z"},
        {"Text": "hi", "SaveSent": True},
        {"Text": "hi", "RequireTLS": False},
        {"Text": "hi", "AttachedFiles": [{"Name": "a", "Data": base64.b64encode(b"other").decode()}]},
    ],
)
async def test_another_request_with_the_same_key(api: Any, changed: dict[str, Any]) -> None:
    await api.send(Text="hi", **key())
    code, message = (await api.send(**changed, **key())).error
    assert (code, message) == ("badIdempotencyKey", "Idempotency-Key: k1 was used for another request")
    assert len(api.submitter.submitted) == 1


async def test_files_are_compared(api: Any) -> None:
    def files(name: str = "a", data: bytes = b"data") -> dict[str, Any]:
        return {"form": "multipart", "files": [(HEAD.format(name), data)], **key()}

    first = await api.send(**files())
    assert (await api.send(**files())).json == first.json
    for other in (files(name="b"), files(data=b"date"), key()):
        assert (await api.send(**other)).error[0] == "badIdempotencyKey"


async def test_large_requests_are_digested_beside_the_loop(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "DIGEST_HERE", 100)
    first = await api.send(Text="x" * 200, **key())
    assert (await api.send(Text="x" * 200, **key())).json == first.json
    assert (await api.send(Text="y" * 200, **key())).error[0] == "badIdempotencyKey"


async def test_keys_are_each_accounts_own_and_each_methods(api: Any) -> None:
    first = await api.call("SendBatch", BATCH, **key())
    assert (await api.send(**key())).error[0] == "badIdempotencyKey"
    api.login = "bea@example.org"
    assert (await api.send(**key())).status == 200
    assert (await api.call("SuppressionList", {}, **key())).status == 200  # keeps no answers: ignored
    assert first.status == 200


@pytest.mark.parametrize("value", ["", "k" * 256, "a\tb", "schl\xfcssel", "\x7f"])
async def test_what_no_key_is(api: Any, value: str) -> None:
    code, message = (await api.send(**key(value))).error
    assert code == "badIdempotencyKey"
    assert "1 to 255 printable ASCII" in message
    assert (await api.send(**key("k" * 255))).status == 200
    assert (await api.send(**key('~ !"{}'))).status == 200


async def test_what_queued_nothing_is_tried_again(api: Any) -> None:
    assert (await api.send(Text="", **key())).error[0] == "missingBody"
    api.submitter.error = SubmissionRefused("messageLimitReached", "no more today")
    assert (await api.send(**key())).error[0] == "messageLimitReached"
    api.submitter.error = None
    assert (await api.send(**key())).status == 200


async def test_queued_without_a_sent_copy_is_kept(api: Any) -> None:
    api.submitter.full = True
    first = await api.send(SaveSent=True, **key())
    api.submitter.full = False
    assert first.error[0] == "sentOverQuota"
    assert (await api.send(SaveSent=True, **key())).error == first.error
    assert len(api.submitter.submitted) == 1


async def test_a_batch_with_one_message_queued_is_kept_as_it_was(api: Any) -> None:
    first = await api.call("SendBatch", BATCH, **key())
    assert [set(result) for result in first.json["Results"]] == [
        {"MessageID", "Submissions"},
        {"Code", "Message"},
        {"Code", "Message"},
    ]
    assert [result.get("Code") for result in first.json["Results"]] == [
        None,
        "badAddress",
        "messageLimitReached",
    ]
    assert (await api.call("SendBatch", BATCH, **key())).json == first.json
    assert len(api.submitter.submitted) == 1
    refused = {"Messages": BATCH["Messages"][1:]}
    await api.call("SendBatch", refused, **key("k2"))
    assert ("ann", "k2") not in api.submitter.kept


async def test_a_concurrent_duplicate_waits_for_the_first(api: Any) -> None:
    submit = api.submitter.submit_together
    entered, go_on = trio.Event(), trio.Event()

    async def slow(*arguments: Any) -> Any:
        entered.set()
        await go_on.wait()
        return await submit(*arguments)

    api.submitter.submit_together = slow
    answers: list[Any] = []

    async def call() -> None:
        answers.append(await api.send(**key()))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await entered.wait()
            for _ in range(3):
                nursery.start_soon(call)
            assert (await api.call("SuppressionList", {})).status == 200  # others go on
            await trio.testing.wait_all_tasks_blocked()
            assert not answers
            go_on.set()
    assert [a.json for a in answers] == [answers[0].json] * 4
    assert len(api.submitter.submitted) == 1
    assert not api.app._idempotency_keys._turns


async def test_another_process_was_faster(api: Any) -> None:
    """What it was answered is in the store only when this one wants to write."""
    submit = api.submitter.submit_together

    async def slower(*arguments: Any) -> Any:
        [keep] = arguments[1:]
        result = {"MessageID": "<theirs@b.example>", "Submissions": []}
        api.submitter.kept["ann", keep.key] = Kept(keep.digest, result)
        return await submit(*arguments)

    api.submitter.submit_together = slower
    assert (await api.send(**key())).json["MessageID"] == "<theirs@b.example>"
