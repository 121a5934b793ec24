"""Delivery status notifications of others are read, whatever they are like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.address import Address
from gateway.mail.dsn import (
    MAX_RECIPIENTS,
    MAX_TEXT,
    DeliveryStatus,
    RecipientStatus,
    decode_xtext,
)
from gateway.smtp.dsn import xtext
from tests.counting import without_ages
from tests.mail.helpers import read_dsn

HEADER = 'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'


def message(status: str, *, kind: str = "message/delivery-status", more: str = "", third: str = "") -> bytes:
    parts = ["Content-Type: text/plain\r\n\r\nIt failed.", f"Content-Type: {kind}\r\n{more}\r\n{status}"]
    if third:
        parts.append(third)
    return (HEADER + "".join(f"--b\r\n{part}\r\n" for part in parts) + "--b--\r\n").encode()


def read(status: str, **more: str) -> DeliveryStatus:
    found = read_dsn(message(status, **more))
    assert found is not None
    return found


def one(fields: str) -> RecipientStatus:
    [recipient] = read(f"Reporting-MTA: dns; mx\r\n\r\n{fields}\r\n").recipients
    return recipient


def test_all_fields() -> None:
    found = read(
        "Reporting-MTA: dns; mx.example.net\r\n"
        "Original-Envelope-ID: QQ+3D314\r\n"
        "X-Other: of no matter\r\n"
        "\r\n"
        "Original-Recipient: rfc822;jane+2Bdoe@example.org\r\n"
        "Final-Recipient: RFC822 ; <j.doe@Example.NET>\r\n"
        "Action: failed\r\n"
        "Status: 5.1.1 (no such user)\r\n"
        "Remote-MTA: dns; in.example.net\r\n"
        "Diagnostic-Code: smtp; 550 5.1.6\r\n (jane) has moved\r\n"
        "\r\n"
        "Final-Recipient: rfc822;other@example.net\r\n"
        "Action: Delayed (for now)\r\n"
        "Status: 4.4.1\r\n",
        third="Content-Type: text/rfc822-headers\r\n\r\nSubject: hi\r\nMessage-ID: <1@example.org>\r\n",
    )
    assert (found.reporting_mta, found.envelope_id) == ("mx.example.net", "QQ+3D314")
    assert found.message_id == "<1@example.org>"
    first, second = found.recipients
    assert first == RecipientStatus(
        final_recipient="j.doe@Example.NET",
        original_recipient="jane+2Bdoe@example.org",
        action="failed",
        status="5.1.1",
        code=550,
        enhanced="5.1.6",
        diagnostic="550 5.1.6 (jane) has moved",
        remote_mta="in.example.net",
        addresses=(
            Address("jane+2Bdoe", "example.org"),
            Address("jane+doe", "example.org"),
            Address("j.doe", "example.net"),
        ),
        failure="bad-mailbox",
        permanent=True,
    )
    assert (second.action, second.status, second.code, second.enhanced) == ("delayed", "4.4.1", 400, "4.4.1")


@pytest.mark.parametrize(
    ("diagnostic", "status", "code", "enhanced"),
    [
        ("smtp; 550 5.1.1 no such user", "5.0.0", 550, "5.1.1"),
        ("SMTP;550-5.1.1 no such user", "5.0.0", 550, "5.1.1"),
        ("smtp; 550 #5.1.0 Address rejected", "5.0.0", 550, "5.1.0"),
        ("smtp; 550", "5.1.1", 550, "5.1.1"),
        ("smtp; 550 no such user", "5.1.1", 550, "5.1.1"),
        ("smtp; 550 no such user", "4.4.7", 550, ""),  # of another class: not what the reply meant
        ("550 5.7.1 no type", "5.0.0", 550, "5.7.1"),
        ("smtp; 5.1.1 no code", "5.1.2", 500, "5.1.2"),
        ("smtp; 5501 is no code", "5.1.2", 500, "5.1.2"),
        ("X-Unix; 550 is no reply", "5.2.2", 500, "5.2.2"),
        ("", "5.1.1", 500, "5.1.1"),
        ("", "4.4.7", 400, "4.4.7"),
        ("", "6.1.1", 0, ""),
        ("", "5.1.1111", 0, ""),
        ("", "", 0, ""),
    ],
)
def test_codes(diagnostic: str, status: str, code: int, enhanced: str) -> None:
    fields = "Final-Recipient: rfc822; a@example.org\r\nAction: failed\r\n"
    fields += f"Status: {status}\r\n" if status else ""
    fields += f"Diagnostic-Code: {diagnostic}\r\n" if diagnostic else ""
    found = one(fields)
    assert (found.code, found.enhanced) == (code, enhanced)


@pytest.mark.parametrize(
    "written",
    [
        "rfc822; ä@example.org",
        "utf-8; ä@example.org",
        r"utf-8; \x{E4}@example.org",
        r"utf-8; \x{e4}@example.org",
        "ä@example.org",
    ],
)
def test_addresses_that_are_not_ascii(written: str) -> None:
    status = f"Reporting-MTA: dns; mx\r\n\r\nFinal-Recipient: {written}\r\nAction: failed\r\n"
    for kind in ("message/delivery-status", "message/global-delivery-status"):
        [recipient] = read(status, kind=kind).recipients
        assert Address("ä", "example.org") in recipient.addresses


@pytest.mark.parametrize(
    "kind", ["message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"]
)
@pytest.mark.parametrize("encoding", ["7bit", "quoted-printable"])
def test_the_returned_message(kind: str, encoding: str) -> None:
    third = (
        f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        "Subject: hi\r\nMessage-ID:\r\n <1@example.org>\r\n\r\nMessage-ID: <2@example.org>\r\n"
    )
    assert read("Reporting-MTA: dns; mx\r\n", third=third).message_id == "<1@example.org>"


def test_what_is_unusual() -> None:
    base64 = "Content-Transfer-Encoding: base64\r\n"
    encoded = "UmVwb3J0aW5nLU1UQTogZG5zOyBteAoKRmluYWwtUmVjaXBpZW50OiByZmM4MjI7YUBleGFtcGxlLm9yZwo="
    assert read(encoded, more=base64).recipients[0].final_recipient == "a@example.org"
    # No group for the message; more empty lines than there should be, with spaces; bare LF.
    assert len(read("Final-Recipient: rfc822; a@b.example\r\nAction: failed\r\n").recipients) == 1
    found = read(
        "\n\nReporting-MTA: dns; mx\n \t\n\n\nFinal-Recipient: rfc822; a@b.example\n\n\nAction: failed\n"
    )
    assert [r.final_recipient for r in found.recipients] == ["a@b.example", ""]
    assert read("").recipients == ()
    assert one("Final-Recipient: no address at all\r\n").addresses == ()
    assert one("Final-Recipient: rfc822;\r\nAction: failed").addresses == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Subject: hi\r\n\r\nhi\r\n",
        b"Content-Type: multipart/report; report-type=delivery-status\r\n\r\nhi\r\n",
        HEADER.encode() + b"--b\r\n\r\nhi\r\n--b--\r\n",
    ],
)
def test_what_is_none(data: bytes) -> None:
    assert read_dsn(data) is None


def test_sizes_are_bounded() -> None:
    block = "Final-Recipient: rfc822; a@example.org\r\nAction: failed\r\n\r\n"
    found = read("Reporting-MTA: dns; mx\r\n\r\n" + block * (MAX_RECIPIENTS + 100))
    assert len(found.recipients) == MAX_RECIPIENTS
    said = one(f"Action: failed\r\nDiagnostic-Code: smtp; 550 {'x' * 100_000}").diagnostic
    assert len(said) == MAX_TEXT - len("smtp; ")


@pytest.mark.parametrize(
    "line", ["\n", " \n", "a\n", "a: b\n", "Action:\n\n", "Final-Recipient: x;\n" * 9 + "\n"]
)
def test_time_is_linear(line: str) -> None:
    with without_ages():
        read_dsn(message(line * (2_000_000 // len(line))))


@given(st.text(alphabet="ab:;\r\n \t<>@.5+\\x{}Action Final-Recipient rfc822", max_size=300))
def test_it_never_raises(status: str) -> None:
    for recipient in read(status).recipients:
        assert isinstance(recipient.addresses, tuple)


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_xtext(text: str) -> None:
    assert decode_xtext(xtext(text)) == text
    assert not set(xtext(text)) & set(" =")
