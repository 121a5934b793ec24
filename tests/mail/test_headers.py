from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.address_list import NameAddress, parse_address_list
from gateway.mail.encoded_words import decode_words, encode_words
from gateway.mail.fields import FieldError, fold_field, format_date, text_field
from gateway.mail.headers import parse_date, parse_message_ids, read_headers, split_message
from gateway.mail.parameters import format_parameter, parse_parameters

# --- Sections ------------------------------------------------------------------------------------


def test_fields_in_order_folded_and_any_case() -> None:
    data = b"From: a@b.org\r\nSUBJECT: one\r\n two\r\n\tthree\r\nX-A :  b \r\nsubject: second\r\n\r\nbody\r\n"
    headers, body = read_headers(data)
    assert data[body:] == b"body\r\n"
    assert list(headers) == [
        ("From", b" a@b.org"),
        ("SUBJECT", b" one\r\n two\r\n\tthree"),
        ("X-A", b"  b "),
        ("subject", b" second"),
    ]
    assert headers.get("Subject") == "one two\tthree"
    assert headers.get_all("subject") == ["one two\tthree", "second"]
    assert headers.get("x-a") == "b"
    assert headers.get("None") == ""
    assert "FROM" in headers
    assert "To" not in headers
    assert not headers.malformed
    assert not headers.oversized


@pytest.mark.parametrize(
    ("data", "section", "body"),
    [
        (b"A: b\r\n\r\nbody", b"A: b\r\n", b"body"),
        (b"A: b\n\nbody\n\n", b"A: b\n", b"body\n\n"),
        (b"A: b\r\n\nbody", b"A: b\r\n", b"body"),
        (b"A: b\n\r\nbody", b"A: b\n", b"body"),
        (b"\r\nbody", b"", b"body"),
        (b"\nbody", b"", b"body"),
        (b"A: b", b"A: b", b""),
        (b"A: b\r\n", b"A: b\r\n", b""),
        (b"no header at all\r\n\r\nx", b"", b"no header at all\r\n\r\nx"),
        (b"", b"", b""),
    ],
)
def test_split(data: bytes, section: bytes, body: bytes) -> None:
    assert split_message(data) == (section, body)


def test_a_line_that_is_no_field_is_skipped_and_flagged() -> None:
    headers, _ = read_headers(b"A: b\r\nnonsense\r\nC: d\r\n\r\n")
    assert [name for name, _ in headers] == ["A", "C"]
    assert headers.malformed


def test_the_first_line_of_an_mbox_file_is_skipped() -> None:
    headers, _ = read_headers(b"From a@b.org Fri Nov 20 10:59:58 2026\r\nA: b\r\n\r\n")
    assert list(headers) == [("A", b" b")]
    assert not headers.malformed


def test_oversized_sections_are_flagged() -> None:
    headers, body = read_headers(b"A: " + b"x" * 2_000_000 + b"\r\n\r\nbody")
    assert headers.oversized
    assert headers.fields == ()
    assert body == 2_000_000 + 3 + 4 + 4
    headers, _ = read_headers(b"A: b\r\n" * 20_000 + b"\r\n")
    assert headers.oversized
    assert len(headers.fields) == 10_000


def test_values_that_are_not_ascii() -> None:
    headers, _ = read_headers(
        "A: grün\r\n".encode() + b"B: gr\xfcn\r\nC: =?utf-8?q?gr=C3=BCn=0D=0AX:_y?=\r\n\r\n"
    )
    assert headers.get("A") == headers.get("B") == "grün"
    assert headers.text("C") == "grün  X: y"


# --- Encoded words -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("=?utf-8?q?gr=C3=BCn?=", "grün"),
        ("=?ISO-8859-1?Q?gr=FCn_x?= and =?utf-8?B?w7w=?= ", "grün x and ü "),
        ("=?utf-8?q?a?= \r\n =?utf-8?q?b?=", "ab"),
        ("=?utf-8?b?ww==?= =?utf-8?b?vA==?=", "ü"),
        ("=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),
        ("=?iso-8859-1?q?=FC?= =?utf-8?q?=C3=BC?=", "üü"),
        ("=?utf-8*de?q?=C3=BC?=", "ü"),
        ("=?nonsense?q?gr=C3=BCn?=", "grün"),
        ("=?idna?q?xn--bcher-kva?=", "xn--bcher-kva"),
        ("=?utf-8?b?####?=", ""),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?utf-8?q?a", "=?utf-8?q?a"),
        ("=?iso-2022-jp?b?GyRCRnxLXDhsGyhC?=", "日本語"),
        ("=?utf-8?q?a=ZZ?=", "a=ZZ"),
        ("plain", "plain"),
    ],
)
def test_decode_words(text: str, decoded: str) -> None:
    assert decode_words(text) == decoded


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1))
def test_encoded_words_read_back(text: str) -> None:
    encoded = encode_words(text)
    assert all(len(word) <= 75 and word.isascii() for word in encoded.split(" "))
    assert decode_words(encoded) == text


@given(st.text() | st.text("=?utf-8qbQB_ Xx0+/"))
def test_decoding_never_raises_and_leaves_no_line_break(text: str) -> None:
    assert not set("\r\n\0") & set(decode_words(text))


# --- Writing -------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=400), st.booleans())
def test_text_fields_read_back(text: str, utf8: bool) -> None:
    data = text_field("Subject", text, utf8)
    lines = data.split(b"\r\n")
    assert lines.pop() == b""
    assert all(line.strip() for line in lines)
    assert max(map(len, lines)) <= 998
    headers, body = read_headers(data)
    assert body == len(data)
    assert len(headers.fields) == 1
    assert headers.text("Subject") == text


def test_folding_at_78() -> None:
    data = text_field("Subject", "word " * 60 + "end")
    assert max(map(len, data.split(b"\r\n"))) <= 78
    assert data.count(b"\r\n ") == 4


@pytest.mark.parametrize("char", ["\r", "\n", "\0", "\t", "\x7f", "\x85", "\ud800"])
def test_control_characters_are_refused_with_the_field_named(char: str) -> None:
    for write in (text_field, fold_field):
        with pytest.raises(FieldError, match=r"Headers\[2\]: .* U\+[0-9A-F]{4} at position 1") as caught:
            write("X-A", f"a{char}b", False, "Headers[2]")
        assert caught.value.field == "Headers[2]"


@pytest.mark.parametrize("name", ["", "A B", "A:", "A\r\nB", "Ä", "x" * 201, "A\0"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(FieldError, match="header field name"):
        text_field(name, "x")


def test_a_line_that_can_not_be_folded_is_refused() -> None:
    assert len(fold_field("X", "a" * 995)) == 1000
    with pytest.raises(FieldError, match="998"):
        fold_field("X", "a" * 996)


# --- Parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "head", "parameters"),
    [
        ("", "", {}),
        ("Text/Plain", "text/plain", {}),
        ('text/html (c); Charset="UTF-8" ; x=y', "text/html", {"charset": "UTF-8", "x": "y"}),
        (r'a/b; name="a;b\"c"', "a/b", {"name": 'a;b"c'}),
        ("a/b; name=first; name=second", "a/b", {"name": "first"}),
        ("a/b; name*=iso-8859-1'en'%A3%20rates", "a/b", {"name": "£ rates"}),
        ("a/b; name*0*=utf-8''%e2%82; name*1*=%ac; name*2=\" x\"; name=y", "a/b", {"name": "€ x"}),
        ("a/b; name*1=b; name*0=a; name*3=d", "a/b", {"name": "ab"}),
        ("a/b; name*1=b", "a/b", {}),
        ("a/b; name*=plain", "a/b", {"name": "plain"}),
        ('a/b; name="unclosed', "a/b", {"name": "unclosed"}),
        ('a/b;; =; x; "y;z"; q = 1', "a/b", {"q": "1"}),
    ],
)
def test_parameters(value: str, head: str, parameters: dict[str, str]) -> None:
    assert parse_parameters(value) == (head, parameters)


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=300))
def test_parameters_read_back(value: str) -> None:
    written = "attachment" + format_parameter("filename", value)
    assert written.isascii()
    assert parse_parameters(written) == ("attachment", {"filename": value})


@given(st.text() | st.text("*=\";0123 \\%'a"))
def test_parameters_never_raise(value: str) -> None:
    parse_parameters(value)


# --- Addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@B.org", [("", "a@b.org")]),
        ("A B <a@b.org>, c@d.org", [("A B", "a@b.org"), ("", "c@d.org")]),
        (r'"Last, \"F\"" <a@b.org>', [('Last, "F"', "a@b.org")]),
        ("J.R. Smith <j@b.org>", [("J.R. Smith", "j@b.org")]),
        ("a@b.org (Old Style)", [("Old Style", "a@b.org")]),
        ("(c(n)) A (x) <(y)a@b.org>", [("A", "a@b.org")]),
        ("friends: a@b.org, C <c@d.org>; , e@f.org", [("", "a@b.org"), ("C", "c@d.org"), ("", "e@f.org")]),
        ("undisclosed-recipients:;", []),
        ("<@r.org,@s.org:a@b.org>", [("", "a@b.org")]),
        ('"a b"@c.org', [("", '"a b"@c.org')]),
        ("a . b @ c . org", [("", "a.b@c.org")]),
        ("=?utf-8?q?J=C3=BCrgen=2C?= X <a@b.org>", [("Jürgen, X", "a@b.org")]),
        ("a@xn--bcher-kva.example", [("", "a@bücher.example")]),
        ("a@[192.0.2.1]", [("", "a@[192.0.2.1]")]),
        ("not..valid@b.org, a@b.org", [("", "not..valid@b.org"), ("", "a@b.org")]),
        ("MAILER-DAEMON", []),
        ("<a@b.org", [("", "a@b.org")]),
        ("", []),
    ],
)
def test_address_lists(text: str, expected: list[tuple[str, str]]) -> None:
    assert parse_address_list(text) == tuple(NameAddress(*entry) for entry in expected)


def test_a_second_from_is_not_hidden() -> None:
    headers, _ = read_headers(b"From: a@b.org\r\nFrom: c@d.org\r\n\r\n")
    assert [entry.address for entry in headers.addresses("From")] == ["a@b.org", "c@d.org"]


@given(st.text() | st.text('a@b.,;:<>()"\\[] =?'))
def test_address_lists_never_raise(text: str) -> None:
    assert all("@" in entry.address or "=?" in text for entry in parse_address_list(text))


# --- Dates and message IDs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Fri, 20 Nov 2026 10:59:58 +0100",
            datetime(2026, 11, 20, 10, 59, 58, tzinfo=timezone(timedelta(hours=1))),
        ),
        ("20 Nov 2026 10:59 -0000", datetime(2026, 11, 20, 10, 59, tzinfo=UTC)),
        ("Fri, 20 Nov 26 10:59:58 EST (x)", datetime(2026, 11, 20, 15, 59, 58, tzinfo=UTC)),
        ("Fri,20 Nov 1997 10:59:60 GMT", datetime(1997, 11, 20, 10, 59, 59, tzinfo=UTC)),
        ("Fri, 20 Nov 97 10:59:58", datetime(1997, 11, 20, 10, 59, 58, tzinfo=UTC)),
        ("Fri Nov 20 10:59:58 2026", datetime(2026, 11, 20, 10, 59, 58, tzinfo=UTC)),
        ("Fri, 31 Feb 2026 10:59:58 +0000", None),
        ("Fri, 20 Foo 2026 10:59:58 +0000", None),
        ("Fri, 20 Nov 2026 10:59:58 +9999", None),
        ("Fri, 01 Jan 0001 00:00:00 +2300", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_dates(text: str, expected: datetime | None) -> None:
    assert parse_date(text) == expected


@given(st.datetimes(datetime(1900, 1, 3), datetime(9999, 12, 1), timezones=st.timezones()))
def test_dates_read_back(when: datetime) -> None:
    read = parse_date(format_date(when))
    assert read is not None
    assert read.astimezone(UTC) == when.astimezone(UTC).replace(microsecond=0)


@given(st.text("0123456789 :+-,JanFebTue()"))
def test_dates_never_raise(text: str) -> None:
    parse_date(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<a@b> <c@d>", ("<a@b>", "<c@d>")),
        ("<a@b>,<c>\t(x)", ("<a@b>", "<c>")),
        ("a@b", ("<a@b>",)),
        ("<a@b", ("<a@b>",)),
        ("", ()),
        ("Your message of Friday", ()),
    ],
)
def test_message_ids(text: str, expected: tuple[str, ...]) -> None:
    assert parse_message_ids(text) == expected
