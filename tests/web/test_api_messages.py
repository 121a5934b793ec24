"""MessageGet and MessageRawGet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.model import ReceivedMessage

MESSAGE = b"""\
From: =?utf-8?q?Bj=C3=B6rn?= <bjorn@example.com>
To: Ann <ann@example.org>, undisclosed:;
Subject: =?utf-8?b?R3LDvMOfZQ==?=
Date: Sat, 31 Jan 2026 08:00:00 +0100
Message-ID: <m1@example.com>
In-Reply-To: <one@example.org>
References: <zero@example.org>
Content-Type: multipart/mixed; boundary=B

--B
Content-Type: TEXT/Plain; Charset=utf-8
Content-Transfer-Encoding: base64

SGkhDQo=
--B
Content-Type: application/pdf; name="a.pdf"
Content-Disposition: ATTACHMENT; filename*=utf-8''%C3%BC.pdf
Content-ID: <file>

1234
--B--
""".replace(b"\n", b"\r\n")


def store(api: Any, data: bytes, account: str = "ann", msg_id: int = 7, **changes: Any) -> None:
    fields: dict[str, Any] = {
        "mailbox": "Inbox",
        "received": datetime(2026, 1, 31, tzinfo=UTC),
        "flags": (),
        "mail_from": "bounce@example.com",
        "mail_from_validated": True,
        "rcpt_to": "ann@example.org",
        "msg_from": "bjorn@example.com",
        "msg_from_validated": False,
        "dkim_verified_domains": ("example.com",),
        "remote_ip": "192.0.2.9",
        "dsn": False,
        "automated": False,
    }
    message = ReceivedMessage(id=msg_id, account=account, size=len(data), **(fields | changes))
    content = type("Content", (), {"data": data, "size": len(data), "chunks": _chunks, "read": _read})()
    api.messages.stored[account, msg_id] = (message, content)


class _Chunks:
    """As of a stored content: it may be left early."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        piece, self._left = self._left[:65536], self._left[65536:]
        return piece


def _chunks(self: Any) -> _Chunks:
    return _Chunks(self.data)


async def _read(self: Any) -> bytes:
    return bytes(self.data)


async def test_message_get(api: Any, form: str) -> None:
    store(api, MESSAGE, flags=("\\seen", "$junk"))
    answer = await api.call("MessageGet", {"MsgID": 7}, form)
    assert answer.json == {
        "Message": {
            "From": [{"Name": "Björn", "Address": "bjorn@example.com"}],
            "To": [{"Name": "Ann", "Address": "ann@example.org"}],
            "CC": [],
            "BCC": [],
            "ReplyTo": [],
            "MessageID": "<m1@example.com>",
            "References": ["<one@example.org>", "<zero@example.org>"],
            "Date": "2026-01-31T08:00:00+01:00",
            "Subject": "Grüße",
            "Text": "Hi!\n",
            "HTML": "",
        },
        "Structure": {
            "ContentType": "multipart/mixed",
            "ContentTypeParams": {"boundary": "B"},
            "ContentID": "",
            "ContentDisposition": "",
            "Filename": "",
            "DecodedSize": answer.json["Structure"]["DecodedSize"],
            "Parts": [
                {
                    "ContentType": "text/plain",
                    "ContentTypeParams": {"charset": "utf-8"},
                    "ContentID": "",
                    "ContentDisposition": "",
                    "Filename": "",
                    "DecodedSize": 5,
                    "Parts": [],
                },
                {
                    "ContentType": "application/pdf",
                    "ContentTypeParams": {"name": "a.pdf"},
                    "ContentID": "<file>",
                    "ContentDisposition": "attachment",
                    "Filename": "ü.pdf",
                    "DecodedSize": 4,
                    "Parts": [],
                },
            ],
        },
        "Meta": {
            "Size": len(MESSAGE),
            "DSN": False,
            "Flags": ["\\seen", "$junk"],
            "MailFrom": "bounce@example.com",
            "MailFromValidated": True,
            "RcptTo": "ann@example.org",
            "MsgFrom": "bjorn@example.com",
            "MsgFromValidated": False,
            "DKIMVerifiedDomains": ["example.com"],
            "RemoteIP": "192.0.2.9",
            "MailboxName": "Inbox",
        },
    }
    assert list(answer.json) == ["Message", "Structure", "Meta"]
    assert not api.offload.runs


@pytest.mark.parametrize(
    "data", [b"", b"\r\n", b"no header at all", b"\xff\x00" * 100, b"From: a\r\nDate: x\r\n"]
)
async def test_lists_are_never_null(api: Any, data: bytes) -> None:
    store(api, data, dkim_verified_domains=(), mail_from="")
    found = (await api.call("MessageGet", {"MsgID": 7})).json
    for name in ("From", "To", "CC", "BCC", "ReplyTo", "References"):
        assert isinstance(found["Message"][name], list)
    assert found["Message"]["Date"] is None
    assert found["Structure"]["Parts"] == []
    assert isinstance(found["Structure"]["ContentTypeParams"], dict)
    assert (found["Meta"]["Flags"], found["Meta"]["DKIMVerifiedDomains"]) == ([], [])


async def test_deep_nesting_is_answered(api: Any) -> None:
    data = b""
    for i in range(300):
        data += b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i)
    store(api, data)
    found = (await api.call("MessageGet", {"MsgID": 7})).json["Structure"]
    depth = 0
    while found["Parts"]:
        found, depth = found["Parts"][0], depth + 1
    assert depth == 100


async def test_large_messages_are_parsed_beside_the_loop(api: Any) -> None:
    store(api, b"Subject: big\r\n\r\n" + b"x\r\n" * 700_000)
    found = (await api.call("MessageGet", {"MsgID": 7})).json
    assert api.offload.runs == ["parse_message"]
    assert found["Message"]["Text"] == ("x\n" * 700_000)[: 1024 * 1024]


async def test_raw(api: Any, form: str) -> None:
    data = MESSAGE + b"\x00\xff" * 100_000
    store(api, data)
    answer = await api.call("MessageRawGet", {"MsgID": 7}, form)
    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["MessageGet", "MessageRawGet"])
async def test_what_is_not_there_and_what_is_not_yours_look_the_same(
    api: Any, form: str, method: str
) -> None:
    store(api, MESSAGE, account="bea", msg_id=8)
    answers = [await api.call(method, {"MsgID": n}, form) for n in (8, 9, 0, -1, 2**63 - 1)]
    assert {answer.body for answer in answers} == {answers[0].body}
    assert answers[0].error[0] == "messageNotFound"


async def test_store_away(api: Any) -> None:
    api.messages.error = StoreUnavailable("disk full")
    for method in ("MessageGet", "MessageRawGet"):
        answer = await api.call(method, {"MsgID": 1})
        assert (answer.status, answer.json["Code"]) == (503, "server")
        assert "retry-after" in answer.headers
