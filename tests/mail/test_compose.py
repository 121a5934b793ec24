"""What is composed is read back identically, by Python's email package and by our own reader."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any

import pytest

from gateway.mail.address_list import NameAddress
from gateway.mail.compose import (
    REFUSED_HEADERS,
    ComposeError,
    File,
    Mailbox,
    MalformedMessageID,
    MissingBody,
    bcc_field,
    check_message_id,
    compose,
    new_message_id,
)
from gateway.mail.structure import Part, decoded, parse, readable, summary
from tests.mail.helpers import DATE, draft, mailbox, read_by_email_package

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9
ICS = b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n"
PDF = b"%PDF-1.7 \x00\xff" * 500


def checked(data: bytes) -> bytes:
    """The rules for every message: CRLF only, ASCII body, no line over 998."""
    assert data.count(b"\r") == data.count(b"\n") == data.count(b"\r\n")
    _, _, body = data.partition(b"\r\n\r\n")
    assert body.isascii()
    assert b"\0" not in data
    assert max(map(len, data.split(b"\r\n"))) <= 998
    return data


def tree(part: Part) -> Any:
    return (part.content_type, [tree(member) for member in part.parts]) if part.parts else part.content_type


def email_tree(part: EmailMessage) -> Any:
    members = list(part.iter_parts()) if part.is_multipart() else []
    return (part.get_content_type(), [email_tree(m) for m in members]) if members else part.get_content_type()  # type: ignore[arg-type]


TEXTS = {
    "plain": "Hello Bob.\nHow are you?\n",
    "no newline at the end": "Hello",
    "dots": ".\n..\n.x\n\n.\n",
    "from": "From me\n>From you\n",
    "blank lines": "\n\nHello\n\n\n",
    "trailing space": "Hello  \nBob\t\n",
    "long line": "x" * 999 + "\n" + "word " * 1000 + "\n",
    "line of 998": "y" * 998 + "\n",
    "umlauts": "Grüße aus Köln,\nund so weiter in einem Satz, der lang genug ist.\n",
    "japanese": "日本語の本文\n" * 30,
    "emoji on a long line": "\U0001f600" * 700 + "\n",
    "controls": "a\x00b\x0bc\x7fd\x1be\n",
    "looks like a delimiter": "--=_a\n--\n--=_m0--\n",
    "looks quoted": "a=3D b= \n=\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("form", ["text", "html", "both"])
def test_texts_read_back(text: str, form: str) -> None:
    fields = {"text": {"text": text}, "html": {"html": text}, "both": {"text": text, "html": "<p>" + text}}[
        form
    ]
    data = checked(compose(draft(**fields)).data)
    ended = text if text.endswith("\n") else text + "\n"
    expected = {"text": (ended, ""), "html": ("", ended), "both": (ended, "<p>" + ended)}[form]

    ours = readable(parse(data))
    assert (ours.text, ours.html) == expected
    message = read_by_email_package(data)
    for subtype, content in zip(("plain", "html"), expected, strict=True):
        body = message.get_body((subtype,))
        # The package reads texts by str.splitlines' rules for line ends only where it decodes: undo CRLF.
        assert (body.get_payload(decode=True).decode().replace("\r\n", "\n") if body else "") == content  # type: ignore[union-attr]
    assert not message.defects


def test_newlines_of_any_kind_become_crlf() -> None:
    data = checked(compose(draft(text="a\rb\r\nc\nd")).data)
    assert data.endswith(b"\r\n\r\na\r\nb\r\nc\r\nd\r\n")


def test_the_bytes_of_a_plain_message() -> None:
    composed = compose(draft(user_agent="gateway/1", references=["<a@x>", "<b@x>"], require_tls_no=True))
    assert composed.data == (
        b"From: Alice <alice@example.org>\r\n"
        b"To: bob@example.net\r\n"
        b"Subject: Hello\r\n"
        b"Date: Fri, 20 Nov 2026 10:59:58 +0000\r\n"
        b"Message-ID: <first@mail.example.org>\r\n"
        b"In-Reply-To: <b@x>\r\n"
        b"References: <a@x> <b@x>\r\n"
        b"User-Agent: gateway/1\r\n"
        b"TLS-Required: No\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=us-ascii\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Hello Bob.\r\n"
    )
    assert (composed.message_id, composed.smtputf8, composed.has_8bit) == (
        "<first@mail.example.org>",
        False,
        False,
    )


FILES: dict[str, list[File]] = {
    "alternative_files": [File("invite.ics", "text/calendar; method=REQUEST", "", ICS)],
    "inline_files": [File("logo.png", "", "<logo@example.org>", PNG), File("", "image/gif", "x", b"GIF89a")],
    "attached_files": [File("Größe.pdf", "", "", PDF), File("empty.txt", "text/plain", "", b"")],
}


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([], ("multipart/alternative", ["text/plain", "text/html"])),
        (["alternative_files"], ("multipart/alternative", ["text/plain", "text/html", "text/calendar"])),
        (
            ["inline_files"],
            (
                "multipart/related",
                [("multipart/alternative", ["text/plain", "text/html"]), "image/png", "image/gif"],
            ),
        ),
        (
            ["attached_files"],
            (
                "multipart/mixed",
                [("multipart/alternative", ["text/plain", "text/html"]), "application/pdf", "text/plain"],
            ),
        ),
        (
            ["alternative_files", "inline_files", "attached_files"],
            (
                "multipart/mixed",
                [
                    (
                        "multipart/related",
                        [
                            ("multipart/alternative", ["text/plain", "text/html", "text/calendar"]),
                            "image/png",
                            "image/gif",
                        ],
                    ),
                    "application/pdf",
                    "text/plain",
                ],
            ),
        ),
    ],
)
def test_structure_and_files(kinds: list[str], expected: Any) -> None:
    files = {kind: FILES[kind] for kind in kinds}
    data = checked(compose(draft(text="text\n", html="<p>html\n", **files)).data)

    parsed = parse(data)
    assert tree(parsed.root) == expected
    assert (readable(parsed).text, readable(parsed).html) == ("text\n", "<p>html\n")
    message = read_by_email_package(data)
    assert email_tree(message) == expected

    leaves = [part for part in _leaves(parsed.root) if part.encoding == "base64"]
    others = [part for part in message.walk() if part["Content-Transfer-Encoding"] == "base64"]
    given = [file for kind in kinds for file in FILES[kind]]
    dispositions = {"alternative_files": "inline", "inline_files": "inline", "attached_files": "attachment"}
    expected_dispositions = [dispositions[kind] for kind in kinds for _ in FILES[kind]]
    for part, other, file, disposition in zip(leaves, others, given, expected_dispositions, strict=True):
        assert decoded(part) == other.get_payload(decode=True) == file.data
        assert part.decoded_size == len(file.data)
        assert part.filename == (other.get_filename() or "") == file.name
        assert part.content_id == (other["Content-ID"] or "")
        assert part.content_id.strip("<>") == file.content_id.strip("<>")
        assert part.disposition == other.get_content_disposition() == disposition
        assert not other.defects


def _leaves(part: Part) -> list[Part]:
    return [leaf for member in part.parts for leaf in _leaves(member)] if part.parts else [part]


def test_related_names_the_type_of_its_root() -> None:
    inline = [File("", "image/gif", "x", b"GIF89a")]
    assert parse(compose(draft(html="x", inline_files=inline)).data).root.params["type"] == "text/html"
    both = parse(compose(draft(text="x", html="x", inline_files=inline)).data)
    assert both.root.params["type"] == "multipart/alternative"


FILE_NAMES = [
    "simple.txt",
    'quo"te\\.txt',
    "Größe.txt",
    "日本語のファイル名" * 12 + ".pdf",
    "x" * 250 + ".txt",
    "semi;colon=1'%2f.txt",
    "=?utf-8?q?x?=.txt" * 4,
    " leading and trailing ",
    "\U0001f600.png",
]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_file_names(name: str) -> None:
    data = checked(compose(draft(attached_files=[File(name, "", "", b"x")])).data)
    (attachment,) = read_by_email_package(data).iter_attachments()
    part = parse(data).root.parts[1]
    assert attachment.get_filename() == name.strip()  # the package strips, whatever the form
    assert part.filename == name


SUBJECTS = [
    "",
    "Hello",
    "Grüße",
    "日本語の件名" * 30,
    "word " * 60 + "end",
    "x" * 3000,
    "=?utf-8?q?x?=",
    "a, b: <c>; d",
]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_subjects(subject: str) -> None:
    data = checked(compose(draft(subject=subject)).data)
    assert summary(parse(data)).subject == subject
    assert read_by_email_package(data)["Subject"] == subject


def test_names_and_addresses() -> None:
    fields: dict[str, list[Mailbox]] = {
        "from_": [mailbox("alice@bücher.example", "Alice Müller")],
        "to": [mailbox('"b b"@example.net', "Last, First"), mailbox("c@example.net", "日本語" * 20)],
        "cc": [mailbox("d@example.net", 'D "Q" \\'), mailbox("e@[192.0.2.1]")],
        "reply_to": [mailbox("f@example.net", "=?utf-8?q?x?=")],
    }
    data = checked(compose(draft(**fields)).data)
    assert data.isascii()
    ours = summary(parse(data))
    message = read_by_email_package(data)
    for name, header in (("from_", "From"), ("to", "To"), ("cc", "Cc"), ("reply_to", "Reply-To")):
        given = fields[name]
        assert getattr(ours, name) == tuple(NameAddress(m.name, str(m.address)) for m in given)
        # Between two encoded words of a name the package leaves the space that RFC 2047, 6.2 ignores.
        read = [
            (
                a.display_name.replace("語 日", "語日").replace("本 語", "本語").replace("日 本", "日本"),
                a.addr_spec,
            )
            for a in message[header].addresses
        ]
        assert read == [(m.name, m.address.format(utf8=False)) for m in given]


def test_500_recipients() -> None:
    to = [mailbox(f"user{n}@example.net", f"Name {n}") for n in range(500)]
    data = checked(compose(draft(to=to)).data)
    assert max(map(len, data.split(b"\r\n"))) <= 78
    assert summary(parse(data)).to == tuple(NameAddress(m.name, str(m.address)) for m in to)
    unfolded = str(read_by_email_package(data)["To"])
    assert getaddresses([unfolded]) == [(m.name, str(m.address)) for m in to]


def test_smtputf8_only_for_a_localpart_that_is_not_ascii() -> None:
    composed = compose(
        draft(to=[mailbox("jürgen@bücher.example", "Jürgen")], subject="Grüße", text="Grüße\n")
    )
    assert composed.smtputf8
    assert composed.has_8bit
    assert "To: Jürgen <jürgen@bücher.example>\r\n".encode() not in composed.data  # not an atom: in quotes
    assert 'To: "Jürgen" <jürgen@bücher.example>\r\nSubject: Grüße\r\n'.encode() in composed.data
    checked(composed.data)
    assert summary(parse(composed.data)).to == (NameAddress("Jürgen", "jürgen@bücher.example"),)
    assert not compose(draft(subject="Grüße")).smtputf8


def test_dates() -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(-timedelta(hours=3, minutes=30)))
    data = compose(draft(date=when)).data
    assert b"\r\nDate: Fri, 2 Jan 2026 03:04:05 -0330\r\n" in data
    assert summary(parse(data)).date == when
    with pytest.raises(ComposeError, match="Date: date has no time zone"):
        compose(draft(date=DATE.replace(tzinfo=None)))


def test_custom_headers() -> None:
    headers = [
        ("X-One", "1"),
        ("X-One", "Grüße"),
        ("List-Unsubscribe", "<https://example.org/u?a=b>"),
        ("X-Empty", ""),
    ]
    message = read_by_email_package(compose(draft(headers=headers)).data)
    assert [(name, value) for name, value in message.items() if name in dict(headers)] == headers


@pytest.mark.parametrize("name", ["User-Agent", "x-mailer"])
def test_the_caller_may_name_the_user_agent(name: str) -> None:
    data = compose(draft(headers=[(name, "mine")], user_agent="gateway/1")).data
    assert b"gateway/1" not in data
    assert f"{name}: mine\r\n".encode() in data


def test_tls_required_stands_once() -> None:
    data = compose(draft(headers=[("tls-required", "no")], require_tls_no=True)).data
    assert data.lower().count(b"tls-required") == 1


def test_references_in_headers_are_free_if_the_field_is_not_used() -> None:
    headers = [("References", "<a@b>"), ("In-Reply-To", "<a@b>")]
    assert summary(parse(compose(draft(headers=headers)).data)).references == ("<a@b>",)
    for index in (0, 1):
        with pytest.raises(ComposeError, match=r"Headers\[0\]"):
            compose(draft(headers=headers[index:], references=["<c@d>"]))


@pytest.mark.parametrize(
    "name", [*sorted(REFUSED_HEADERS), "Content-Type", "content-anything", "BCC", "Mime-Version"]
)
def test_refused_headers(name: str) -> None:
    with pytest.raises(ComposeError, match=r"Headers\[1\]: header .* can't be set here"):
        compose(draft(headers=[("X-Ok", "x"), (name, "x")]))


def test_message_ids() -> None:
    first, second = new_message_id("mail.example.org"), new_message_id("mail.example.org")
    assert first != second
    check_message_id(first)
    assert first.endswith("@mail.example.org>")
    for bad in (
        "",
        "a@b",
        "<a>",
        "<a@b",
        "<a@b>x",
        "<a b@c>",
        "<a@b>\r\nX: y",
        "<ä@b>",
        "<a@b@c>",
        f"<{'a' * 900}@b>",
    ):
        with pytest.raises(MalformedMessageID) as caught:
            compose(draft(message_id=bad))
        assert caught.value.field == "MessageID"
        with pytest.raises(MalformedMessageID) as caught:
            compose(draft(references=["<ok@x>", bad.replace("<a>", "").replace("@b@c", " ")]))
        assert caught.value.field == "References[1]"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"from_": []}, "From"),
        ({"from_": [mailbox("a@b.org"), mailbox("c@b.org")]}, "From"),
        ({"from_": [mailbox("a@b.org", "a\nb")]}, "From[0].Name"),
        ({"to": [mailbox("a@b.org"), mailbox("a@b.org", "a\rb")]}, "To[1].Name"),
        ({"cc": [mailbox("a@b.org", "a\0b")]}, "CC[0].Name"),
        ({"reply_to": [mailbox("a@b.org", "\ud800")]}, "ReplyTo[0].Name"),
        ({"subject": "a\r\nBcc: x@y.z"}, "Subject"),
        ({"text": "\udcff"}, "Text"),
        ({"html": "\udcff"}, "HTML"),
        ({"headers": [("X-A", "a\nb")]}, "Headers[0]"),
        ({"headers": [("X-A: y\r\nX-B", "a")]}, "Headers[0]"),
        ({"headers": [("X-A", "<" + "a" * 2000 + "=?>")]}, "Headers[0]"),
        ({"attached_files": [File("a\nb", "", "", b"")]}, "AttachedFiles[0].Name"),
        ({"attached_files": [File("a" * 256, "", "", b"")]}, "AttachedFiles[0].Name"),
        ({"inline_files": [File("a", "text/plain\r\nX: y", "", b"")]}, "InlineFiles[0].ContentType"),
        ({"inline_files": [File("a", "text", "", b"")]}, "InlineFiles[0].ContentType"),
        ({"inline_files": [File("a", "multipart/mixed; boundary=x", "", b"")]}, "InlineFiles[0].ContentType"),
        ({"inline_files": [File("a", "", "<a>\r\nX: y", b"")]}, "InlineFiles[0].ContentID"),
        ({"alternative_files": [File("", "text/x-a", "a b", b"")]}, "AlternativeFiles[0].ContentID"),
        ({"references": [f"<{n}{'a' * 800}@x>" for n in range(1300)]}, "Headers"),
    ],
)
def test_errors_name_the_field_of_the_request(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ComposeError) as caught:
        compose(draft(**fields))
    assert caught.value.field == named
    assert caught.value.message


def test_missing_body() -> None:
    with pytest.raises(MissingBody):
        compose(draft(text="", html=""))


def test_bcc_is_for_the_senders_copy_only() -> None:
    field = bcc_field([mailbox("a@b.org", "Größe"), mailbox("c@d.org")])
    copy = read_by_email_package(field + compose(draft()).data)
    assert [a.display_name for a in copy["Bcc"].addresses] == ["Größe", ""]
    assert bcc_field([]) == b""
    with pytest.raises(ComposeError, match=r"BCC\[0\].Name"):
        bcc_field([mailbox("a@b.org", "a\nb")])
