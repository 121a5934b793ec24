"""MessagePartGet."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from tests.web.test_api_messages import MESSAGE, store


def with_file(encoding: str, body: bytes, before: bytes = b"") -> bytes:
    head = b"Content-Type: multipart/mixed; boundary=B\r\n\r\n" + before + b"\r\n--B\r\n"
    file = b"Content-Type: Image/PNG\r\nContent-Transfer-Encoding: " + encoding.encode() + b"\r\n\r\n"
    return head + file + body + b"\r\n--B\r\n\r\nafter it\r\n--B--\r\n"


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ([0], "text/plain", b"Hi!\r\n"),
        ([1], "application/pdf", b"1234"),
        ([], "multipart/mixed", MESSAGE.partition(b"\r\n\r\n")[2]),
    ],
)
async def test_parts(api: Any, form: str, path: list[int], content_type: str, body: bytes) -> None:
    store(api, MESSAGE)
    answer = await api.call("MessagePartGet", {"MsgID": 7, "PartPath": path}, form)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers == {
        "content-type": content_type,
        "content-length": str(len(body)),
        "content-disposition": "attachment",
        "content-security-policy": "sandbox",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }


async def test_the_sizes_are_those_of_the_structure(api: Any) -> None:
    store(api, MESSAGE)
    parts = (await api.call("MessageGet", {"MsgID": 7})).json["Structure"]["Parts"]
    for index, part in enumerate(parts):
        answer = await api.call("MessagePartGet", {"MsgID": 7, "PartPath": [index]})
        assert len(answer.body) == part["DecodedSize"]


@pytest.mark.parametrize("path", [[2], [-1], [0, 0], [1, 0], [2**63 - 1], [-(2**63)], [0] * 5000])
async def test_no_such_part(api: Any, path: list[int]) -> None:
    store(api, MESSAGE)
    code, text = (await api.call("MessagePartGet", {"MsgID": 7, "PartPath": path})).error
    assert (code, text.partition(":")[0]) == ("partNotFound", "PartPath")


@pytest.mark.parametrize("path", [["0"], [0.5], 0, "", [[0]], [2**63]])
async def test_what_is_no_path(api: Any, path: Any) -> None:
    store(api, MESSAGE)
    answer = await api.call("MessagePartGet", {"MsgID": 7, "PartPath": path})
    assert answer.error[0] == "protocol"


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit", "x-unknown"])
async def test_large_parts_are_decoded_piece_by_piece(api: Any, encoding: str) -> None:
    data = random.Random(1).randbytes(300_000)
    match encoding:
        case "base64":
            body = base64.encodebytes(data).replace(b"\n", b"\r\n")
        case "quoted-printable":
            body = b"".join(
                b"=%02X" % octet + (b"=\r\n" if n % 20 == 0 else b"") for n, octet in enumerate(data)
            )
        case _:
            body = data = data.replace(b"--B", b"xxx")
    # Its place in the pieces that are read is any.
    store(api, with_file(encoding, body, b"preamble" * 9000))
    answer = await api.call("MessagePartGet", {"MsgID": 7, "PartPath": [0]})
    assert api.offload.runs == ["locate_part"]
    assert answer.headers["content-type"] == "image/png"
    assert answer.body == data
    last = await api.call("MessagePartGet", {"MsgID": 7, "PartPath": [1]})
    assert (last.headers["content-type"], last.body) == ("text/plain", b"after it")


@pytest.mark.parametrize(
    "data", [b"", b"\r\n", b"no header", b"\xff\x00" * 99, b"Content-Type: a/b\nx: y\r\n\r\n\0"]
)
async def test_any_message_has_a_body(api: Any, data: bytes) -> None:
    store(api, data)
    answer = await api.call("MessagePartGet", {"MsgID": 7})
    assert answer.status == 200
    assert data.endswith(answer.body)


@pytest.mark.parametrize(
    "value", [b'text/html; x="\r\nSet-Cookie: a"', b"text/h\x00tml", b"text/\xfc", b"/", b"a"]
)
async def test_a_content_type_is_one(api: Any, value: bytes) -> None:
    store(api, b"Content-Type: " + value + b"\r\n\r\nhi")
    answer = await api.call("MessagePartGet", {"MsgID": 7})
    assert answer.headers["content-type"] in ("text/html", "text/plain")
    assert "set-cookie" not in answer.headers


async def test_what_is_not_there_and_what_is_not_yours_look_the_same(api: Any, form: str) -> None:
    store(api, MESSAGE, account="bea", msg_id=8)
    answers = [await api.call("MessagePartGet", {"MsgID": n, "PartPath": [0]}, form) for n in (8, 9, 0, -1)]
    assert {answer.body for answer in answers} == {answers[0].body}
    assert answers[0].error[0] == "messageNotFound"


async def test_store_away(api: Any) -> None:
    api.messages.error = StoreUnavailable("disk full")
    answer = await api.call("MessagePartGet", {"MsgID": 1})
    assert (answer.status, answer.json["Code"]) == (503, "server")
