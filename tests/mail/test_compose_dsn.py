"""Our notifications are what RFC 3464 says: read by the email package, by ours, and by its grammar."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.address import Address
from gateway.mail.compose_dsn import MAX_TRANSCRIPT_LINES, DsnDraft, DsnRecipient, compose_dsn
from gateway.mail.reading import parse_header, parse_message
from tests.mail.helpers import read_dsn

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
HEADER = b"From: mox@example.org\r\nSubject: hi\r\nMessage-ID: <1@example.org>\r\n"
JANE = DsnRecipient(
    address=Address.parse("jane@example.net"),
    action="failed",
    status="5.1.1",
    original="rfc822;jane.doe@example.com",
    remote_mta="mx.example.net",
    diagnostic="550 5.1.1 no such user",
    error="remote answered 550 5.1.1 no such user\nreally not",
    transcript="> RCPT TO:<jane@example.net>\n< 550 5.1.1 no such user",
    last_attempt=NOW,
)


def draft(*recipients: DsnRecipient, **changes: Any) -> DsnDraft:
    fields: dict[str, Any] = {
        "hostname": "gateway.example",
        "to": Address.parse("mox@example.org"),
        "message_id": "<n@gateway.example>",
        "date": NOW,
        "recipients": recipients or (JANE,),
        "arrived": NOW - timedelta(hours=1),
        "subject": "hi",
        "original_message_id": "<1@example.org>",
        "original": HEADER,
        "full": False,
    }
    return DsnDraft(**(fields | changes))


def parsed(data: bytes) -> EmailMessage:
    message: Any = message_from_bytes(data, policy=policy.default)
    assert [part.defects for part in message.walk() if part.defects] == []
    assert isinstance(message, EmailMessage)
    return message


# RFC 3464, 2.1 to 2.3, for the fields that we write, in its order.
_TEXT = r"[!-~](?:[ -~]|\r\n(?= ))*"
_TYPED = rf"[a-zA-Z0-9-]+;(?:[ ]?){_TEXT}"
_DATE = r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}"
_GRAMMAR = re.compile(
    rf"Reporting-MTA: dns; [a-z0-9.-]+\r\n(?:Original-Envelope-Id: {_TEXT}\r\n)?"
    rf"Arrival-Date: {_DATE}\r\n(?:Future-Release-Request: (?:for|until);{_TEXT}\r\n)?"
    rf"(?:\r\n(?:Original-Recipient: {_TYPED}\r\n)?Final-Recipient: rfc822; {_TEXT}\r\n"
    rf"Action: (?:failed|delayed|delivered|relayed|expanded)\r\nStatus: [245]\.\d{{1,3}}\.\d{{1,3}}\r\n"
    rf"(?:Remote-MTA: dns; {_TEXT}\r\n)?(?:Diagnostic-Code: smtp; {_TEXT}\r\n)?"
    rf"(?:Last-Attempt-Date: {_DATE}\r\n)?(?:Will-Retry-Until: {_DATE}\r\n)?)+"
)


def status_of(data: bytes) -> str:
    """The delivery-status part's octets, by nothing but its delimiters."""
    boundary = re.search(rb'boundary="([^"]+)"', data)
    assert boundary is not None
    pieces = data.split(b"\r\n--" + boundary[1])
    assert len(pieces) == 5
    assert pieces[4] == b"--\r\n"
    return pieces[2].partition(b"\r\n\r\n")[2].decode()


def test_a_failure_for_the_email_package() -> None:
    data = compose_dsn(draft(envelope_id="QQ314", future_release="for;3600"))
    message = parsed(data)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["Return-Path"] == "<>"
    assert message["From"].addresses[0].addr_spec == "postmaster@gateway.example"
    assert message["To"] == "mox@example.org"
    assert message["Subject"] == "Not delivered: hi"
    assert message["References"] == message["In-Reply-To"] == "<1@example.org>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert parsedate_to_datetime(message["Date"]) == NOW
    people, status, returned = message.iter_parts()
    said = people.get_content()
    for words in ("jane@example.net", "550 5.1.1 no such user", "really not", "> RCPT TO:<jane@example.net>"):
        assert words in said
    assert "\r\nThe server was mx.example.net.\r\n" in said
    assert status.get_content_type() == "message/delivery-status"
    payload: Any = status.get_payload()
    about, recipient = payload
    assert dict(about.items()) == {
        "Reporting-MTA": "dns; gateway.example",
        "Original-Envelope-Id": "QQ314",
        "Arrival-Date": "Wed, 2 Jan 2030 02:04:05 +0000",
        "Future-Release-Request": "for;3600",
    }
    assert dict(recipient.items()) == {
        "Original-Recipient": "rfc822;jane.doe@example.com",
        "Final-Recipient": "rfc822; jane@example.net",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.net",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
        "Last-Attempt-Date": "Wed, 2 Jan 2030 03:04:05 +0000",
    }
    assert returned.get_content_type() == "text/rfc822-headers"
    assert returned.get_payload(decode=True) == HEADER
    assert _GRAMMAR.fullmatch(status_of(data))


@pytest.mark.parametrize(
    ("remote", "written"),
    [
        ("192.0.2.1", "[192.0.2.1]"),
        ("2001:db8::1", "[IPv6:2001:db8::1]"),
        ("mx1.example.net", "mx1.example.net"),
    ],
)
def test_a_remote_without_a_name(remote: str, written: str) -> None:
    data = compose_dsn(draft(replace(JANE, remote_mta=remote)))
    assert f"\r\nRemote-MTA: dns; {written}\r\n".encode() in data
    assert _GRAMMAR.fullmatch(status_of(data))


def test_our_own_reader_reads_it() -> None:
    data = compose_dsn(draft(JANE, replace(JANE, address=Address.parse("x@example.net"))))
    found = read_dsn(data)
    assert found is not None
    assert (found.reporting_mta, found.message_id) == ("gateway.example", "<1@example.org>")
    assert [r.final_recipient for r in found.recipients] == ["jane@example.net", "x@example.net"]
    assert {(r.action, r.code, r.enhanced) for r in found.recipients} == {("failed", 550, "5.1.1")}
    head = parse_header(data, null_sender=True)
    assert head.dsn
    assert head.automated
    assert [p.content_type for p in parse_message(data).structure.parts] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    assert _GRAMMAR.fullmatch(status_of(data))


def test_a_delay() -> None:
    times = (NOW + timedelta(hours=1), NOW + timedelta(hours=3))
    recipient = replace(
        JANE,
        action="delayed",
        status="4.2.1",
        diagnostic="450 later",
        next_attempts=times,
        retry_until=times[1],
    )
    data = compose_dsn(draft(recipient))
    message = parsed(data)
    people, _, _ = message.iter_parts()
    assert message["Subject"] == "Not yet delivered: hi"
    assert "Wed, 2 Jan 2030 04:04:05 +0000" in people.get_content()
    assert "It will be tried until Wed, 2 Jan 2030 06:04:05 +0000" in people.get_content()
    assert "Will-Retry-Until: Wed, 2 Jan 2030 06:04:05 +0000\r\n" in status_of(data)
    assert _GRAMMAR.fullmatch(status_of(data))


def test_a_failure_in_doubt() -> None:
    message = parsed(compose_dsn(draft(replace(JANE, status="4.4.2", diagnostic="", unknown=True))))
    people, _, _ = message.iter_parts()
    assert message["Subject"] == "Perhaps not delivered: hi"
    assert people.get_content().startswith("It is not known whether your message was delivered, ")


def test_the_whole_message_comes_back() -> None:
    original = HEADER + b"\r\nGr\xfc\xdfe\r\n"
    data = compose_dsn(draft(original=original, full=True))
    message = parsed(data)
    assert message["Content-Transfer-Encoding"] == "8bit"
    returned = list(message.iter_parts())[2]
    assert returned.get_content_type() == "message/rfc822"
    assert original in data


def test_smtputf8() -> None:
    recipient = replace(JANE, address=Address.parse("jörg@exämple.org"), original="")
    header = "Subject: Grüße\r\nMessage-ID: <1@example.org>\r\n".encode()
    data = compose_dsn(
        draft(recipient, smtputf8=True, to=Address.parse("möx@example.org"), subject="Grüße", original=header)
    )
    message = message_from_bytes(data, policy=policy.default)
    assert message.get_param("report-type") == "global-delivery-status"
    kinds = [part.get_content_type() for part in message.get_payload()]  # type: ignore[union-attr]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global-headers"]
    assert "Final-Recipient: utf-8; jörg@exämple.org\r\n".encode() in data
    found = read_dsn(data)
    assert found is not None
    assert found.recipients[0].addresses == (Address.parse("jörg@exämple.org"),)
    assert found.message_id == "<1@example.org>"
    assert parse_header(data, null_sender=True).dsn


@pytest.mark.parametrize(
    ("original", "ascii_", "utf8"),
    [
        ("utf-8;ä@x.example", r"utf-8;\x{E4}@x.example", "utf-8;ä@x.example"),
        (r"UTF-8;\x{E4}+b@x.example", r"UTF-8;\x{E4}\x{2B}b@x.example", r"UTF-8;\x{E4}+b@x.example"),
        ("utf-8;" + "я" * 60 + "@x.example", "utf-8;" + r"\x{44F}" * 60 + "@x.example", ""),
        ("rfc822;a+b@x.example", "rfc822;a+b@x.example", "rfc822;a+b@x.example"),
    ],
)
def test_the_original_recipient_is_not_ascii(original: str, ascii_: str, utf8: str) -> None:
    """RFC 6533, 3: in message/delivery-status, too, it can be read back as it was."""
    recipient = replace(JANE, original=original)
    data = compose_dsn(draft(recipient))
    assert f"\r\nOriginal-Recipient: {ascii_}\r\n" in status_of(data)
    assert _GRAMMAR.fullmatch(status_of(data))
    assert f"\r\nOriginal-Recipient: {utf8 or original}\r\n" in status_of(
        compose_dsn(draft(recipient, smtputf8=True))
    )
    found = read_dsn(data)
    assert found is not None
    assert found.recipients[0].original_recipient == ascii_.partition(";")[2]


def test_the_final_recipient_is_not_ascii() -> None:
    address = Address.parse("jörg@exämple.org")
    data = compose_dsn(draft(replace(JANE, address=address, original="")))
    assert "\r\nFinal-Recipient: utf-8; j\\x{F6}rg@ex\\x{E4}mple.org\r\n" in status_of(data)
    found = read_dsn(data)
    assert found is not None
    assert found.recipients[0].addresses == (address,)


@pytest.mark.parametrize("utf8", [False, True])
@pytest.mark.parametrize("character", ["a", "ä", "\u4e00", "\U0001f600"])
def test_a_word_fits_a_line(character: str, utf8: bool) -> None:
    word = character * 1_000
    recipient = replace(JANE, original=f"utf-8;{word}", diagnostic=f"550 {word}")
    data = compose_dsn(draft(recipient, smtputf8=utf8, envelope_id=word, future_release=word))
    assert max(len(line) for line in data.split(b"\r\n")) <= 998
    assert data.count(b"\r\nOriginal-Recipient: utf-8;") == 1


def test_long_transcripts_are_cut() -> None:
    transcript = "\n".join(f"> line {number}" for number in range(MAX_TRANSCRIPT_LINES + 5))
    people = next(iter(parsed(compose_dsn(draft(replace(JANE, transcript=transcript)))).iter_parts()))
    said = people.get_content()
    assert "(5 lines left out)" in said
    assert "> line 4\r\n" not in said
    assert "> line 5\r\n" in said


anything = st.text(max_size=40) | st.text(alphabet="ä😀\r\n\0 =?-:x", max_size=2000)


@given(
    subject=anything,
    message_id=anything,
    error=anything,
    diagnostic=anything,
    transcript=anything,
    mta=anything,
    utf8=st.booleans(),
)
def test_nothing_that_others_said_breaks_it(
    subject: str, message_id: str, error: str, diagnostic: str, transcript: str, mta: str, utf8: bool
) -> None:
    recipient = replace(JANE, error=error, diagnostic=diagnostic, transcript=transcript, remote_mta=mta)
    data = compose_dsn(
        draft(
            recipient, subject=subject, original_message_id=message_id, smtputf8=utf8, envelope_id=diagnostic
        )
    )
    found = read_dsn(data)
    assert found is not None
    assert [r.final_recipient for r in found.recipients] == ["jane@example.net"]
    header = data.partition(b"\r\n\r\n")[0]
    names = re.findall(rb"^([A-Za-z-]+):", header, re.MULTILINE)
    assert len(names) == len(set(names))
    assert len(re.findall(rb"^[^ ]", header, re.MULTILINE)) == len(names)
    if not utf8:
        assert _GRAMMAR.fullmatch(status_of(data)), status_of(data)


@pytest.mark.parametrize("original", [b"", b"Subject: no end", b"--x\r\n\r\n"])
def test_odd_originals(original: bytes) -> None:
    assert read_dsn(compose_dsn(draft(original=original))) is not None


def test_a_draft_can_go_to_a_worker_process() -> None:
    """A whole message that is returned is composed beside the event loop."""
    wanted = draft(JANE)
    assert pickle.loads(pickle.dumps(wanted)) == wanted
