"""The header of a message that a client hands in."""

from datetime import UTC, datetime

import pytest

from gateway.mail.address import Address
from gateway.mail.headers import read_headers
from gateway.mail.submitted import HeaderFault, SubmittedHeader, canonical, rewrite
from tests.counting import at_most

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NEW_ID = "<new@mx.example.org>"


def rewritten(section: str | bytes, *, keep_extra: bool = False) -> SubmittedHeader | HeaderFault:
    data = section if isinstance(section, bytes) else section.encode()
    return rewrite(data, message_id=NEW_ID, date=NOW, keep_extra=keep_extra)


def good(section: str | bytes, *, keep_extra: bool = False) -> SubmittedHeader:
    header = rewritten(section, keep_extra=keep_extra)
    assert isinstance(header, SubmittedHeader), header
    return header


def fault(section: str | bytes) -> HeaderFault:
    header = rewritten(section)
    assert isinstance(header, HeaderFault)
    return header


FROM = "From: Me <me@example.org>\r\n"


def test_what_is_missing_is_added_at_the_end() -> None:
    header = good(FROM + "Subject: =?utf-8?q?H=C3=A9?=\r\n llo\r\n")
    assert header.section.decode() == (
        FROM + "Subject: =?utf-8?q?H=C3=A9?=\r\n llo\r\n"
        "Message-ID: <new@mx.example.org>\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\n"
    )
    assert (header.message_id, header.subject) == (NEW_ID, "H\u00e9 llo")
    assert header.from_ == Address("me", "example.org")
    assert (header.tls_required_no, header.extra, header.utf8) == (False, {}, False)


def test_what_is_there_stays_as_it_is() -> None:
    section = FROM + "DATE: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-Id:\r\n\t<a@b>\r\nX-Y:  odd \t \r\n"
    header = good(section)
    assert header.section.decode() == section
    assert header.message_id == "<a@b>"


def test_a_message_id_that_is_none_is_replaced() -> None:
    header = good(FROM + "Message-ID: 17\r\n")
    assert header.section.count(b"Message-ID") == 1
    assert header.message_id == NEW_ID


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("Message-ID: foo@bar", "Message-ID: <foo@bar>"),
        ("message-id:\r\n foo@bar", "message-id: <foo@bar>"),
        ("Message-ID: <a b@x>", "Message-ID: <b@x>"),
        ("Message-ID: <foo@bar", "Message-ID: <foo@bar>"),
        ("Message-ID:<a@x>\r\nMessage-ID: <b@x>", "Message-ID:<a@x>"),
        ("Message-ID: \r\nMESSAGE-ID: <b@x>\r\nMessage-ID: c@x", "MESSAGE-ID: <b@x>"),
        # What has one in brackets stays as it is.
        ("Message-ID:  (odd) <a@x> <b@x>", "Message-ID:  (odd) <a@x> <b@x>"),
        ("Message-ID: <17>", "Message-ID: <17>"),
    ],
)
def test_a_message_id_is_written_once_and_as_it_is_understood(given: str, written: str) -> None:
    date = "Date: Thu, 1 Jan 2026 00:00:00 +0000\r\n"
    header = good(f"{FROM}{given}\r\n{date}X-Y:  odd \t \r\n")
    assert header.section.decode() == f"{FROM}{written}\r\n{date}X-Y:  odd \t \r\n"
    assert read_headers(header.section)[0].message_ids("Message-ID")[0] == header.message_id


@pytest.mark.parametrize(
    "given",
    [
        "Message-ID:",
        "Message-ID: 17\r\nMessage-ID: 18",
        "Message-ID: <a @b>",
        'Message-ID: <"a b"@x>',
        "Message-ID: a@",
        "Message-ID: a@b@c",
        f"Message-ID: {'a' * 899}@b",
        "Message-ID: \u00e4@b",
    ],
)
def test_a_message_id_that_cannot_be_understood_is_replaced(given: str) -> None:
    header = good(f"{FROM}{given}\r\n")
    assert header.section.startswith(f"{FROM}Message-ID: {NEW_ID}\r\nDate:".encode())
    assert header.message_id == NEW_ID


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("Date:\r\n", ""),
        ("Date: \r\n \r\ndate:\t\r\n", ""),
        ("Date: yesterday\r\nDate: Fri, 2 Jan 2026 00:00:00 +0000\r\n", "Date: yesterday\r\n"),
        ("Date:\r\ndate:Fri, 2 Jan 2026 00:00 +0000\r\nDATE: x\r\n", "date:Fri, 2 Jan 2026 00:00 +0000\r\n"),
    ],
)
def test_there_is_one_date(given: str, written: str) -> None:
    header = good(f"{FROM}{given}Message-ID: <a@b>\r\n")
    added = "" if written else "Date: Fri, 20 Nov 2026 12:00:00 +0000\r\n"
    assert header.section.decode() == f"{FROM}{written}Message-ID: <a@b>\r\n{added}"


LONG = f"{'a' * 990}@x"  # as long as a line may nearly be


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("To: a@x\r\nX-Y: 1\r\nTO:b@x,\r\n c@x \r\n", "To: a@x,\r\n b@x,\r\n c@x\r\nX-Y: 1\r\n"),
        ("Cc:\r\n a@x\r\ncc:\r\n b@x\r\n", "Cc:\r\n a@x,\r\n b@x\r\n"),
        (f"To:\r\n {LONG}\r\nTo:\r\n {LONG}\r\n", f"To:\r\n {LONG},\r\n {LONG}\r\n"),
        ("To: a@x,\r\nTo: , b@x ,\r\nTo: ,\r\n", "To: a@x,\r\n b@x\r\n"),
        ("Reply-To: a@x\r\nReply-To: b@x\r\n", "Reply-To: a@x,\r\n b@x\r\n"),
        ("References: <1@x>\r\nReferences: <2@x>\r\n", "References: <1@x>\r\n <2@x>\r\n"),
        ("In-Reply-To: <1@x>\r\nIn-Reply-To: <2@x>\r\n", "In-Reply-To: <1@x>\r\n <2@x>\r\n"),
        ("Subject:  one\r\nSUBJECT: two\r\n", "Subject:  one\r\n"),
        ("Subject:\r\nX-Y: 1\r\nsubject:two\r\n", "Subject:two\r\nX-Y: 1\r\n"),
        ("Sender: a@x\r\nSender: b@x\r\n", "Sender: a@x\r\n"),
        ("To: a@x\r\nTo:\r\nSubject:\r\nsubject:\r\n", "To: a@x\r\n"),
        # What is there once, or may be there twice, stays as it is.
        ("To:\r\nSubject:\r\nCc:a@x\r\n", "To:\r\nSubject:\r\nCc:a@x\r\n"),
        ("Comments: a\r\nComments: b\r\nX-Y: 1\r\nX-Y: 2\r\n",) * 2,
    ],
)
def test_what_can_be_there_once_is_there_once(given: str, written: str) -> None:
    rest = "Message-ID: <a@b>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n"
    header = good(FROM + given + rest)
    assert header.section.decode() == FROM + written + rest
    assert header.subject == read_headers(header.section)[0].text("Subject")


def test_what_is_not_for_others_is_removed() -> None:
    header = good(
        "Bcc: a@x,\r\n b@x\r\nReturn-Path: <me@example.org>\r\n" + FROM + "RESENT-BCC: c@x\r\nbcc : d@x\r\n"
    )
    assert header.section.startswith(FROM.encode() + b"Message-ID")
    for gone in (b"a@x", b"b@x", b"c@x", b"d@x", b"Return-Path"):
        assert gone not in header.section


def test_extra() -> None:
    section = FROM + "X-Mox-Extra-order-ID: 17\r\nx-mox-extra-customer: =?utf-8?q?M=C3=BCller?=\r\n & Co\r\n"
    header = good(section)
    assert header.extra == {"Order-Id": "17", "Customer": "M\u00fcller & Co"}
    assert b"mox-extra" not in header.section.lower()
    assert header.section.startswith(FROM.encode())
    assert b"X-Mox-Extra-order-ID: 17\r\n" in good(section, keep_extra=True).section


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ("X-Mox-Extra-a: 1\r\nX-Mox-Extra-A: 2\r\n", "X-Mox-Extra-A is given twice"),
        ("X-Mox-Extra-: 1\r\n", "no key"),
        ("".join(f"X-Mox-Extra-{n}: {'x' * 900}\r\n" for n in range(80)), "more than 65536"),
    ],
)
def test_extra_that_is_refused(fields: str, text: str) -> None:
    found = fault(FROM + fields)
    assert found.about == "header"
    assert text in found.text


@pytest.mark.parametrize(("key", "written"), [("order-id", "Order-Id"), ("ORDER", "Order"), ("a--b", "A--B")])
def test_canonical(key: str, written: str) -> None:
    assert canonical(key) == written


@pytest.mark.parametrize(("value", "no"), [("No", True), ("no", True), ("Yes", False), ("", False)])
def test_tls_required(value: str, no: bool) -> None:
    header = good(FROM + f"TLS-Required: {value}\r\n")
    assert header.tls_required_no is no
    assert b"TLS-Required" in header.section


@pytest.mark.parametrize(
    "value",
    [
        "me@example.org",
        "<me@example.org>",
        "Me <me@example.org>",
        '"Me, myself @ home" <me@example.org>',
        "=?utf-8?q?M@E?= <me@example.org>",
        "me@example.org (Me)",
        "Me (it is) <me@example.org> (really)",
        "M. E. <me@EXAMPLE.org>",
        "\r\n Me\r\n <me@example.org>",
        '"me"@example.org',
    ],
)
def test_from(value: str) -> None:
    assert good(f"From: {value}\r\n").from_ == Address("me", "example.org")


@pytest.mark.parametrize(
    "fields",
    [
        "",
        "Subject: x\r\n",
        "From:\r\n",
        "From: \r\n",
        "From: Me\r\n",
        "From: <>\r\n",
        "From: me@example.org, you@example.org\r\n",
        "From: me@example.org\r\nFrom: me@example.org\r\n",
        "From: me@example.org\r\nfrom : you@example.org\r\n",
        "From: Us: me@example.org;\r\n",
        "From: boss@bank.example <me@example.org>\r\n",
        "From: <boss@bank.example> <me@example.org>\r\n",
        "From: <@relay.example:me@example.org>\r\n",
        "From: me@example.org; you@example.org\r\n",
        "From: me@example.org>\r\n",
        "From: (me@example.org\r\n",
        'From: "me@example.org\r\n',
        "From: me@\r\n",
        "From: me@exa mple.org\r\n",
        "From: nobody, me@example.org\r\n",
    ],
)
def test_from_that_is_not_one_address(fields: str) -> None:
    assert fault(fields + "To: x@y\r\n").about == "from"


@pytest.mark.parametrize(
    "section",
    [FROM + "no field\r\n", FROM + ": x\r\n", FROM + "a b: x\r\n", "X: " + "y" * 1_000_001 + "\r\n" + FROM],
)
def test_malformed(section: str) -> None:
    assert fault(section).about == "header"


def test_header_is_utf8_or_something_old() -> None:
    assert good(FROM + "Subject: \u00fc\r\n").utf8
    assert not good(FROM.encode() + b"Subject: \xfc\r\n").utf8


@pytest.mark.parametrize(
    "value",
    ["(" * 50_000, '"' * 50_001, "<" * 50_000, "=?" * 25_000, "a@" * 25_000, " " * 50_000, "\\" * 50_001],
)
def test_hostile_from_takes_no_time(value: str) -> None:
    with at_most(1_000):
        assert fault(f"From: {value}\r\n").about == "from"
