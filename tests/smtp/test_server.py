from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.smtp.addresses import Mailbox
from gateway.smtp.commands import Body, Data, Mail, Rcpt
from gateway.smtp.events import Closed, Connected, DataEnd, DataRefused, DsnWish, Envelope, NeedData
from gateway.smtp.replies import Reply
from gateway.smtp.server import SEND_DATA, Question, SmtpServer, State
from tests.smtp.helpers import LIMITS, OK, ServerRun, bytewise, serve

HELLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@example.org>\r\n"
RCPT = b"RCPT TO:<b@example.net>\r\n"
BEGIN = HELLO + MAIL + RCPT
SEND = BEGIN + b"DATA\r\n"
SENT = ["250", "250 2.0.0", "250 2.0.0", "354"]  # what SEND is answered with


def answers(kind: type[Question], reply: Reply) -> Callable[[Question], Reply | None]:
    return lambda question: reply if isinstance(question, kind) else None


def test_a_session() -> None:
    run = serve(SEND + b"Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n")
    assert run.codes == [*SENT, "250 2.0.0", "221 2.0.0"]
    assert run.messages == [b"Subject: x\r\n\r\n.dot\r\n"]
    assert run.closed


def test_hello() -> None:
    assert serve(HELLO).output == (
        b"220 mx.example.org ESMTP\r\n250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n"
        b"250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n"
        b"250 LIMITS RCPTMAX=1000\r\n"
    )
    assert serve(b"HELO client\r\n").output.endswith(b"ESMTP\r\n250 mx.example.org\r\n")


def test_envelope() -> None:
    run = ServerRun().feed([HELLO, b"MAIL FROM:<> SIZE=7 BODY=8BITMIME SMTPUTF8\r\n", RCPT])
    run.feed(["RCPT TO:<ü@example.net>\r\n".encode()])
    recipients = (Mailbox("b", "example.net"), Mailbox("ü", "example.net"))
    assert run.machine.envelope == Envelope(
        None, recipients, 7, Body.EIGHT_BIT, smtputf8=True, dsn=(DsnWish(), DsnWish())
    )
    run.feed([b"RSET\r\n"])
    assert run.machine.envelope is None


@pytest.mark.parametrize(
    ("script", "codes"),
    [
        (MAIL, ["503 5.5.1"]),
        (RCPT, ["503 5.5.1"]),
        (b"DATA\r\n", ["503 5.5.1"]),
        (
            b"RSET\r\nNOOP\r\nVRFY a\r\nEXPN a\r\nHELP\r\n",
            ["250 2.0.0", "250 2.0.0", "252 2.1.5", "502 5.5.1", "214 2.0.0"],
        ),
        (b"RSET\r\n" + MAIL, ["250 2.0.0", "503 5.5.1"]),
        (HELLO + RCPT, ["250", "503 5.5.1"]),
        (HELLO + b"DATA\r\n", ["250", "503 5.5.1"]),
        (HELLO + MAIL + MAIL, ["250", "250 2.0.0", "503 5.5.1"]),
        (HELLO + MAIL + b"DATA\r\n", ["250", "250 2.0.0", "554 5.5.1"]),
        (BEGIN + MAIL, ["250", "250 2.0.0", "250 2.0.0", "503 5.5.1"]),
        (BEGIN + b"RSET\r\nDATA\r\n", ["250", "250 2.0.0", "250 2.0.0", "250 2.0.0", "503 5.5.1"]),
        (BEGIN + HELLO + b"DATA\r\n", ["250", "250 2.0.0", "250 2.0.0", "250", "503 5.5.1"]),
        (SEND + b".\r\nDATA\r\n", [*SENT, "250 2.0.0", "503 5.5.1"]),
        (SEND + b".\r\n" + MAIL + RCPT + b"DATA\r\n.\r\n", [*SENT, "250 2.0.0", *SENT[1:], "250 2.0.0"]),
        (HELLO + MAIL + "RCPT TO:<ü@x>\r\n".encode(), ["250", "250 2.0.0", "553 5.6.7"]),
        (b"FOO\r\nNOOP\r\n", ["500 5.5.1", "250 2.0.0"]),
        (b"NOOP\nNOOP\r\n", ["500 5.5.2", "250 2.0.0"]),
        (b"NOOP " + b"x" * 2000 + b"\r\nNOOP\r\n", ["500 5.5.2", "250 2.0.0"]),
        (b"NOOP " + b"x" * 558 + b"\r\n", ["250 2.0.0"]),
        (b"NOOP " + b"x" * 559 + b"\r\n", ["500 5.5.2"]),
    ],
)
def test_sequence(script: bytes, codes: list[str]) -> None:
    assert serve(script).codes == codes
    trailing = serve(script + b"NOOP\r\nQUI")
    assert trailing.codes == [*codes, "250 2.0.0"]
    assert not trailing.closed


def test_every_refusal_is_dealt_with_before_the_caller_sees_it() -> None:
    for script in (MAIL, RCPT, b"DATA\r\n", HELLO + RCPT, HELLO + b"DATA\r\n"):
        assert serve(script).events == [Connected()]


def test_pipelined_commands_wait_for_the_answer() -> None:
    machine = SmtpServer(LIMITS)
    assert machine.next_event() == Connected()
    machine.receive_data(SEND)
    with pytest.raises(RuntimeError, match="not answered"):
        machine.next_event()
    machine.answer(machine.greeting)
    kinds: list[type] = []
    for reply in (OK, OK, SEND_DATA):
        kinds.append(type(machine.next_event()))
        machine.answer(reply)
    assert kinds == [Mail, Rcpt, Data]
    assert isinstance(machine.next_event(), NeedData)
    assert machine.data_to_send().count(b"\r\n") == 12  # all replies in one go
    assert machine.data_to_send() == b""


@pytest.mark.parametrize(
    ("kind", "script", "reply", "state"),
    [
        (Mail, HELLO + MAIL, Reply(451, "4.3.0"), State.READY),
        (Rcpt, BEGIN, Reply(550, "5.1.1"), State.MAIL),
        (Rcpt, BEGIN, Reply(251, "2.1.5"), State.RCPT),
        (Data, SEND, Reply(451, "4.3.0"), State.RCPT),
        (DataEnd, SEND + b".\r\n", Reply(550, "5.7.1"), State.READY),
        (Connected, b"", Reply(554, "5.3.2"), State.TURNED_AWAY),
    ],
)
def test_answers(kind: type[Question], script: bytes, reply: Reply, state: State) -> None:
    run = serve(script, decide=answers(kind, reply))
    assert run.machine.state is state
    assert run.output.endswith(reply.render())
    assert not run.closed


@pytest.mark.parametrize("kind", [Connected, Mail, Rcpt, Data, DataEnd])
def test_421_closes_whatever_it_answers(kind: type[Question]) -> None:
    reply = Reply(421, "4.3.2", ("Later",))
    run = serve(SEND + b".\r\n", decide=answers(kind, reply))
    assert run.closed
    assert run.output.endswith(reply.render())
    assert run.machine.envelope is None


@pytest.mark.parametrize(("kind", "code"), [(Mail, 354), (Data, 250), (DataEnd, 354), (Connected, 354)])
def test_nonsensical_answers_are_refused(kind: type[Question], code: int) -> None:
    with pytest.raises(ValueError, match="is no answer to"):
        serve(SEND + b".\r\n", decide=answers(kind, Reply(code, None)))


def test_turned_away() -> None:
    run = serve(HELLO + MAIL + b"NOOP\r\nRSET\r\nQUIT\r\n", decide=answers(Connected, Reply(554, "5.3.2")))
    assert run.codes == ["503 5.5.1"] * 4 + ["221 2.0.0"]
    assert run.closed


def test_no_recipient_accepted() -> None:
    run = serve(SEND, decide=answers(Rcpt, Reply(550, "5.1.1")))
    assert run.codes == ["250", "250 2.0.0", "550 5.1.1", "554 5.5.1"]


def test_recipient_limit() -> None:
    run = serve(HELLO + MAIL + RCPT * 4 + b"DATA\r\n.\r\n", limits=replace(LIMITS, max_recipients=2))
    assert run.codes[2:] == ["250 2.0.0", "250 2.0.0", "452 4.5.3", "452 4.5.3", "354", "250 2.0.0"]


def test_declared_size() -> None:
    limits = replace(LIMITS, max_message_size=100)
    script = b"MAIL FROM:<a@x> SIZE=101\r\nMAIL FROM:<a@x> SIZE=100\r\n"
    assert serve(HELLO + script, limits=limits).codes == ["250", "552 5.3.4", "250 2.0.0"]


@pytest.mark.parametrize(
    ("data", "codes", "text"),
    [
        (b"x\r\n" * 40, "552 5.3.4", b"larger than 100 octets"),
        (b"a\nb\r\n", "550 5.6.0", b"bare CR or LF"),
        (b"a\rb\r\n", "550 5.6.0", b"bare CR or LF"),
        (b"x" * 51 + b"\r\n", "550 5.6.0", b"line longer than 50 octets"),
    ],
)
def test_refused_data(data: bytes, codes: str, text: bytes) -> None:
    run = serve(
        SEND + data + b"more\r\n.\r\nNOOP\r\n" + MAIL,
        limits=replace(LIMITS, max_message_size=100, max_line=50),
    )
    assert run.codes == [*SENT, codes, "250 2.0.0", "250 2.0.0"]
    assert text in run.output
    assert run.messages == []
    assert [type(event) for event in run.events].count(DataRefused) == 1


def test_smuggled_commands_are_data() -> None:
    for end in (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\n.\r", b"\r.\n"):
        run = serve(SEND + b"x" + end + MAIL + RCPT + b"DATA\r\nevil\r\n.\r\nNOOP\r\n")
        assert run.codes == [*SENT, "550 5.6.0", "250 2.0.0"]
        assert run.messages == []


def test_refusal_by_the_caller_comes_at_the_end_of_data() -> None:
    run = ServerRun().feed([SEND, b"first\r\n"])
    run.machine.refuse_data(Reply(452, "4.3.1"))
    run.feed(bytewise(b"more\r\n.\r\nNOOP\r\n"))
    assert run.codes == [*SENT, "452 4.3.1", "250 2.0.0"]
    assert run.messages == []


def test_endless_refused_data_ends_the_session() -> None:
    run = ServerRun(replace(LIMITS, max_message_size=100, max_discard=1000)).feed([SEND])
    line = b"x" * 98 + b"\r\n"
    open_after = [not run.feed([line]).closed for _ in range(12)]
    assert open_after == [True] * 11 + [False]
    assert run.codes[-1] == "552 5.3.4"


def test_errors_are_limited() -> None:
    run = serve(b"FOO\r\n" * 10, limits=replace(LIMITS, max_errors=3))
    assert run.codes == ["500 5.5.1"] * 4 + ["421 4.7.0"]
    assert run.closed


def test_commands_without_mail_are_limited() -> None:
    limits = replace(LIMITS, max_idle_commands=3)
    run = serve(b"NOOP\r\n" * 10, limits=limits)
    assert run.codes == ["250 2.0.0"] * 4 + ["421 4.7.0"]
    assert run.closed
    assert not serve((SEND + b".\r\n") * 10, limits=limits).closed


def test_end_of_input() -> None:
    for script in (b"", HELLO, b"NOO", BEGIN, SEND, SEND + b"x\r\n."):
        run = serve(script)
        output = run.output
        run.feed([b""])
        assert run.closed
        assert run.output == output
        assert run.machine.envelope is None


def test_close_by_the_caller() -> None:
    run = ServerRun().feed([SEND, b"x"])
    run.machine.close(Reply(421, "4.4.2"))
    run.machine.close(Reply(421, "4.3.2"))
    run.run()
    assert run.closed
    assert run.codes[-1] == "421 4.4.2"
    assert isinstance(run.machine.next_event(), Closed)


def test_memory_is_bounded_by_a_line() -> None:
    run = ServerRun()
    for _ in range(100):
        run.feed([b"x" * 65536])
        assert len(run.machine._input) == 0
    assert run.codes == ["500 5.5.2"]
