"""What readers of reports are given: decoded, bounded, the returned message apart."""

from __future__ import annotations

import pytest

from gateway.mail.address import Address
from gateway.mail.report_source import (
    MAX_FIELDS,
    MAX_PARTS,
    MAX_TEXT,
    MAX_VALUE,
    addresses_in,
    fields_within,
    read_source,
    split_returned,
)

RETURNED = (
    "Return-Path: <shop@example.org>\nReceived: from a\n\tby b\nSubject: hi\n"
    "Message-ID: <1@example.org>\n\nhello\n"
)


def multipart(*parts: str, kind: str = "mixed") -> bytes:
    header = f"Subject: =?utf-8?q?b=C3=A4ck?=\nContent-Type: multipart/{kind}; boundary=b\n\n"
    body = "".join(f"--b\n{part}\n" for part in parts)
    return (header + body + "--b--\n").encode()


def test_parts_and_header() -> None:
    source = read_source(
        multipart(
            "Content-Type: text/plain; charset=iso-8859-1\n"
            "Content-Transfer-Encoding: quoted-printable\n\nNicht =E4=",
            "Content-Type: message/delivery-status\n\nAction: failed",
            f"Content-Type: message/rfc822\n\n{RETURNED}",
            kind="report; report-type=delivery-status",
        ),
        Address("x", "example.net"),
    )
    assert (source.mail_from, source.content_type) == (Address("x", "example.net"), "multipart/report")
    assert source.params["report-type"] == "delivery-status"
    assert (source.header("subject"), source.header("SUBJECT"), source.header("None")) == ("bäck", "bäck", "")
    assert source.text == "Nicht ä"
    assert [part.content_type for part in source.parts] == [
        "text/plain",
        "message/delivery-status",
        "message/rfc822",
    ]
    assert source.fields("message/global-delivery-status", "message/delivery-status") == "Action: failed"
    assert source.fields("message/feedback-report") is None
    assert source.returned["received"] == ("from a by b",)
    assert source.returned_message_id == "<1@example.org>"


DIVIDERS = [
    "--- Below this line is a copy of the message.",
    "------ This is a copy of the message, including all the headers. ------",
    "----- Original message -----",
    "   ----- Unsent message follows -----",
    "Message headers follow.",
    "--- The header of the original message is following. ---",
    "Included is a copy of the message header:\n-----------------------------------------",
    "",
]


@pytest.mark.parametrize("divider", DIVIDERS)
def test_the_returned_message_in_a_text(divider: str) -> None:
    said = "It was not delivered.\n\n<ada@example.net>:\nno such user\n"
    above, below = split_returned(f"{said}\n{divider}\n\n{RETURNED}")
    assert (above.strip(), below) == (said.strip(), RETURNED)
    source = read_source(f"Subject: x\n\n{said}\n{divider}\n\n{RETURNED}".encode())
    assert (source.text.strip(), source.returned_message_id) == (said.strip(), "<1@example.org>")
    assert split_returned(f"{said}\n{divider}\n")[0].strip() == said.strip()


@pytest.mark.parametrize(
    "text",
    [
        "Reporting-MTA: dns; mx\nAction: failed\nStatus: 5.1.1\n",
        "Your message\n\n  To: ada@example.net\n  Subject: hi\n\nwas not delivered\n",
        "To: ada@example.net\nSubject: hi\n\nwas not delivered: no such user\n",
        "The original message was received at Mon, 1 Jan 2029\nfrom a\n",
        "no header: at all\n",
        "",
    ],
)
def test_a_text_that_returns_nothing(text: str) -> None:
    assert split_returned(text) == (text, "")


def test_html() -> None:
    html = (
        "<html><HEAD><title>x</title></HEAD><style>p { }</style><body>"
        "<p>It &amp; <b>failed</b>:<br>a@b.example</p>"
        "<script>if (a < b) {}</script>1 &lt; 2</body>"
    )
    source = read_source(f"Content-Type: text/html\n\n{html}".encode())
    assert source.text.strip() == "It & failed:\na@b.example\n1 < 2"
    both = multipart(
        "Content-Type: text/plain\n\nplain", "Content-Type: text/html\n\n<p>html</p>", kind="alternative"
    )
    assert read_source(both).text == "plain"


def test_attachments_say_nothing() -> None:
    data = multipart("Content-Type: text/plain\nContent-Disposition: attachment\n\nno", "\nyes")
    assert read_source(data).text == "yes"


def test_bounds() -> None:
    source = read_source(f"Subject: {'x' * 5_000}\n\n{'y' * 200_000}".encode())
    assert len(source.header("Subject")) == MAX_VALUE - 1  # the space before it counts
    assert len(source.text) == len(source.parts[0].text) == MAX_TEXT
    source = read_source(("a: b\n" * 1_000 + "\n").encode())
    assert len(source.headers["a"]) == MAX_FIELDS
    assert len(read_source(multipart(*["\nx"] * 100)).parts) == MAX_PARTS
    encoded = "Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n" + "YWFh" * 200_000
    assert len(read_source(encoded.encode()).text) == MAX_TEXT
    assert read_source(b"").text == ""
    assert read_source(b"a\0b").text == "a b"  # it could not be stored


def test_addresses() -> None:
    text = "a@b.example, <C@D.example>; (a@b.example) x@y@z.example .. ä@ö.example. @ a@ @b"
    assert addresses_in(text)[:2] == (Address("a", "b.example"), Address("C", "d.example"))
    assert Address("ä", "ö.example") in addresses_in(text)
    quoted = "'a@b.example' 'o'brien@b.example' `c@b.example'"
    assert list(map(str, addresses_in(quoted))) == ["a@b.example", "o'brien@b.example", "c@b.example"]
    assert len(addresses_in(" ".join(f"u{n}@b.example" for n in range(1_000)))) == 100


def test_fields_in_a_text() -> None:
    text = "Sorry.\n\nReporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; a@b.example\nX: y\nAction: failed\n"
    assert fields_within(text) == text.removeprefix("Sorry.\n\n")
    assert fields_within(text.replace("Reporting-MTA: dns; mx\n\n", "")) == text[text.index("\nFinal") :]
    assert fields_within("Final-Recipient: a@b.example\n" + "\n" * 20 + "Action: failed\n") is None
