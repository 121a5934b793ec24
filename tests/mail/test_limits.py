"""Hostile sizes: nothing raises, nothing takes quadratic time, and what was left out is marked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.mail.address_list import MAX_ADDRESSES, parse_address_list
from gateway.mail.compose import File, compose
from gateway.mail.encoded_words import decode_words
from gateway.mail.fields import FieldError, text_field
from gateway.mail.headers import parse_date, parse_message_ids, read_headers
from gateway.mail.parameters import parse_parameters
from gateway.mail.structure import MAX_DEPTH, MAX_PARTS, Parsed, automated, decoded, parse, readable, summary
from tests.counting import at_most, without_ages
from tests.mail.helpers import draft


def nested(depth: int, leaf: bytes = b"leaf") -> bytes:
    levels = [b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth)]
    return b"".join(levels) + b"\r\n" + leaf


def read(data: bytes) -> Parsed:
    parsed = parse(data)
    summary(parsed)
    readable(parsed)
    automated(parsed.headers, parsed.root.content_type, mail_from_empty=False)
    return parsed


def depth_of(parsed: Parsed) -> int:
    part, depth = parsed.root, 0
    while part.parts:
        part = part.parts[0]
        depth += 1
    return depth


def test_1000_nested_multiparts() -> None:
    with at_most(50_000):
        parsed = read(nested(1000))
    assert parsed.incomplete
    assert depth_of(parsed) == MAX_DEPTH


def test_nesting_within_the_limit_is_read() -> None:
    parsed = read(nested(MAX_DEPTH))
    assert not parsed.incomplete
    assert readable(parsed).text == "leaf"


def test_the_deepest_level_is_marked_and_keeps_its_octets() -> None:
    part = parse(nested(MAX_DEPTH + 1)).root
    while part.parts:
        part = part.parts[0]
    assert part.beyond_limits
    assert decoded(part).endswith(b"leaf")


def test_deep_nesting_around_much_content() -> None:
    with at_most(10_000):
        parsed = read(nested(MAX_DEPTH, b"x" * 5_000_000))
    assert parsed.incomplete  # searching it at every level would be work of 500 MB
    assert 0 < depth_of(parsed) < MAX_DEPTH


def test_lines_that_only_begin_like_a_delimiter() -> None:
    few = read(MULTIPART + b"--bx\r\n" * 5_000 + b"--b\r\n\r\nfound\r\n--b--")
    assert readable(few).text == "found"
    many = read(MULTIPART + b"--bx\r\n" * 20_000 + b"--b\r\n\r\nfound\r\n--b--")
    assert many.incomplete
    assert many.root.parts == ()


MULTIPART = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def test_100000_parts() -> None:
    with at_most(100_000):
        parsed = read(MULTIPART + b"--b\r\n\r\nx\r\n" * 100_000)
    assert parsed.incomplete
    assert parsed.root.beyond_limits
    assert len(parsed.root.parts) == MAX_PARTS


def test_1000_parts_are_read() -> None:
    parsed = read(MULTIPART + b"--b\r\n\r\nx\r\n" * MAX_PARTS + b"--b--")
    assert not parsed.incomplete
    assert len(parsed.root.parts) == MAX_PARTS


def test_many_parts_in_many_multiparts() -> None:
    inner = b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n" + b"--c\r\n\r\nx\r\n" * 100
    with at_most(150_000):
        parsed = read(MULTIPART + inner * 1000)
    assert parsed.incomplete
    assert sum(len(part.parts) + 1 for part in parsed.root.parts) <= MAX_PARTS


@pytest.mark.parametrize(
    "data",
    [
        MULTIPART + b"--bx\r\n" * 1_000_000,
        MULTIPART + b"--b" * 2_000_000,
        MULTIPART + b"\n--" * 2_000_000,
        MULTIPART + (b"--b\r\n" + b"a:\r\n" * 9000) * 200,
        b"Content-Type: multipart/mixed; boundary=" + b"-" * 900_000 + b"\r\n\r\n" + b"-" * 4_000_000,
        b"a:\n" * 2_000_000,
        b"\xff" * 2_000_000,
        b":" * 2_000_000,
        b"a" * 2_000_000,
        b"A: b\r\n" + b" \r\n" * 1_000_000,
        b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n" + b"\x1b$B\xff" * 1_000_000,
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=\r\n" * 1_000_000,
        b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=A!" * 1_000_000,
        b"Subject: " + b"=?utf-8?q?a?= " * 60_000 + b"\r\n\r\n",
        b"Content-Type: text/plain" + b";a*0*=x" * 100_000 + b"\r\n\r\n",
        b"Content-Type: text/plain" + b" " * 900_000 + b"\r\n\r\n",
        b"Content-Type: text/plain;" + b" " * 900_000 + b"\r\n\r\n",
        b"Content-Disposition: attachment; filename=" + b'"\\' * 400_000 + b"\r\n\r\n",
        b"To: a@b.org\r\n" * 9000 + b"\r\n",
    ],
    ids=lambda data: repr(data[:40]),
)
def test_hostile_messages(data: bytes) -> None:
    with at_most(3_500_000):
        read(data)


def test_20000_addresses() -> None:
    text = ", ".join(f"Name <user{n}@example.org>" for n in range(20_000))
    with at_most(3_000_000):
        assert len(parse_address_list(text)) == 20_000
    with at_most(3_000_000):
        assert len(parse_address_list("a@b.org," * 100_000)) == MAX_ADDRESSES


def test_2000_parentheses() -> None:
    with at_most(25_000):
        assert parse_address_list("(" * 2000) == ()
        assert len(parse_address_list("(" * 2000 + ")" * 2000 + "a@b.org")) == 1


@pytest.mark.parametrize(
    "read_text", [parse_address_list, parse_parameters, decode_words, parse_message_ids, parse_date]
)
@pytest.mark.parametrize(
    "piece",
    [
        "(",
        ")",
        "()",
        '"',
        '"\\',
        "\\",
        "<",
        "<>",
        "[",
        ",",
        ";",
        ":",
        "@",
        " ",
        "\t",
        "=",
        "=?",
        "=?a?q?",
        "a=",
        ";a*=",
        "%",
        "a ",
        "<a",
    ],
)
def test_no_text_takes_quadratic_time(read_text: Callable[[str], object], piece: str) -> None:
    for text in (piece * (300_000 // len(piece)), "a;" + piece * (300_000 // len(piece))):
        with without_ages():
            read_text(text)


def test_one_header_section_of_25_mb() -> None:
    with at_most(100):
        headers, body = read_headers(b"Subject: x\r\n" * 2_000_000)
    assert headers.oversized
    assert body == 24_000_000


def test_large_attachments_pass_at_the_speed_of_c() -> None:
    data = bytes(range(256)) * 40_000
    with at_most(2_000):
        composed = compose(draft(attached_files=[File("x", "", "", data)]))
    with at_most(1_000):
        part = parse(composed.data).root.parts[1]
        assert part.decoded_size == len(data)
    assert decoded(part) == data


def test_long_text_passes_at_the_speed_of_c() -> None:
    with at_most(1_000):
        compose(draft(text=("x" * 990 + "\n") * 5000))
        compose(draft(text=" " * 5_000_000))


def test_long_fields_are_refused() -> None:
    with at_most(1_000), pytest.raises(FieldError, match="longer than"):
        text_field("Subject", "ü" * 1_000_000)
    with at_most(1_000_000):
        text_field("Subject", "ü" * 60_000)
