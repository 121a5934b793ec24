"""The readers of the default plugin set: what each format says, and what is no report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import bounces
from gateway import Address, AutomaticReply, DeliveryStatus, FailureClass, FeedbackReport
from gateway.config.settings import Settings
from gateway.hooks.stages import Hooks
from gateway.mail import report_source
from gateway.mail.report_source import read_source
from gateway.plugins.loading import load_plugins
from tests.counting import never_stalled, without_ages
from tests.docs.pages import all_sections, tables, text
from tests.plugins.report_formats import FORMATS, SENT, Said

Answer = DeliveryStatus | FeedbackReport | AutomaticReply | None


@pytest.fixture(scope="module")
def hooks() -> Hooks:
    return load_plugins(Settings.model_validate({"hostname": "mail.example.org"}), Path())


async def read(hooks: Hooks, data: bytes) -> Answer:
    return await hooks.gateway.read_report(source=read_source(data))


@pytest.mark.parametrize("name", FORMATS)
async def test_a_format(hooks: Hooks, name: str) -> None:
    form = FORMATS[name]
    answer = await read(hooks, form.data)
    assert isinstance(answer, DeliveryStatus)
    found = tuple(
        Said(
            str(one.addresses[0]),
            one.code,
            one.enhanced,
            one.failure,
            one.permanent,
            one.action,
        )
        for one in answer.recipients
    )
    assert found == form.said
    assert answer.message_id == form.message_id


# --- Complaints -----------------------------------------------------------------------------------

ARF = (
    "From: fbl@isp.example\r\nSubject: FW: Your order\r\n"
    'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n'
    "--b\r\nContent-Type: text/plain\r\n\r\nThis is a complaint.\r\n"
    "--b\r\nContent-Type: message/feedback-report\r\n\r\n{fields}\r\n"
    "--b\r\nContent-Type: {kind}\r\n\r\n{sent}\r\n--b--\r\n"
)


def arf(fields: str, kind: str = "message/rfc822", sent: str = SENT) -> bytes:
    return ARF.format(fields=fields.replace("\n", "\r\n"), kind=kind, sent=sent).encode()


async def test_a_feedback_report(hooks: Hooks) -> None:
    fields = (
        "Feedback-Type: Abuse\nUser-Agent: Loop/1.0\nVersion: 1\nSource-IP: 192.0.2.7\n"
        "Original-Mail-From: <shop+AB2@example.org>\nOriginal-Rcpt-To: rfc822;ada@example.net\n"
        "Original-Rcpt-To: <bob@example.net>\nOriginal-Envelope-Id: E+2B1\n"
        "Reporting-MTA: dns; fbl.isp.example\n"
    )
    sent = f"CFBL-Feedback-ID: 111:222:example\n{SENT}"
    assert await read(hooks, arf(fields, sent=sent)) == FeedbackReport(
        feedback_type="abuse",
        recipients=(Address("ada", "example.net"), Address("bob", "example.net")),
        mail_from=Address("shop+AB2", "example.org"),  # no xtext, though it looks like it
        envelope_id="E+2B1",
        message_id="<order-1@example.org>",
        feedback_id="111:222:example",
        user_agent="Loop/1.0",
        source_ip="192.0.2.7",
        reporting_mta="fbl.isp.example",
    )


@pytest.mark.parametrize("kind", ["message/rfc822", "text/rfc822-headers", "text/rfc822-header"])
async def test_what_the_returned_message_adds(hooks: Hooks, kind: str) -> None:
    answer = await read(
        hooks, arf("Feedback-Type: fraud\n", kind, f"Return-Path: <shop+y@example.org>\n{SENT}")
    )
    assert isinstance(answer, FeedbackReport)
    assert answer.is_complaint
    assert answer.mail_from == Address("shop+y", "example.org")
    assert answer.recipients == (Address("ada", "example.net"),)
    hidden = await read(
        hooks, arf("Feedback-Type: abuse\n", kind, SENT.replace("ada@example.net", "undisclosed"))
    )
    assert isinstance(hidden, FeedbackReport)
    assert hidden.recipients == ()


@pytest.mark.parametrize("kind", ["not-spam", "auth-failure", "opt-out", "virus", "other", ""])
async def test_no_complaints(hooks: Hooks, kind: str) -> None:
    answer = await read(hooks, arf(f"Feedback-Type: {kind}\n"))
    assert isinstance(answer, FeedbackReport)
    assert (answer.feedback_type, answer.is_complaint) == (kind or "other", False)


async def test_feedback_whose_fields_lost_their_part(hooks: Hooks) -> None:
    data = (
        "From: fbl@isp.example\r\nSubject: FW\r\nContent-Type: text/plain\r\n\r\nA complaint:\r\n\r\n"
        "User-Agent: Loop/1.0\r\nFeedback-Type: abuse\r\nOriginal-Rcpt-To: ada@example.net\r\n\r\n" + SENT
    )
    answer = await read(hooks, data.encode())
    assert isinstance(answer, FeedbackReport)
    assert (answer.feedback_type, answer.user_agent) == ("abuse", "Loop/1.0")
    assert (answer.recipients, answer.message_id) == (
        (Address("ada", "example.net"),),
        "<order-1@example.org>",
    )


@pytest.mark.parametrize("returned", [True, False])
async def test_a_complaint_without_fields(hooks: Hooks, returned: bool) -> None:
    part = (
        f"--b\r\nContent-Type: message/rfc822\r\n\r\nX-HmXmrOriginalRecipient: bob@example.net\r\n{SENT}\r\n"
    )
    data = (
        "From: staff@isp.example\r\nSubject: complaint about message from 192.0.2.7\r\n"
        f"Content-Type: multipart/mixed; boundary=b\r\n\r\n{part if returned else ''}--b--\r\n"
    )
    answer = await read(hooks, data.encode())
    if not returned:
        assert answer is None
        return
    assert isinstance(answer, FeedbackReport)
    assert (answer.is_complaint, answer.recipients) == (True, (Address("bob", "example.net"),))
    assert answer.message_id == "<order-1@example.org>"


# --- Amazon's -------------------------------------------------------------------------------------


def sns(told: dict[str, Any], wrapped: bool) -> bytes:
    text = json.dumps(told)
    text = json.dumps({"Type": "Notification", "Message": text}) if wrapped else text
    header = b"From: no-reply@sns.amazonaws.com\r\nSubject: AWS Notification Message\r\n\r\n"
    return header + text.encode() + b"\r\n\r\n--\r\nIf you wish to stop receiving these ...\r\n"


@pytest.mark.parametrize("wrapped", [False, True])
async def test_amazon_s_notifications(hooks: Hooks, wrapped: bool) -> None:
    mail = {"source": "shop@example.org", "commonHeaders": {"messageId": "<order-1@example.org>"}}
    gone = {
        "emailAddress": "ada@example.net",
        "action": "failed",
        "status": "5.1.1",
        "diagnosticCode": "smtp; 550 5.1.1 nobody",
    }
    bounce = {"bounceType": "Permanent", "bouncedRecipients": [gone], "reportingMTA": "dsn; out.example.com"}
    answer = await read(hooks, sns({"notificationType": "Bounce", "bounce": bounce, "mail": mail}, wrapped))
    assert isinstance(answer, DeliveryStatus)
    [one] = answer.recipients
    assert (one.code, one.enhanced, one.failure, one.permanent) == (550, "5.1.1", "bad-mailbox", True)
    assert (answer.reporting_mta, answer.message_id) == ("out.example.com", "<order-1@example.org>")

    complaint = {
        "complainedRecipients": [{"emailAddress": "ada@example.net"}],
        "complaintFeedbackType": "abuse",
    }
    told = {"notificationType": "Complaint", "complaint": complaint, "mail": mail}
    answer = await read(hooks, sns(told, wrapped))
    assert isinstance(answer, FeedbackReport)
    assert (answer.is_complaint, answer.recipients) == (True, (Address("ada", "example.net"),))

    delivery = {"recipients": ["ada@example.net"], "smtpResponse": "250 ok"}
    answer = await read(
        hooks, sns({"notificationType": "Delivery", "delivery": delivery, "mail": mail}, wrapped)
    )
    assert isinstance(answer, DeliveryStatus)
    [one] = answer.recipients
    assert (one.action, one.failure, one.permanent) == ("delivered", "", False)


@pytest.mark.parametrize(
    "text",
    ["{", "[" * 60_000, '{"a":' * 10_000, '{"notificationType": "Bounce"}', '{"notificationType": []}', "{}",
     '{"notificationType": "Bounce", "bounce": {"bouncedRecipients": [1, {"emailAddress": 2}]}}'],
)  # fmt: skip
async def test_json_that_is_not_amazon_s(hooks: Hooks, text: str) -> None:
    answer = await read(hooks, b"Subject: hi\r\n\r\n" + text.encode())
    assert answer is None or isinstance(answer, DeliveryStatus)


# --- Neither --------------------------------------------------------------------------------------

AWAY = "I am away, and cannot read your message; it could not be delivered to me. Call ada@example.net.\r\n"
AUTOMATIC = {
    "RFC 3834": "Auto-Submitted: auto-replied\r\nSubject: Re: Your order",
    "RFC 3834, with parameters": "Auto-Submitted: auto-replied; owner-email=x (away)\r\nSubject: hi",
    "by its subject": "Subject: Automatic reply: Your order",
    "encoded": "Subject: =?utf-8?q?R=C3=A9ponse_automatique_:_votre_commande?=",
    "old custom": "X-Autoreply: yes\r\nSubject: hi",
    "older custom": "Precedence: auto_reply\r\nSubject: hi",
    "from a server": "From: Out of office <postmaster@example.net>\r\nSubject: Out of office: Your order",
    "MDN": (
        "Subject: Read: Your order\r\nContent-Type: multipart/report; boundary=b; "
        "report-type=disposition-notification"
    ),
}


@pytest.mark.parametrize("name", AUTOMATIC)
async def test_automatic_replies(hooks: Hooks, name: str) -> None:
    header = AUTOMATIC[name]
    sender = "" if "From:" in header else "From: Ada <ada@example.net>\r\n"
    text = "Thank you." if "postmaster" in header else AWAY
    answer = await read(hooks, f"Return-Path: <>\r\n{sender}{header}\r\n\r\n{text}".encode())
    assert isinstance(answer, AutomaticReply)


async def test_a_disposition_notification_has_its_own_part(hooks: Hooks) -> None:
    data = (
        "From: ada@example.net\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\r\nRead.\r\n"
        "--b\r\nContent-Type: message/disposition-notification\r\n\r\n"
        "Final-Recipient: rfc822; ada@example.net\r\n"
        "Disposition: automatic-action/MDN-sent-automatically; deleted\r\n--b--\r\n"
    )
    assert await read(hooks, data.encode()) == AutomaticReply("a disposition notification")


ORDINARY = {
    "a person's": (
        "From: Ada <ada@example.net>\r\nSubject: Re: Your order\r\n"
        "\r\nIt was not delivered! <a@b.example>:\r\n"
    ),
    "a newsletter": (
        "From: no-reply@example.net\r\nSubject: News\r\nList-Id: <n>\r\n\r\nWrite to ada@example.net.\r\n"
    ),
    "an empty one": "From: MAILER-DAEMON\r\nSubject: failure notice\r\n\r\n",
    "about nobody": (
        "From: MAILER-DAEMON\r\nSubject: failure notice\r\n\r\nSomething could not be delivered.\r\n"
    ),
    "nothing": "",
    "with the null sender": (
        "Return-Path: <>\r\nFrom: Ada <ada@example.net>\r\nSubject: Re: hi\r\n\r\n"
        "I could not send it:\r\n\r\n  bob@example.net\r\n"
    ),
    "with such a subject": (
        "From: Ada <ada@example.net>\r\nSubject: The train was delayed\r\n\r\n  bob@example.net\r\n"
    ),
}


@pytest.mark.parametrize("name", ORDINARY)
async def test_ordinary_mail(hooks: Hooks, name: str) -> None:
    assert await read(hooks, ORDINARY[name].encode()) is None


# --- Anything ---------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=150, deadline=None)
async def test_anything_is_read_or_not(hooks: Hooks, data: st.DataObject) -> None:
    """Formats with pieces cut out, doubled and changed: never an exception, which the log would have."""
    whole = data.draw(
        st.sampled_from([form.data for form in FORMATS.values()] + [arf("Feedback-Type: abuse\n")])
    )
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(whole)))
        end = data.draw(st.integers(start, min(len(whole), start + 200)))
        put = data.draw(st.one_of(st.just(b""), st.binary(max_size=20), st.just(whole[start:end] * 3)))
        whole = whole[:start] + put + whole[end:]
    tallies = [tally for plugin, hook, tally in hooks.calls if hook == "read_report"]
    before = sum(tally.failures for tally in tallies)
    await read(hooks, whole)
    assert sum(tally.failures for tally in tallies) == before


# --- The event loop's turns -------------------------------------------------------------------------

MANY = 300
WORDS = b"mailbox connect host domain address message not user could "


def numbered(line: bytes, count: int = MANY) -> bytes:
    return b"".join(line.replace(b"#", b"%d" % number) for number in range(count))


def hostile(times: int = 1) -> dict[str, bytes]:
    """Texts that are hard to read: a little more than is read of one, or so many times more."""
    spaces = b" " * 30_000 * times
    one = b"Final-Recipient: rfc822; u@b.example\nAction: failed\n((\n\n"
    return {
        "at": b"a@" * 40_000 * times,
        "addresses": numbered(b" u#@example.org\n", 4_000 * times),
        "angles": b"<a@" * 25_000 * times,
        "braces": b"{" * 70_000 * times,
        "a line of spaces": b"a@b.example:" + spaces + b"x" * 600 + spaces + b"y",
        "an address between spaces": b"<a@b.example>: " + spaces + b"x " * 15_000 * times,
        "a title of spaces": b"--- a" + 2 * spaces + b"--- b",
        "many at": b"\n".join([b"<" + b"@" * 600 + b">:"] * 100 * times),
        "dashes": b"-" * 70_000 * times,
        "empty lines": b" \n" * 35_000 * times,
        "fields": b"a:\n" * 25_000 * times,
        "words": WORDS * 1_200 * times,
        "nots": b"not " * 16_000 * times,
        "one address, again and again": one * 1_100 * times,
        "qmail": numbered(b"<u#@b.example>:\n" + WORDS * 3 + b"\n\n", MANY * times),
        "exim": numbered(b"  u#@b.example\n    " + WORDS * 3 + b"\n", MANY * times),
        "sendmail": b"--- The following addresses had errors ---\n"
        + numbered(b"<u#@b.example>\n", MANY * times)
        + b"--- Transcript of session follows ---\n"
        + numbered(b"550 <u#@b.example>... " + WORDS * 2 + b"\n", MANY * times),
        "exchange": b"did not reach the following recipient(s):\n"
        + numbered(b"u#@b.example\n" + WORDS * 3 + b"\n", MANY * times),
    }


HOSTILE = hostile()
FIELDS = {
    "recipients": numbered(
        b"Final-Recipient: rfc822; u#@b.example\nAction: failed\nDiagnostic-Code: smtp; 550 # "
        + WORDS * 2
        + b"\n\n",
        1_100,
    ),
    "groups": b"Action: failed\n\n" * 60_000,
    "lines": b"a:\n" * 300_000,
    "folds": b"Action: a\n" + b" b\n" * 300_000,
    "empty lines": b"\n" * 900_000,
}


@pytest.mark.parametrize("name", [*HOSTILE, *(f"fields: {name}" for name in FIELDS)])
async def test_the_loop_has_its_turns(hooks: Hooks, name: str) -> None:
    header = b"Return-Path: <>\r\nFrom: MAILER-DAEMON@mx.example.com\r\nSubject: failure notice\r\n"
    if name in HOSTILE:
        data = header + b"\r\nIt could not be delivered.\r\n" + HOSTILE[name]
    else:
        data = (
            header
            + b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\n"
            + HOSTILE["words"]
            + b"\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
            + FIELDS[name.removeprefix("fields: ")]
            + b"\r\n--b--\r\n"
        )
    source = read_source(data)
    with never_stalled(of=("",)) as steps:
        await trio.lowlevel.checkpoint()
        found = await hooks.gateway.read_report(source=source)
        await trio.lowlevel.checkpoint()
    if isinstance(found, DeliveryStatus):
        assert steps.taken > len(found.recipients)


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_text_takes_quadratic_time(hooks: Hooks, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of so little text as is read that would only be seconds."""
    monkeypatch.setattr(report_source, "MAX_TEXT", 10 * report_source.MAX_TEXT)
    data = b"Return-Path: <>\r\nFrom: MAILER-DAEMON@mx.example.com\r\n\r\n" + hostile(10)[name]
    with without_ages():
        await hooks.gateway.read_report(source=read_source(data))


# --- Real ones --------------------------------------------------------------------------------------


@pytest.mark.skipif(not bounces.CORPUS.is_dir(), reason="the corpus of real messages is not there")
async def test_real_messages(hooks: Hooks) -> None:
    """Floors, a little under what is reached: `python -m benchmarks.bounces` prints it all."""
    figures = await bounces.score(bounces.CORPUS, hooks)
    assert figures.misread == 0
    assert figures.kinds / figures.messages >= 0.98
    assert figures.recipients / figures.bounces >= 0.97
    assert figures.accuracy >= 0.97
    assert figures.balanced >= 0.95
    for label in ("4", "5"):
        assert figures.recall(label) >= 0.94
        assert figures.precision(label) >= 0.90


# --- The page ----------------------------------------------------------------------------------------


def test_the_page_has_the_readers_and_the_classes(hooks: Hooks) -> None:
    sections = all_sections(text("reports.md"))
    [readers] = tables(sections["What is read"])
    assert tuple(row["plugin"].strip("`") for row in readers) == hooks.gateway.plugins("read_report")
    [classes] = tables(sections["Classes"])
    assert [row["class"].strip("`") for row in classes] == [name for name in get_args(FailureClass) if name]
