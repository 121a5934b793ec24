"""STARTTLS on both sides: what is remembered, and that nothing can be put in before the handshake."""

import pytest

from gateway.smtp.client import AskForTls, SmtpClient
from gateway.smtp.commands import StartTls
from gateway.smtp.events import Connected, Failed, NeedData, Ready, TlsStarting
from gateway.smtp.results import Fate
from gateway.smtp.server import Offer, SmtpServer, State
from tests.smtp.helpers import LIMITS, ConnectionPair, ServerRun, serve, transaction

OFFER = Offer(starttls=True, require_tls=True)
HELLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@example.org>\r\n"
RCPT = b"RCPT TO:<b@example.net>\r\n"
TLS = b"STARTTLS\r\n"


# --- Server ---


def test_offered_until_it_is_used() -> None:
    run = ServerRun(offer=OFFER).feed([HELLO])
    assert b"STARTTLS\r\n" in run.output
    assert b"REQUIRETLS" not in run.output
    before = len(run.output)
    run.feed([TLS])
    assert run.output[before:] == b"220 2.0.0 Start TLS\r\n"
    before = len(run.output)
    run.feed([HELLO])
    assert b"STARTTLS" not in run.output[before:]
    assert b"REQUIRETLS" in run.output[before:]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (TLS, "503 5.5.1"),
        (HELLO + b"STARTTLS now\r\n", "501 5.5.4"),
        (HELLO + MAIL + TLS, "503 5.5.1"),
        (HELLO + MAIL + RCPT + TLS, "503 5.5.1"),
    ],
)
def test_out_of_sequence(script: bytes, code: str) -> None:
    run = serve(script, offer=OFFER)
    assert run.codes[-1] == code
    assert not run.machine.in_tls
    assert serve(script + b"NOOP\r\n", offer=OFFER).codes[-2:] == [code, "250 2.0.0"]


def test_not_offered() -> None:
    assert serve(HELLO + TLS).codes == ["250", "502 5.5.1"]


def test_not_twice() -> None:
    run = ServerRun(offer=OFFER).feed([HELLO, TLS, HELLO, TLS])
    assert run.codes == ["250", "220 2.0.0", "250", "503 5.5.1"]


def test_requiretls_needs_tls() -> None:
    mail = b"MAIL FROM:<a@x> REQUIRETLS\r\n"
    assert serve(HELLO + mail, offer=OFFER).codes[-1] == "555 5.5.4"
    run = ServerRun(offer=OFFER).feed([HELLO, TLS, HELLO, mail])
    assert run.machine.envelope is not None
    assert run.machine.envelope.require_tls


def test_all_is_forgotten() -> None:
    run = ServerRun(offer=OFFER).feed([HELLO, TLS])
    assert run.machine.hello is None
    assert run.machine.envelope is None
    run.feed([MAIL])
    assert run.codes[-1] == "503 5.5.1"  # EHLO first


INJECTED = [
    HELLO,
    MAIL,
    b"RSET\r\n",
    b"x",
    b"\r\n",
    b"NOOP\r\n" + HELLO + MAIL + RCPT + b"DATA\r\nevil\r\n.\r\n",
]


@pytest.mark.parametrize("behind", INJECTED)
def test_what_is_pipelined_behind_it_is_never_read(behind: bytes) -> None:
    run = ServerRun(offer=OFFER).feed([HELLO + TLS + behind])
    assert run.codes == ["250", "503 5.5.1"]
    assert run.closed
    assert run.events == [Connected()]
    assert run.messages == []
    assert run.feed([HELLO]).closed


def test_between_the_answer_and_the_handshake_nothing_is_taken() -> None:
    machine = SmtpServer(LIMITS, OFFER)
    machine.next_event()
    machine.answer(machine.greeting)
    machine.receive_data(HELLO)
    assert isinstance(machine.next_event(), NeedData)
    machine.receive_data(TLS)
    assert machine.next_event() == machine.next_event() == StartTls()
    with pytest.raises(RuntimeError, match="not the machine's"):
        machine.receive_data(MAIL)
    assert machine.state is State.TLS


def test_tls_only_when_due() -> None:
    with pytest.raises(RuntimeError, match="no TLS handshake was due"):
        SmtpServer(LIMITS, OFFER).tls_started()


def test_within_tls_from_the_start() -> None:
    machine = SmtpServer(LIMITS, OFFER, in_tls=True)
    machine.next_event()
    machine.answer(machine.greeting)
    machine.receive_data(HELLO + TLS)
    machine.next_event()
    output = machine.data_to_send()
    assert b"250-STARTTLS" not in output
    assert output.endswith(b"503 5.5.1 TLS is in use already\r\n")


# --- Client ---

EHLO = b"220 mx\r\n250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
PLAIN_EHLO = b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n"


def opened(replies: bytes, wanted: AskForTls, chunk: int = 65536) -> SmtpClient:
    client = SmtpClient("client.example", wanted)
    for start in range(0, len(replies), chunk):
        client.receive_data(replies[start : start + chunk])
    return client


def test_client_asks_and_begins_anew() -> None:
    for chunk in (1, 65536):
        client = opened(EHLO, AskForTls.IF_OFFERED, chunk)
        assert client.data_to_send() == b"EHLO client.example\r\nSTARTTLS\r\n"
        assert isinstance(client.next_event(), NeedData)
        client.receive_data(b"220 go\r\n")
        assert client.next_event() == TlsStarting()
        assert client.stage == "starttls"
        assert "PIPELINING" not in client.capabilities
        with pytest.raises(RuntimeError, match="not the machine's"):
            client.receive_data(b"250 mx\r\n")
        with pytest.raises(RuntimeError, match="not ready"):
            client.begin(transaction())
        client.tls_started()
        assert client.data_to_send() == b"EHLO client.example\r\n"
        client.receive_data(b"250-mx\r\n250 SIZE 5\r\n")
        event = client.next_event()
        assert isinstance(event, Ready)
        assert dict(event.capabilities.keywords) == {"SIZE": "5"}
        assert "* TLS started" in client.transcript


@pytest.mark.parametrize(
    "behind", [b"2", b"\r\n", b"250 mx\r\n", b"250-mx\r\n250 STARTTLS\r\n", b"220 x\r\n250 ok\r\n354 go\r\n"]
)
def test_replies_behind_the_yes_are_never_read(behind: bytes) -> None:
    client = opened(EHLO, AskForTls.IF_OFFERED)
    client.next_event()
    client.receive_data(b"220 go\r\n" + behind)
    event = client.next_event()
    assert isinstance(event, Failed)
    assert (event.result.fate, event.result.stage) == (Fate.BROKEN, "starttls")
    assert client.closed
    assert isinstance(client.next_event(), NeedData)  # and no TlsStarting


@pytest.mark.parametrize("wanted", [AskForTls.NEVER, AskForTls.IF_OFFERED])
def test_client_goes_on_without(wanted: AskForTls) -> None:
    client = opened(PLAIN_EHLO, wanted)
    assert client.data_to_send() == b"EHLO client.example\r\n"
    assert isinstance(client.next_event(), Ready)


def test_client_that_wants_none_does_not_ask() -> None:
    client = opened(EHLO, AskForTls.NEVER)
    assert client.data_to_send() == b"EHLO client.example\r\n"
    assert isinstance(client.next_event(), Ready)


@pytest.mark.parametrize("answer", [b"454 4.7.0 not now\r\n", b"502 what?\r\n"])
def test_server_does_not_want_to(answer: bytes) -> None:
    client = opened(EHLO + answer, AskForTls.IF_OFFERED)
    assert isinstance(client.next_event(), Ready)
    assert "PIPELINING" in client.capabilities
    client = opened(EHLO + answer, AskForTls.REQUIRED)
    event = client.next_event()
    assert isinstance(event, Failed)
    assert (event.result.stage, event.result.permanent) == ("starttls", False)


@pytest.mark.parametrize("replies", [PLAIN_EHLO, b"220 mx\r\n502 what?\r\n250 mx\r\n"])
def test_required_and_not_offered(replies: bytes) -> None:
    client = opened(replies, AskForTls.REQUIRED)
    event = client.next_event()
    assert isinstance(event, Failed)
    assert (event.result.stage, event.result.permanent) == ("starttls", False)
    assert "does not offer STARTTLS" in event.result.text
    assert b"MAIL" not in client.data_to_send()


def test_421_and_lost_handshake() -> None:
    client = opened(EHLO + b"421 bye\r\n", AskForTls.IF_OFFERED)
    event = client.next_event()
    assert isinstance(event, Failed)
    assert (event.result.code, event.result.stage) == (421, "starttls")
    client = opened(EHLO + b"220 go\r\n", AskForTls.IF_OFFERED)
    client.next_event()
    client.tls_failed("no TLS: alert")
    event = client.next_event()
    assert isinstance(event, Failed)
    assert (event.result.text, event.result.stage) == ("no TLS: alert", "starttls")


def test_tls_that_breaks_right_after_the_handshake() -> None:
    client = opened(EHLO + b"220 go\r\n", AskForTls.IF_OFFERED)
    client.next_event()
    client.tls_started()
    client.tls_failed("no TLS: alert")
    event = client.next_event()
    assert isinstance(event, Failed)
    assert (event.result.fate, event.result.stage) == (Fate.BROKEN, "starttls")
    assert "* no TLS: alert" in client.transcript
    client.tls_failed("once more")
    assert client.failure == event.result


def test_nonsensical_yes() -> None:
    client = opened(EHLO + b"354 go\r\n", AskForTls.IF_OFFERED)
    assert isinstance(client.next_event(), Failed)


# --- Both ---


@pytest.mark.parametrize("chunk", [1, 7, 65536])
def test_both_machines(chunk: int) -> None:
    pair = ConnectionPair(chunk=chunk, offer=OFFER, starttls=AskForTls.REQUIRED)
    assert pair.server.machine.in_tls
    assert pair.deliver(transaction(), b"hello\r\n")[0].accepted
    assert pair.server.messages == [b"hello\r\n"]
