"""The rules of Send, each by a request that breaks it, and what the submitter gets when none is broken."""

from __future__ import annotations

import base64
import email
import email.policy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.mail.address import Address
from gateway.outbound.submission import QueuedRecipient, ReportWishes, Submitted
from gateway.web.api.jsontypes import format_time

NOW = datetime(2026, 2, 1, 12, 0, 0, tzinfo=UTC)  # the fake clock's
INJECTED = "x\r\nBcc: eve@example.net"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def parsed(data: bytes) -> Any:
    return email.message_from_bytes(data, policy=email.policy.default)


def part_head(name: str, filename: str = "", *more: str) -> str:
    disposition = f'Content-Disposition: form-data; name="{name}"'
    return "\r\n".join([disposition + (f'; filename="{filename}"' if filename else ""), *more])


# --- What works ----------------------------------------------------------------------------------


async def test_everything_at_once(api: Any, form: str) -> None:
    answer = await api.send(
        form,
        From=[{"Name": "Ann", "Address": "ann+orders@example.org"}],
        To=[{"Name": "Bob", "Address": "bob@Example.COM"}, {"Address": "bob@Example.COM"}],
        CC=[{"Address": "cid@example.com"}],
        BCC=[{"Name": "Secret", "Address": "dee@example.com"}],
        ReplyTo=[{"Address": "desk@example.net"}],
        MessageID="<one@example.org>",
        References=["<a@example.org>", "<b@example.org>"],
        Date="2026-01-31T08:00:00+01:00",
        Subject="Grüße",
        Text="Hi\n",
        HTML="<p>Hi</p>",
        Extra={"order": "1001"},
        Headers=[["X-Campaign", "spring"]],
        InlineFiles=[
            {"Name": "a.png", "ContentType": "image/png", "ContentID": "<logo>", "Data": b64(b"PNG")}
        ],
        AttachedFiles=[{"Name": "ü.txt", "Data": b64(b"hello")}],
        RequireTLS=True,
        FutureRelease="2026-02-02T12:00:00Z",
        SaveSent=True,
    )
    assert answer.status == 200
    assert answer.json == {
        "MessageID": "<one@example.org>",
        "Submissions": [
            {"Address": "bob@Example.COM", "QueueMsgID": 100, "FromID": "fromid0"},
            {"Address": "bob@Example.COM", "QueueMsgID": 101, "FromID": "fromid1"},
            {"Address": "cid@example.com", "QueueMsgID": 102, "FromID": "fromid2"},
            {"Address": "dee@example.com", "QueueMsgID": 103, "FromID": "fromid3"},
        ],
    }
    new = api.last
    assert (new.account, new.login, new.via) == ("ann", Address.parse("ann@example.org"), "api")
    assert new.header_from == Address.parse("ann+orders@example.org")
    assert [str(r) for r in new.recipients] == ["bob@example.com"] * 2 + [
        "cid@example.com",
        "dee@example.com",
    ]
    assert (new.message_id, new.subject) == ("<one@example.org>", "Grüße")
    assert new.future_release == datetime(2026, 2, 2, 12, tzinfo=UTC)
    assert (new.require_tls, new.smtputf8, new.has_8bit, new.extra) == (True, False, False, {"order": "1001"})
    message = parsed(new.data)
    assert message["Subject"] == "Grüße"
    assert message["From"] == "Ann <ann+orders@example.org>"
    assert message["Reply-To"] == "desk@example.net"
    assert message["In-Reply-To"] == "<b@example.org>"
    assert message["Date"] == "Sat, 31 Jan 2026 08:00:00 +0100"
    assert message["X-Campaign"] == "spring"
    assert message["User-Agent"].startswith("mail-gateway/")
    assert [p.get_content_type() for p in message.walk()] == [
        "multipart/mixed",
        "multipart/related",
        "multipart/alternative",
        "text/plain",
        "text/html",
        "image/png",
        "text/plain",
    ]
    assert b"dee@" not in new.data
    assert new.sent_copy == b"Bcc: Secret <dee@example.com>\r\n" + new.data


async def test_defaults(api: Any) -> None:
    await api.send()
    message = parsed(api.last.data)
    assert message["From"] == "Ann Ó Dea <ann@example.org>"
    assert message["Date"] == "Sun, 01 Feb 2026 12:00:00 +0000" or message["Date"].endswith(
        "Feb 2026 12:00:00 +0000"
    )
    assert message["Message-ID"].endswith("@mail.example.org>")
    assert "TLS-Required" not in message
    new = api.last
    assert (new.require_tls, new.future_release, new.sent_copy, new.extra) == (None, None, None, {})
    first = new.message_id
    await api.send()
    assert api.last.message_id != first


async def test_login_with_a_catchall_separator_is_the_default_from(api: Any) -> None:
    api.login = "ann+x@example.org"
    await api.send()
    assert str(api.last.header_from) == "ann+x@example.org"


async def test_files_from_parts_come_after_those_of_the_object(api: Any) -> None:
    files = [
        (
            part_head("attachedfile", "../dir/b.txt", "Content-Type: text/plain; charset=utf-8"),
            b"two\r\n--bOUn",
        ),
        (
            part_head("inlinefile", "l.png", "content-type: image/png", "CONTENT-ID: <logo>"),
            b"\x00\r\n\xff\r",
        ),
        (part_head("alternativefile", "", "Content-Type: text/calendar"), b"BEGIN:VCALENDAR"),
        (part_head("attachedfile", "empty"), b""),
    ]
    answer = await api.send("multipart", files, AttachedFiles=[{"Name": "a.txt", "Data": b64(b"one")}])
    assert answer.status == 200
    message = parsed(api.last.data)
    found = [(p.get_filename(), p.get_content_type(), p.get_payload(decode=True)) for p in message.walk()]
    assert [entry for entry in found if entry[0]] == [
        ("l.png", "image/png", b"\x00\r\n\xff\r"),
        ("a.txt", "text/plain", b"one"),
        ("b.txt", "text/plain", b"two\r\n--bOUn"),
        ("empty", "text/plain", b""),
    ]
    assert "text/calendar" in [p.get_content_type() for p in message.walk()]
    assert [p["Content-ID"] for p in message.walk() if p["Content-ID"]] == ["<logo>"]


async def test_large_texts_are_composed_beside_the_loop(api: Any) -> None:
    await api.send(Text="line\n" * 250_000)
    assert api.offload.runs == ["compose"]
    assert api.last.data.endswith(b"\r\n\r\n" + b"line\r\n" * 250_000)


async def test_large_files_need_no_worker(api: Any) -> None:
    data = bytes(range(256)) * 8192
    await api.send("multipart", [(part_head("attachedfile", "big"), data)])
    assert not api.offload.runs
    assert parsed(api.last.data).get_payload(1).get_payload(decode=True) == data
    code, message = (
        await api.send("multipart", [(part_head("attachedfile", "a", "Content-Type: no type"), data)])
    ).error
    assert (code, message.partition(":")[0]) == ("user", "part attachedfile[0].ContentType")


async def test_smtputf8(api: Any) -> None:
    for field in ("To", "CC", "BCC"):
        await api.send(**({"To": []} | {field: [{"Address": "bücher@example.com"}]}))
        assert api.last.smtputf8
    await api.send(To=[{"Address": "bob@bücher.example"}])
    assert not api.last.smtputf8
    assert b"To: bob@xn--bcher-kva.example\r\n" in api.last.data


async def test_require_tls_false_adds_the_header(api: Any) -> None:
    await api.send(RequireTLS=False)
    assert api.last.require_tls is False
    assert parsed(api.last.data)["TLS-Required"] == "No"


async def test_recipients_changed_by_a_plugin_are_not_named_wrongly(api: Any) -> None:
    async def submit(*_: object) -> Submitted:
        return Submitted(
            (
                QueuedRecipient(Address.parse("C@d.example"), 7, "f"),
                QueuedRecipient(Address.parse("archive@e.example"), 8, ""),
            )
        )

    api.submitter.submit_together = submit
    answer = await api.send(To=[{"Address": "a@b.example"}, {"Address": "C@D.example"}])
    assert answer.json["Submissions"] == [
        {"Address": "C@D.example", "QueueMsgID": 7, "FromID": "f"},
        {"Address": "archive@e.example", "QueueMsgID": 8, "FromID": ""},
    ]


async def test_the_same_address_written_twice_is_answered_as_it_was_written(api: Any) -> None:
    answer = await api.send(To=[{"Address": "a@B.example"}, {"Address": "a@b.example"}])
    assert [s["Address"] for s in answer.json["Submissions"]] == ["a@B.example", "a@b.example"]


async def test_no_room_for_the_sent_copy(api: Any) -> None:
    api.submitter.full = True
    assert (await api.send()).status == 200
    code, message = (await api.send(SaveSent=True, MessageID="<one@b.example>")).error
    assert code == "sentOverQuota"
    assert "<one@b.example> was queued nevertheless" in message
    assert len(api.submitter.submitted) == 2


async def test_user_agent_is_the_clients_if_given(api: Any) -> None:
    await api.send(Headers=[["x-mailer", "shop/1"]])
    message = parsed(api.last.data)
    assert (message["X-Mailer"], message["User-Agent"]) == ("shop/1", None)


async def test_release_in_the_past_is_at_once(api: Any) -> None:
    await api.send(FutureRelease=format_time(NOW - timedelta(days=1000)))
    assert api.last.future_release is None
    await api.send(FutureRelease=format_time(NOW + timedelta(days=60)))
    assert api.last.future_release == NOW + timedelta(days=60)


async def test_what_is_asked_of_reports(api: Any) -> None:
    await api.send(
        EnvID="order 1001+x",
        DSNNotify=["success", "DELAY"],
        DSNReturn="hdrs",
        BCC=[{"Address": "b@c.example"}],
    )
    reports = api.last.reports
    assert (reports.env_id, reports.ret) == ("order 1001+x", "HDRS")
    assert [reports.recipients[address] for address in api.last.recipients] == [("SUCCESS,DELAY", "")] * 2
    await api.send(DSNNotify=["NEVER"])
    assert list(api.last.reports.recipients.values()) == [("NEVER", "")]
    await api.send()
    assert api.last.reports == ReportWishes()


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code", "begins"),
    [
        ({"Text": ""}, "missingBody", "Text: "),
        ({"EnvID": "ü"}, "user", "EnvID: has characters other than"),
        ({"EnvID": "a\r\nb"}, "user", "EnvID: has characters other than"),
        ({"EnvID": "x" * 101}, "user", "EnvID: more than 100 characters"),
        ({"EnvID": "=" * 34}, "user", "EnvID: more than 100 characters"),
        ({"DSNNotify": ["SUCCESS", "ALWAYS"]}, "user", "DSNNotify[1]: is none of NEVER, SUCCESS"),
        ({"DSNNotify": ["DELAY", "delay"]}, "user", "DSNNotify: a word is there twice"),
        ({"DSNNotify": ["NEVER", "DELAY"]}, "user", "DSNNotify: NEVER excludes"),
        ({"DSNReturn": "ALL"}, "user", "DSNReturn: is neither FULL nor HDRS"),
        ({"Text": None, "HTML": None}, "missingBody", "Text: "),
        ({"From": [{"Address": "ann@example.org"}] * 2}, "multipleFrom", "From: 2 addresses"),
        ({"From": [{"Address": "bea@example.org"}]}, "badFrom", "From[0].Address: "),
        ({"From": [{"Address": "ann@example.net"}]}, "badFrom", "From[0].Address: "),
        ({"From": [{"Address": "annother@example.org"}]}, "badFrom", "From[0].Address: "),
        ({"From": [{"Address": "ann"}]}, "badAddress", "From[0].Address: "),
        ({"From": [{"Address": "ann@off.example"}]}, "domainDisabled", "From[0].Address: "),
        ({"To": []}, "noRecipients", "To, CC and BCC"),
        ({"To": None}, "noRecipients", "To, CC and BCC"),
        ({"To": [{}]}, "badAddress", "To[0].Address: "),
        ({"To": [{"Address": "a@b.example"}, {"Address": "a b@c.example"}]}, "badAddress", "To[1].Address: "),
        ({"CC": [{"Address": "a@b@c.example"}]}, "badAddress", "CC[0].Address: "),
        ({"BCC": [{"Address": "<a@b.example>"}]}, "badAddress", "BCC[0].Address: "),
        ({"ReplyTo": [{"Address": "a@"}]}, "badAddress", "ReplyTo[0].Address: "),
        ({"To": [{"Address": "a" * 5000 + "@b.example"}]}, "badAddress", "To[0].Address: "),
        ({"MessageID": "a@b.example"}, "malformedMessageID", "MessageID: "),
        ({"MessageID": "<a b@c.example>"}, "malformedMessageID", "MessageID: "),
        ({"References": ["<a@b.example>", "c"]}, "malformedMessageID", "References[1]: "),
        ({"Date": "1800-01-01T00:00:00Z"}, "user", "Date: "),
        ({"FutureRelease": "2026-04-02T12:00:01Z"}, "user", "FutureRelease: more than 60 days"),
        ({"Extra": {"a": "x" * 70_000}}, "user", "Extra: "),
        ({"Extra": {"a\0": ""}}, "user", "Extra: "),
        (
            {"To": [{"Address": "a@b.example"}] * 10_000},
            "user",
            "To, CC and BCC: 10000 recipients; at most 1000",
        ),
        ({"CC": [{"Name": "N", "Address": "a@b.example"}] * 1000}, "user", "To, CC and BCC: 1001 recipients"),
        ({"ReplyTo": [{"Address": "a@b.example"}] * 1001}, "user", "ReplyTo: more than 1000"),
        ({"AttachedFiles": [{}] * 1001}, "user", "more than 1000 files"),
        ({"AttachedFiles": [{"Data": "?"}]}, "protocol", "AttachedFiles[0].Data: is not base64"),
        ({"InlineFiles": [{}, {"Data": "YQ==YQ=="}]}, "protocol", "InlineFiles[1].Data: is not base64"),
        ({"AttachedFiles": [{"Name": "x" * 300}]}, "user", "AttachedFiles[0].Name: "),
        ({"AttachedFiles": [{"ContentType": "multipart/mixed"}]}, "user", "AttachedFiles[0].ContentType: "),
    ],
)
async def test_refused(api: Any, form: str, fields: dict[str, Any], code: str, begins: str) -> None:
    said, message = (await api.send(form, **fields)).error
    assert (said, message[: len(begins)]) == (code, begins)
    assert not api.submitter.submitted


@pytest.mark.parametrize(
    "name",
    [
        "From",
        "To",
        "cc",
        "BCC",
        "Reply-To",
        "Subject",
        "Date",
        "Message-ID",
        "MIME-Version",
        "Content-Type",
        "content-anything",
        "Return-Path",
        "Received",
        "DKIM-Signature",
        "",
        "a b",
        "a:",
        "Grüße",
        "X\r\nTo",
        "X\n",
    ],
)
async def test_refused_headers(api: Any, form: str, name: str) -> None:
    code, message = (await api.send(form, Headers=[["X-Fine", "v"], [name, "v"]])).error
    assert (code, message.partition(":")[0]) == ("user", "Headers[1]")


async def test_references_in_headers(api: Any) -> None:
    for name in ("References", "in-reply-to"):
        assert (await api.send(Headers=[[name, "<a@b.example>"]])).status == 200
        code, _ = (await api.send(Headers=[[name, "<a@b.example>"]], References=["<c@d.example>"])).error
        assert code == "user"


@pytest.mark.parametrize("control", ["\r\n", "\n", "\r", "\0", "\x1b", "\x7f", "\x85"])
@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("Subject", lambda t: {"Subject": t}),
        ("From[0].Name", lambda t: {"From": [{"Name": t, "Address": "ann@example.org"}]}),
        ("From[0].Address", lambda t: {"From": [{"Address": f"ann{t}@example.org"}]}),
        ("To[0].Name", lambda t: {"To": [{"Name": t, "Address": "a@b.example"}]}),
        ("To[0].Address", lambda t: {"To": [{"Address": f"a@b.example{t}"}]}),
        ("To[0].Address", lambda t: {"To": [{"Address": f'"{t}"@b.example'}]}),
        ("CC[0].Name", lambda t: {"CC": [{"Name": t, "Address": "a@b.example"}]}),
        ("BCC[0].Name", lambda t: {"BCC": [{"Name": t, "Address": "a@b.example"}]}),
        ("BCC[0].Address", lambda t: {"BCC": [{"Address": f"a{t}@b.example"}]}),
        ("ReplyTo[0].Name", lambda t: {"ReplyTo": [{"Name": t, "Address": "a@b.example"}]}),
        ("MessageID", lambda t: {"MessageID": f"<a{t}@b.example>"}),
        ("References[0]", lambda t: {"References": [f"<a{t}@b.example>"]}),
        ("Headers[0]", lambda t: {"Headers": [["X-" + t, "v"]]}),
        ("Headers[0]", lambda t: {"Headers": [["X-A", t]]}),
        ("AttachedFiles[0].Name", lambda t: {"AttachedFiles": [{"Name": t}]}),
        ("AttachedFiles[0].ContentType", lambda t: {"AttachedFiles": [{"ContentType": "text/plain" + t}]}),
        ("AttachedFiles[0].ContentID", lambda t: {"AttachedFiles": [{"ContentID": f"<a{t}>"}]}),
        ("InlineFiles[0].ContentID", lambda t: {"InlineFiles": [{"ContentID": t}]}),
        (
            "AlternativeFiles[0].ContentType",
            lambda t: {"AlternativeFiles": [{"ContentType": f'a/b; c="{t}"'}]},
        ),
    ],
)
async def test_no_header_can_be_injected(
    api: Any, field: str, make: Callable[[str], dict[str, Any]], control: str
) -> None:
    fields = make(f"x{control}Bcc: eve@example.net")
    code, message = (await api.send(SaveSent=True, **fields)).error
    assert code in ("user", "badAddress", "malformedMessageID")
    assert message.startswith(field + ": ")
    assert not api.submitter.submitted


@pytest.mark.parametrize("line", ["\n", "\r", "\0"])
@pytest.mark.parametrize(
    ("field", "head"),
    [
        ("Name", 'Content-Disposition: form-data; name="attachedfile"; filename="x{}Bcc: e@example.net"'),
        ("ContentType", part_head("attachedfile", "a", "Content-Type: text/plain{}Bcc: e@example.net")),
        ("ContentID", part_head("attachedfile", "a", "Content-ID: <x{}Bcc:e@example.net>")),
    ],
)
async def test_no_header_can_be_injected_by_a_part(api: Any, field: str, head: str, line: str) -> None:
    code, message = (await api.send("multipart", [(head.format(line), b"x")])).error
    assert code == "user"
    assert message.startswith(f"part attachedfile[0].{field}: ")


async def test_a_folded_part_header_is_unfolded(api: Any) -> None:
    head = part_head("attachedfile", "a", "Content-Type: text/csv;\r\n charset=utf-8")
    assert (await api.send("multipart", [(head, b"x")])).status == 200
    assert b"Content-Type: text/csv; charset=utf-8\r\n" in api.last.data


async def test_text_may_look_like_headers_or_boundaries(api: Any) -> None:
    text = "Bcc: eve@example.net\n\n--=_a\n.\n\nFrom me\n"
    await api.send(Text=text, HTML=text)
    message = parsed(api.last.data)
    assert message.get_body(("plain",)).get_content().replace("\r\n", "\n") == text
    assert message["Bcc"] is None


async def test_message_too_large_when_composed(make_api: Callable[..., Any], form: str) -> None:
    api = make_api(queue={"max_message_size": 10_000})
    assert (await api.send(form, Text="x " * 4000)).status == 200
    code, message = (await api.send(form, Text="x " * 5000)).error
    assert code == "messageTooLarge"
    assert "10000" in message


async def test_1000_recipients(api: Any) -> None:
    answer = await api.send(To=[{"Address": f"u{i}@example.com"} for i in range(1000)])
    assert len(answer.json["Submissions"]) == 1000
    assert answer.json["Submissions"][999]["Address"] == "u999@example.com"
