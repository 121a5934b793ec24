"""AUTH in the server machine (RFC 4954)."""

from base64 import b64encode
from dataclasses import replace

import pytest

from gateway.smtp.commands import Auth, Body
from gateway.smtp.events import AuthResponse, Connected, NeedData
from gateway.smtp.replies import Reply
from gateway.smtp.server import Offer, Question, SmtpServer, State
from tests.smtp.helpers import LIMITS, ServerRun, serve

OFFER = Offer(starttls=True, login=True)
BOTH = ("PLAIN", "LOGIN")
HELLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@example.org>\r\n"
GOOD = Reply(235, "2.7.0", ("Yes",))
BAD = Reply(535, "5.7.8", ("No",))
SECRET = b"\0user\0pencil"
PLAIN = b"AUTH PLAIN " + b64encode(SECRET) + b"\r\n"


def decide(question: Question) -> Reply | bytes | None:
    """One challenge for those who say nothing at first; then it depends."""
    match question:
        case Auth(initial=None):
            return b"more?"
        case Auth(initial=response) | AuthResponse(response):
            return GOOD if response == SECRET else BAD
    return None


def login(*lines: bytes, mechanisms: tuple[str, ...] = BOTH, offer: Offer = OFFER) -> ServerRun:
    """Each line comes after the answer to the last one, whole or byte by byte."""
    runs = [ServerRun(LIMITS, decide, offer, mechanisms) for _ in range(2)]
    for line in (HELLO, *lines):
        runs[0].feed([line])
        runs[1].feed([line[index : index + 1] for index in range(len(line))])
    assert runs[0].output == runs[1].output
    assert runs[0].closed == runs[1].closed
    return runs[0]


def test_initial_response() -> None:
    run = login(PLAIN, MAIL)
    assert run.codes == ["250", "235 2.7.0", "250 2.0.0"]
    assert run.machine.logged_in


def test_challenge() -> None:
    run = login(b"auth plain\r\n", b64encode(SECRET) + b"\r\n", MAIL)
    assert b"334 bW9yZT8=\r\n" in run.output
    assert run.codes == ["250", "334", "235 2.7.0", "250 2.0.0"]
    assert run.events[1:3] == [Auth("PLAIN", None), AuthResponse(SECRET)]


def test_empty_initial_response_is_not_none() -> None:
    run = login(b"AUTH PLAIN =\r\n")
    assert run.events[1] == Auth("PLAIN", b"")
    assert run.codes[-1] == "535 5.7.8"


def test_empty_response() -> None:
    run = login(b"AUTH PLAIN\r\n", b"\r\n")
    assert run.events[2] == AuthResponse(b"")


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((b"AUTH\r\n",), "501 5.5.4"),
        ((b"AUTH \r\n",), "501 5.5.4"),
        ((b"AUTH PL@IN\r\n",), "501 5.5.4"),
        ((b"AUTH CRAM-MD5\r\n",), "504 5.5.4"),
        ((b"AUTH PLAIN ???\r\n",), "501 5.5.2"),
        ((b"AUTH PLAIN QUJD x\r\n",), "501 5.5.2"),
        ((b"AUTH PLAIN \xc3\xbc\r\n",), "501 5.5.4"),
        ((b"AUTH PLAIN QUJD\r\n",), "535 5.7.8"),
        ((b"AUTH PLAIN\r\n", b"*\r\n"), "501 5.7.0"),
        ((b"AUTH PLAIN\r\n", b"not base64\r\n"), "501 5.5.2"),
        ((b"AUTH PLAIN\r\n", b"QUJD\n"), "501 5.5.2"),
        ((b"AUTH PLAIN\r\n", b"=\r\n"), "501 5.5.2"),
        ((b"AUTH PLAIN\r\n", b"QUJD\r\n"), "535 5.7.8"),
        ((b"AUTH PLAIN " + b"A" * 12288 + b"\r\n",), "500 5.5.2"),
        ((b"AUTH PLAIN\r\n", b"A" * 12288 + b"\r\n"), "500 5.5.2"),
        ((b"NOOP " + b"x" * 2000 + b"\r\n",), "500 5.5.2"),
    ],
)
def test_refused_and_the_session_goes_on(lines: tuple[bytes, ...], code: str) -> None:
    run = login(*lines, b"NOOP\r\n", MAIL, PLAIN)
    assert run.codes[-4:] == [code, "250 2.0.0", "530 5.7.0", "235 2.7.0"]


def test_longest_response() -> None:
    line = b64encode(b"x" * 9213) + b"\r\n"
    assert login(b"AUTH PLAIN\r\n", line).codes[-1] == "535 5.7.8"
    assert login(b"AUTH PLAIN " + b64encode(b"x" * 9204) + b"\r\n").codes[-1] == "535 5.7.8"


def test_only_once() -> None:
    assert login(PLAIN, PLAIN).codes == ["250", "235 2.7.0", "503 5.5.1"]


def test_not_in_a_transaction() -> None:
    assert login(PLAIN, MAIL, PLAIN).codes[-1] == "503 5.5.1"


def test_before_hello() -> None:
    assert serve(PLAIN, offer=OFFER, mechanisms=BOTH).codes == ["503 5.5.1"]


def test_not_offered() -> None:
    assert serve(HELLO + PLAIN).codes == ["250", "502 5.5.1"]


def test_only_within_tls() -> None:
    run = ServerRun(LIMITS, decide, OFFER, tls_mechanisms=BOTH).feed([HELLO])
    assert b"AUTH" not in run.output
    run.feed([PLAIN, MAIL])
    assert run.codes == ["250", "538 5.7.11", "530 5.7.0"]
    assert b"Send STARTTLS first" in run.output
    run.feed([b"STARTTLS\r\n", HELLO])
    assert b"250 AUTH PLAIN LOGIN\r\n" in run.output
    run.feed([MAIL, PLAIN, MAIL])
    assert run.codes[-3:] == ["530 5.7.0", "235 2.7.0", "250 2.0.0"]


def test_tls_ends_a_login() -> None:
    run = ServerRun(LIMITS, decide, OFFER, BOTH, tls_mechanisms=BOTH)
    run.feed([HELLO, PLAIN, b"STARTTLS\r\n", HELLO, MAIL])
    assert run.codes[-1] == "530 5.7.0"


@pytest.mark.parametrize("behind", [MAIL, b"x", b"\r\n", b"NOOP\r\n"])
def test_nothing_may_stand_behind(behind: bytes) -> None:
    run = ServerRun(LIMITS, decide, OFFER, BOTH).feed([HELLO, PLAIN + behind])
    assert run.closed
    assert run.codes == ["250", "503 5.5.1"]
    assert run.events == [Connected()]
    run = ServerRun(LIMITS, decide, OFFER, BOTH)
    run.feed([HELLO, b"AUTH PLAIN\r\n", b64encode(SECRET) + b"\r\n" + behind])
    assert run.closed
    assert not run.machine.logged_in
    assert run.codes == ["250", "334", "503 5.5.1"]


def test_failures_are_limited() -> None:
    bad, ended = b"AUTH PLAIN QUJD\r\n", (b"AUTH PLAIN\r\n", b"*\r\n")
    run = login(bad, *ended, bad, *ended, bad, PLAIN)
    assert run.closed
    assert run.codes[-2:] == ["535 5.7.8", "421 4.7.0"]


def test_421_closes() -> None:
    run = ServerRun(LIMITS, lambda q: Reply(421, "4.7.0") if isinstance(q, Auth) else None, OFFER, BOTH)
    assert run.feed([HELLO, PLAIN]).closed


def test_end_of_input_within_a_login() -> None:
    run = login(b"AUTH PLAIN\r\n", b"QUJ")
    assert run.machine.state is State.AUTH
    assert run.feed([b""]).closed


def test_nothing_to_challenge() -> None:
    machine = SmtpServer(LIMITS, OFFER, mechanisms=BOTH)
    with pytest.raises(RuntimeError, match="nothing to challenge"):
        machine.challenge(b"")
    machine.next_event()
    machine.answer(machine.greeting)
    machine.receive_data(HELLO + b"AUTH PLAIN\r\n")
    assert machine.next_event() == Auth("PLAIN", None)
    with pytest.raises(ValueError, match="is no answer"):
        machine.answer(Reply(334, None))
    machine.challenge(b"")
    assert machine.data_to_send().endswith(b"\r\n334 \r\n")
    assert isinstance(machine.next_event(), NeedData)


def test_no_password_is_shown() -> None:
    assert "pencil" not in repr(Auth("PLAIN", SECRET)) + repr(AuthResponse(SECRET))


# --- Parameters that come with what is offered ---

MORE = replace(OFFER, more=lambda: ("DSN", "FUTURERELEASE 5184000 2027-01-01T00:00:00Z"))


def test_parameters() -> None:
    run = login(
        PLAIN,
        b"MAIL FROM:<a@x> HOLDFOR=60 RET=hdrs ENVID=a+2Bb AUTH=<> BODY=8BITMIME\r\n",
        b"RCPT TO:<b@x> NOTIFY=success,FAILURE ORCPT=rfc822;b+40x\r\n",
        b"RCPT TO:<c@x>\r\n",
        offer=MORE,
    )
    envelope = run.machine.envelope
    assert envelope is not None
    assert (envelope.hold_for, envelope.ret, envelope.envid) == (60, "HDRS", "a+b")
    assert envelope.body is Body.EIGHT_BIT
    assert [wish.notify for wish in envelope.dsn] == [("SUCCESS", "FAILURE"), ()]
    assert [wish.orcpt for wish in envelope.dsn] == ["rfc822;b@x", ""]
    assert b"250 FUTURERELEASE 5184000 2027-01-01T00:00:00Z\r\n" in run.output


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        (b"HOLDFOR=0", "501 5.5.4"),
        (b"HOLDFOR=-1", "501 5.5.4"),
        (b"HOLDFOR=1234567890", "501 5.5.4"),
        (b"HOLDFOR", "501 5.5.4"),
        (b"HOLDUNTIL=tomorrow", "501 5.5.4"),
        (b"HOLDUNTIL=2027-13-01T00:00:00Z", "501 5.5.4"),
        (b"HOLDUNTIL=2027-01-01T00:00:00", "501 5.5.4"),
        (b"HOLDFOR=60 HOLDUNTIL=2027-01-01T00:00:00Z", "501 5.5.4"),
        (b"HOLDFOR=60 HOLDFOR=60", "501 5.5.4"),
        (b"HOLDUNTIL=2027-01-01T01:00:00+01:00", "250 2.0.0"),
        (b"HOLDUNTIL=2027-01-01T00:00:00.5Z", "250 2.0.0"),
        (b"RET=SOME", "501 5.5.4"),
        (b"ENVID=" + b"x" * 101, "501 5.5.4"),
        (b"ENVID=" + b"x" * 100, "250 2.0.0"),
        (b"ENVID=a+0D+0Ab", "501 5.5.4"),
        (b"AUTH=a+40x", "250 2.0.0"),
        (b"AUTH=+zz", "501 5.5.4"),
        (b"UNKNOWN=1", "555 5.5.4"),
    ],
)
def test_values_of_mail(parameters: bytes, code: str) -> None:
    run = login(PLAIN, b"MAIL FROM:<a@x> " + parameters + b"\r\n", offer=MORE)
    assert run.codes[-1] == code


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        (b"NOTIFY=NEVER", "250 2.0.0"),
        (b"NOTIFY=NEVER,SUCCESS", "501 5.5.4"),
        (b"NOTIFY=", "501 5.5.4"),
        (b"NOTIFY=FAILURE,FAILURE", "501 5.5.4"),
        (b"NOTIFY=SOMETIMES", "501 5.5.4"),
        (b"ORCPT=b@x", "501 5.5.4"),
        (b"ORCPT=rfc822;", "501 5.5.4"),
        (b"ORCPT=utf-8;", "501 5.5.4"),
        (b"ORCPT=rfc822;" + b"x" * 501, "501 5.5.4"),
        (b"ORCPT=rfc822;" + b"x" * 500, "250 2.0.0"),
    ],
)
def test_values_of_rcpt(parameters: bytes, code: str) -> None:
    run = login(PLAIN, MAIL, b"RCPT TO:<b@x> " + parameters + b"\r\n", offer=MORE)
    assert run.codes[-1] == code


def test_parameters_that_are_not_offered() -> None:
    for parameter in (b"HOLDFOR=1", b"RET=FULL", b"ENVID=x", b"AUTH=<>", b"REQUIRETLS"):
        assert serve(HELLO + b"MAIL FROM:<a@x> " + parameter + b"\r\n").codes[-1] == "555 5.5.4"
    assert serve(HELLO + MAIL + b"RCPT TO:<b@x> NOTIFY=NEVER\r\n").codes[-1] == "555 5.5.4"
