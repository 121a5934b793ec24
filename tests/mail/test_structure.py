from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.compose import File, compose
from gateway.mail.structure import (
    MAX_READABLE,
    Part,
    Readable,
    automated,
    decoded,
    find_part,
    parse,
    readable,
    summary,
)
from tests.mail.helpers import draft


def text_part(subtype: str, content: str, extra: str = "") -> str:
    return f"Content-Type: text/{subtype}\r\n{extra}\r\n{content}\r\n"


def multipart(subtype: str, *parts: str, boundary: str = "b") -> str:
    body = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts)
    return f"Content-Type: multipart/{subtype}; boundary={boundary}\r\n\r\n{body}--{boundary}--\r\n"


ATTACHED = "Content-Disposition: attachment; filename=x.html\r\n"


@pytest.mark.parametrize(
    ("message", "text", "html"),
    [
        ("Subject: x\r\n\r\ntext\r\n", "text\n", ""),
        (text_part("plain", "text"), "text\n", ""),
        (text_part("html", "html"), "", "html\n"),
        (text_part("html", "html", ATTACHED), "", "html\n"),
        (text_part("calendar", "x"), "", ""),
        (multipart("alternative", text_part("plain", "t"), text_part("html", "h")), "t\n", "h\n"),
        (multipart("alternative", text_part("html", "h"), text_part("plain", "t")), "t\n", "h\n"),
        (multipart("alternative", text_part("plain", "t"), text_part("plain", "u")), "t\n", ""),
        (multipart("mixed", text_part("plain", "t"), text_part("html", "attached")), "t\n", ""),
        (multipart("mixed", text_part("html", "h"), text_part("plain", "t")), "", "h\n"),
        (multipart("mixed", text_part("html", "h", ATTACHED), text_part("plain", "t")), "t\n", ""),
        (multipart("mixed", text_part("html", "h", ATTACHED)), "", ""),
        (
            multipart(
                "mixed",
                multipart("alternative", text_part("plain", "t"), text_part("html", "h"), boundary="c"),
                text_part("html", "attached", ATTACHED),
            ),
            "t\n",
            "h\n",
        ),
        (
            # A level is descended into only when it has none: the direct member comes first.
            multipart(
                "mixed",
                multipart("alternative", text_part("html", "h"), boundary="c"),
                text_part("plain", "t"),
            ),
            "t\n",
            "",
        ),
        (
            multipart(
                "mixed",
                multipart("related", text_part("html", "h"), boundary="c"),
                multipart("alternative", text_part("plain", "late"), boundary="d"),
            ),
            "",
            "h\n",
        ),
        (multipart("mixed", "Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ninner\r\n"), "", ""),
    ],
)
def test_readable_parts(message: str, text: str, html: str) -> None:
    assert readable(parse(message.encode())) == Readable(text, html)


@pytest.mark.parametrize(
    ("header", "body", "text"),
    [
        ("text/plain; charset=iso-8859-1", b"gr\xfcn", "grün"),
        ("text/plain; charset=utf-8", "grün".encode(), "grün"),
        ("text/plain; charset=us-ascii", "grün".encode(), "grün"),
        ("text/plain; charset=unknown-8bit", b"gr\xfcn", "grün"),
        ("text/plain; charset=idna", b"xn--", "xn--"),
        ("text/plain; charset=unicode_escape", b"\\x41", "\\x41"),
        ("text/plain", b"gr\xfcn", "grün"),
        ("text/plain; charset=utf-8", b"a\xffb", "a\ufffdb"),
        ("text/plain; charset=utf-16le", "grün".encode("utf-16le"), "grün"),
        ("text/plain; charset=iso-2022-jp", "日本".encode("iso-2022-jp"), "日本"),
        ('text/plain; charset="windows-1251"', "да".encode("cp1251"), "да"),
        ("text/plain", b"a\r\nb\rc\nd", "a\nb\nc\nd"),
    ],
)
def test_charsets(header: str, body: bytes, text: str) -> None:
    assert readable(parse(f"Content-Type: {header}\r\n\r\n".encode() + body)).text == text


@pytest.mark.parametrize(
    ("encoding", "body", "expected"),
    [
        ("7bit", b"a=\r\n", b"a=\r\n"),
        ("Quoted-Printable", b"a=3D=\r\nb=C3=BC \r\n=ZZ", b"a=b\xc3\xbc \r\n=ZZ"),
        ("base64", b"aGVs\r\nbG8=\r\n", b"hello"),
        (" BASE64 (c)", b"aGVsbG8", b"hello"),
        ("base64", b"aG!Vs*bG8", b"hello"),
        ("base64", b"aGVsbG8=aGVs", b"hello"),
        ("base64", b"aGVsb", b"hel"),
        ("base64", b"====", b""),
        ("base64", b"", b""),
        ("x-unknown", b"abc", b"abc"),
    ],
)
def test_transfer_encodings(encoding: str, body: bytes, expected: bytes) -> None:
    part = parse(f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode() + body).root
    assert decoded(part) == expected
    assert part.decoded_size == len(expected)


@given(
    st.binary() | st.text("AaBb+/= \r\n-!").map(str.encode),
    st.sampled_from(["base64", "quoted-printable", "7bit"]),
)
def test_decoded_size_is_the_size_of_what_is_decoded(body: bytes, encoding: str) -> None:
    part = parse(f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode() + body).root
    assert part.decoded_size == len(decoded(part))


def test_delimiters() -> None:
    data = (
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\npreamble --b\r\n--bb\r\n'
        b"--b \t\r\n\r\none\r\n\r\n--b\n\ntwo\n--b\r\nno header here\r\n--b--\r\n--b\r\n\r\nepilogue"
    )
    parts = parse(data).root.parts
    assert [decoded(part) for part in parts] == [b"one\r\n", b"two", b"no header here"]
    assert [part.content_type for part in parts] == ["text/plain"] * 3


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"no delimiter", []),
        (b"--b--", []),
        (b"--b", []),
        (b"--b\r\n", []),
        (b"--b\r\n\r\n", [b""]),
        (b"--b\r\n--b--", [b""]),
        (b"--b\r\n\r\n--b--", [b""]),
        (b"--b\r\n\r\nunclosed", [b"unclosed"]),
        (b"--b\n\na\n--b", [b"a"]),
    ],
)
def test_torn_multiparts(body: bytes, expected: list[bytes]) -> None:
    parsed = parse(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + body)
    assert [decoded(part) for part in parsed.root.parts] == expected
    assert not parsed.incomplete


def test_an_outer_delimiter_ends_the_inner_multipart() -> None:
    inner = "Content-Type: multipart/mixed; boundary=bb\r\n\r\n--bb\r\n\r\nunclosed"
    root = parse(multipart("mixed", inner, text_part("plain", "next")).encode()).root
    assert len(root.parts) == 2
    assert decoded(root.parts[0].parts[0]) == b"unclosed"


def test_part_fields() -> None:
    data = (
        b'Content-Type: Image/PNG; Name="=?utf-8?q?gr=C3=BCn?=.png"; X=Y\r\nContent-ID: <a@b>\r\n'
        b"Content-Disposition: INLINE\r\n\r\n"
    )
    root = parse(data).root
    assert (root.content_type, root.params) == ("image/png", {"name": "grün.png", "x": "Y"})
    assert (root.content_id, root.disposition, root.filename) == ("<a@b>", "inline", "grün.png")


@pytest.mark.parametrize(
    "value", ["", "text", "text/", "/", "a b/c", "text/pl\rain", "te\0xt/plain", "ä/b", "x" * 300 + "/y"]
)
def test_content_types_that_are_none_mean_text(value: str) -> None:
    assert parse(f"Content-Type: {value}\r\n\r\nx".encode()).root.content_type == "text/plain"


def test_members_of_a_digest_are_messages() -> None:
    assert (
        parse(multipart("digest", "\r\nSubject: x\r\n\r\n").encode()).root.parts[0].content_type
        == "message/rfc822"
    )


def test_find_part() -> None:
    parsed = parse(multipart("mixed", multipart("mixed", text_part("plain", "x"), boundary="c")).encode())
    assert find_part(parsed, []) is parsed.root
    assert find_part(parsed, [0, 0]) is parsed.root.parts[0].parts[0]
    for path in ([1], [0, 1], [0, 0, 0], [-1]):
        assert find_part(parsed, path) is None


def test_summary() -> None:
    parsed = parse(
        b"From: =?utf-8?q?J=C3=BC?= <a@b.org>\r\nTo: c@d.org, e@f.org\r\nCc: g@h.org\r\nBcc: i@j.org\r\n"
        b"Reply-To: k@l.org\r\nSubject: =?utf-8?q?gr=C3=BC?=\r\nDate: Fri, 20 Nov 2026 10:59:58 +0000\r\n"
        b"Message-ID: <1@x>\r\nIn-Reply-To: <2@x>\r\nReferences: <3@x>\r\n <4@x>\r\n\r\n"
    )
    found = summary(parsed)
    assert [(a.name, a.address) for a in found.from_] == [("Jü", "a@b.org")]
    assert [a.address for a in (*found.to, *found.cc, *found.bcc, *found.reply_to)] == [
        "c@d.org",
        "e@f.org",
        "g@h.org",
        "i@j.org",
        "k@l.org",
    ]
    assert (found.subject, found.message_id, found.in_reply_to) == ("grü", "<1@x>", "<2@x>")
    assert found.references == ("<3@x>", "<4@x>")
    assert found.thread == ("<2@x>", "<3@x>", "<4@x>")
    assert found.date is not None
    empty = summary(parse(b""))
    assert (empty.from_, empty.message_id, empty.date, empty.subject, empty.thread) == ((), "", None, "", ())


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Subject: x", False),
        ("List-Id: <x>", True),
        ("list-unsubscribe: <x>", True),
        ("List-Unsubscribe-Post: x", True),
        ("Precedence: first-class", True),
        ("Auto-Submitted: no", False),
        ("Auto-Submitted: No (c); x=y", False),
        ("Auto-Submitted: auto-replied", True),
        ("Auto-Submitted: no\r\nAuto-Submitted: auto-generated", True),
        ("Content-Type: Multipart/Report; report-type=delivery-status; boundary=b", True),
    ],
)
def test_automated(header: str, expected: bool) -> None:
    parsed = parse(f"{header}\r\n\r\nx".encode())
    assert automated(parsed.headers, parsed.root.content_type, mail_from_empty=False) is expected
    assert automated(parsed.headers, parsed.root.content_type, mail_from_empty=True) is True


def test_readable_text_is_cut_at_1_mib_between_characters() -> None:
    body = base64.encodebytes(("ü\r\n" * 1_000_000).encode())
    data = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + body
    text = readable(parse(data)).text
    assert MAX_READABLE - 4 < len(text.encode()) <= MAX_READABLE
    assert text.startswith("ü\nü\n")
    assert set(text) == {"ü", "\n"}


# --- Whatever comes ------------------------------------------------------------------------------

SAMPLE = compose(
    draft(
        text="text\n",
        html="<p>Größe\n",
        references=["<a@b>", "<c@d>"],
        attached_files=[File("Größe.txt", "", "", b"data" * 30)],
        inline_files=[File("x.gif", "", "x", b"GIF89a")],
    )
).data
FRAGMENTS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"--",
    b"=_",
    b"Content-Type: multipart/mixed; boundary=",
    b"Content-Transfer-Encoding: base64\r\n",
    b"charset=utf-16",
    b"filename*0*=utf-8''%",
    b"=?utf-8?b?",
    b"(",
    b'"',
    b"\xff\xfe",
    b":",
    b"<",
]


def read_everything(data: bytes) -> None:
    parsed = parse(data)
    summary(parsed)
    readable(parsed)
    automated(parsed.headers, parsed.root.content_type, mail_from_empty=False)

    def walk(part: Part) -> None:
        assert part.decoded_size == len(decoded(part))
        assert 0 <= part.start <= part.end <= len(data)
        for member in part.parts:
            assert part.start <= member.start <= member.end <= part.end
            walk(member)

    walk(parsed.root)


@given(
    st.binary(max_size=500)
    | st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=5), max_size=60).map(b"".join)
)
def test_arbitrary_octets(data: bytes) -> None:
    read_everything(data)


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(SAMPLE)),
            st.integers(0, 60),
            st.sampled_from(FRAGMENTS) | st.binary(max_size=8),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_mutated_messages(changes: list[tuple[int, int, bytes]]) -> None:
    data = SAMPLE
    for at, removed, added in changes:
        data = data[:at] + added + data[at + removed :]
    read_everything(data)
