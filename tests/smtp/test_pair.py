"""The two machines against each other."""

from dataclasses import replace

import pytest

from gateway.smtp.addresses import Mailbox
from gateway.smtp.commands import Body, Data, Mail, Rcpt
from gateway.smtp.events import DataEnd
from gateway.smtp.replies import Reply
from gateway.smtp.server import Question
from tests.smtp.helpers import LIMITS, ConnectionPair, transaction

CHUNKS = (1, 7, 65536)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_messages_one_after_the_other(chunk: int) -> None:
    pair = ConnectionPair(chunk=chunk)
    messages = [b"", b"one\r\n", b".\r\n..\r\n.x\r\n", b"a\r\n\r\n.\r\n\r\n"]
    for message in messages:
        (result,) = pair.deliver(transaction(size=len(message)), message)
        assert result.accepted
    assert pair.server.messages == messages
    pair.client.quit()
    pair.exchange()
    assert pair.server.closed


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_result_for_each_recipient(chunk: int) -> None:
    def decide(question: Question) -> Reply | None:
        match question:
            case Rcpt(Mailbox(localpart="no")):
                return Reply(550, "5.1.1", ("No such user",))
            case Rcpt(Mailbox(localpart="later")):
                return Reply(450, "4.2.1")
        return None

    pair = ConnectionPair(decide=decide, chunk=chunk)
    results = pair.deliver(transaction("no@x", "yes@x", "later@x"), b"x\r\n")
    assert [(result.stage, result.code) for result in results] == [("rcpt", 550), ("dot", 250), ("rcpt", 450)]
    refused = pair.deliver(transaction("no@x", "later@x"), b"x\r\n")
    assert [result.code for result in refused] == [550, 450]
    assert pair.deliver(transaction("yes@x"), b"y\r\n")[0].accepted
    assert pair.server.messages == [b"x\r\n", b"y\r\n"]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(
    ("kind", "stage"), [(Mail, "mail"), (Rcpt, "rcpt"), (Data, "data"), (DataEnd, "dot")]
)
@pytest.mark.parametrize("code", [421, 451, 554])
def test_refused_at_each_stage(chunk: int, kind: type[Question], stage: str, code: int) -> None:
    refusing = True

    def decide(question: Question) -> Reply | None:
        return Reply(code, None, ("No",)) if refusing and isinstance(question, kind) else None

    pair = ConnectionPair(decide=decide, chunk=chunk)
    results = pair.deliver(transaction("b@x", "c@x"), b"x\r\n")
    assert [(result.stage, result.code) for result in results] == [(stage, code)] * 2
    assert pair.client.closed == pair.server.closed == (code == 421)
    if code != 421:
        refusing = False
        assert pair.deliver(transaction(), b"y\r\n")[0].accepted


def test_many_recipients() -> None:
    pair = ConnectionPair(replace(LIMITS, max_recipients=300))
    results = pair.deliver(transaction(*(f"r{number}@x" for number in range(400))), b"x\r\n")
    assert [result.code for result in results] == [250] * 300 + [452] * 100


def test_envelope_arrives() -> None:
    pair = ConnectionPair()
    pair.client.begin(transaction("ü@x", '"a b"@x', sender="", size=3, eight_bit=True))
    pair.exchange()
    envelope = pair.server.machine.envelope
    assert envelope is not None
    assert envelope.reverse_path is None
    assert envelope.recipients == (Mailbox("ü", "x"), Mailbox("a b", "x"))
    assert (envelope.size, envelope.body, envelope.smtputf8) == (3, Body.EIGHT_BIT, True)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_message_over_the_limits(chunk: int) -> None:
    pair = ConnectionPair(replace(LIMITS, max_message_size=100, max_line=50), chunk=chunk)
    assert pair.deliver(transaction(), b"x" * 40 + b"\r\n")[0].accepted
    assert pair.deliver(transaction(), b"x" * 51 + b"\r\n")[0].enhanced == "5.6.0"
    assert pair.deliver(transaction(), b"x\r\n" * 50)[0].code == 552
    (result,) = pair.deliver(transaction(size=101), b"")
    assert (result.code, result.enhanced) == (None, "5.3.4")
    assert len(pair.server.messages) == 1
