"""SendBatch: results in order, each message by itself; what a batch may hold."""

from __future__ import annotations

from typing import Any

from gateway.web.api.send import MAX_BATCH, MAX_BATCH_RECIPIENTS


def message(to: str = "bob@example.com", **fields: Any) -> dict[str, Any]:
    return {"To": [{"Address": to}], "Subject": "Hi", "Text": "Hello\n"} | fields


async def test_results_are_in_order(api: Any, form: str) -> None:
    batch = [
        message("b0@Example.com"),
        message(Text=""),
        message("b2@example.com", CC=[{"Address": "c2@example.com"}]),
        message(From=[{"Address": "eve@example.net"}]),
        message(MessageID="x"),
        message(AttachedFiles=[{"Data": "?"}]),
        message("refused@example.com"),
        message("b7@example.com"),
    ]
    results = (await api.call("SendBatch", {"Messages": batch}, form)).json["Results"]
    assert [r.get("Code") for r in results] == [
        None, "missingBody", None, "badFrom", "malformedMessageID", "protocol", "messageLimitReached", None,
    ]  # fmt: skip
    assert [[s["Address"] for s in r["Submissions"]] for r in results if "Code" not in r] == [
        ["b0@Example.com"],
        ["b2@example.com", "c2@example.com"],
        ["b7@example.com"],
    ]
    assert results[3] == {
        "Code": "badFrom",
        "Message": "From[0].Address: eve@example.net is not an address of your account",
    }
    assert len(api.submitter.submitted) == 3
    assert len({r["MessageID"] for r in results if "Code" not in r}) == 3


async def test_no_messages(api: Any) -> None:
    assert (await api.call("SendBatch", {})).json == {"Results": []}


async def test_500_messages_are_the_most(api: Any) -> None:
    assert MAX_BATCH == 500
    answer = await api.call("SendBatch", {"Messages": [message()] * 500})
    assert len(answer.json["Results"]) == len(api.submitter.submitted) == 500
    code, text = (await api.call("SendBatch", {"Messages": [message()] * 501})).error
    assert (code, text) == ("user", "Messages: 501 messages; at most 500")


async def test_recipients_of_a_batch(api: Any) -> None:
    many = [{"Address": f"u{i}@example.com"} for i in range(1000)]
    five = [message(To=many)] * (MAX_BATCH_RECIPIENTS // 1000)
    assert (await api.call("SendBatch", {"Messages": five})).status == 200
    code, text = (await api.call("SendBatch", {"Messages": [*five, message()]})).error
    assert code == "user"
    assert "5001 recipients" in text


async def test_a_wrong_type_is_of_the_whole_batch(api: Any) -> None:
    code, text = (await api.call("SendBatch", {"Messages": [message(), message(Subjekt="x")]})).error
    assert code == "protocol"
    assert "Messages[1]" in text
    assert not api.submitter.submitted


async def test_no_parts_with_files(api: Any) -> None:
    head = 'Content-Disposition: form-data; name="attachedfile"'
    answer = await api.call("SendBatch", {"Messages": [message()]}, "multipart", files=[(head, b"x")])
    assert answer.error == ("protocol", "form: SendBatch takes no files")
