"""BDAT: chunks put together at every split, the server's machine, the client's, and both together."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.smtp.chunks import ChunkDecoder, ChunkEncoder
from gateway.smtp.client import MAX_AHEAD, MAX_PIPELINED, SmtpClient
from gateway.smtp.commands import Bdat, CommandError, Data, Mail, Rcpt, parse_command
from gateway.smtp.data import DataDecoder, DataFault
from gateway.smtp.events import DataDropped, DataEnd, DataRefused, Finished, NeedData, Ready, SendData
from gateway.smtp.replies import Reply
from gateway.smtp.results import Fate
from gateway.smtp.server import Question, State
from gateway.smtp.transaction import Transaction
from tests.smtp.helpers import LIMITS, ConnectionPair, ServerRun, serve, transaction

BEGIN = b"EHLO client\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n"
BEGUN = ["250", "250 2.0.0", "250 2.0.0"]


def bdat(*chunks: bytes, last: bool = True) -> bytes:
    """A message as commands; the last chunk says so."""
    script = b""
    for number, chunk in enumerate(chunks, 1):
        end = b" LAST" if last and number == len(chunks) else b""
        script += b"BDAT %d%s\r\n%s" % (len(chunk), end, chunk)
    return script


def cut(content: bytes, places: list[int]) -> list[bytes]:
    inside = sorted(place % (len(content) + 1) for place in places)
    return [content[start:end] for start, end in itertools.pairwise([0, *inside, len(content)])]


def decode(chunks: list[bytes], pieces: int = 1, **limits: int | None) -> tuple[bytes, DataFault | None]:
    decoder, message = ChunkDecoder(**limits), b""
    for number, chunk in enumerate(chunks, 1):
        decoder.begin(len(chunk), last=number == len(chunks))
        wire = chunk + b"NOOP\r\n"
        for start in range(0, max(len(chunk), 1), pieces):
            message += decoder.feed(wire[start : start + pieces])
        assert decoder.finished
        assert (decoder.rest + wire[start + pieces :]).endswith(b"NOOP\r\n")
    return message, decoder.fault


# --- The decoder ---


def test_chunks_of_every_size() -> None:
    message = b"a\r\n.\r\n\r\n..b\r\n"
    for first, second in itertools.combinations_with_replacement(range(len(message) + 1), 2):
        chunks = [message[:first], message[first:second], message[second:]]
        for pieces in (1, 2, 100):
            assert decode(chunks, pieces) == (message, None)


@pytest.mark.parametrize(
    ("message", "decoded"), [(b"", b""), (b"x", b"x\r\n"), (b"x\r\n\r\n", b"x\r\n\r\n"), (b".", b".\r\n")]
)
def test_a_last_line_gets_its_end(message: bytes, decoded: bytes) -> None:
    assert decode([message]) == decode([message, b""]) == (decoded, None)


@pytest.mark.parametrize("message", [b"\n", b"\r", b"a\nb\r\n", b"a\rb\r\n", b"a\r\r\n", b"\n\r", b"a\r\n\r"])
def test_bare_line_ends_wherever_chunks_are_cut(message: bytes) -> None:
    for place in range(len(message) + 1):
        assert decode([message[:place], message[place:]])[1] is DataFault.BARE_CR_OR_LF


def test_limits() -> None:
    assert decode([b"x" * 8, b"\r\n"], max_size=10)[1] is None
    assert decode([b"x" * 8, b"xx\r\n"], max_size=10)[1] is DataFault.TOO_LARGE
    assert decode([b"xxx", b"xx\r", b"\nxxxxx"], max_line=5)[1] is None
    assert decode([b"xxx", b"xxx"], max_line=5)[1] is DataFault.LINE_TOO_LONG


@given(st.binary(max_size=40), st.lists(st.integers(0, 100), max_size=5), st.integers(1, 50))
def test_faults_are_those_of_data(message: bytes, places: list[int], pieces: int) -> None:
    message = message.replace(b"\x01", b"\r").replace(b"\x02", b"\n").replace(b"\x03", b"\r\n")
    data = DataDecoder()
    by_data = data.feed(message.replace(b"\r\n.", b"\r\n..").removeprefix(b".") + b"\r\n.\r\n")
    by_chunks, fault = decode(cut(message, places), pieces)
    if not message.startswith(b"."):
        assert fault == data.fault
    if fault is None and not message.startswith(b"."):
        assert by_chunks in (by_data, by_data.removesuffix(b"\r\n"))


# --- The command ---


def test_the_command() -> None:
    assert parse_command(b"BDAT 100\r\n") == Bdat(100, last=False)
    assert parse_command(b"bdat 0  last\r\n") == Bdat(0, last=True)


@pytest.mark.parametrize(
    "line", [b"BDAT", b"BDAT -1", b"BDAT 1 LAST x", b"BDAT x", b"BDAT LAST", b"BDAT " + b"9" * 21]
)
def test_what_follows_a_malformed_one_is_no_command(line: bytes) -> None:
    with pytest.raises(CommandError) as caught:
        parse_command(line + b"\r\n")
    assert caught.value.reply.code == 501
    run = serve(BEGIN + line + b"\r\nMAIL FROM:<evil@x>\r\n")
    assert run.closed
    assert run.codes == [*BEGUN, "501 5.5.4"]


# --- The server ---


def test_a_message_in_chunks() -> None:
    run = serve(BEGIN + bdat(b"Subject: x\r", b"\n\r\n.\r\n", b"", b"..\r\n") + b"NOOP\r\n")
    assert run.codes == [*BEGUN, *["250 2.0.0"] * 5]
    assert b"250 2.0.0 11 octets received\r\n" in run.output
    assert run.messages == [b"Subject: x\r\n\r\n.\r\n..\r\n"]
    assert [event for event in run.events if isinstance(event, Bdat | DataEnd)] == [
        Bdat(11, last=False),
        DataEnd(),
    ]
    assert run.machine.state is State.READY


def test_at_every_split() -> None:
    script = BEGIN + bdat(b"one\r\n", b"BDAT 9\r", b"\n") + BEGIN[13:] + bdat(b"two") + b"QUIT\r\n"
    expected = serve(script)
    assert expected.messages == [b"one\r\nBDAT 9\r\n", b"two\r\n"]
    for place in range(1, len(script)):
        run = ServerRun().feed([script[:place], script[place:]])
        assert (run.output, run.messages, run.closed) == (expected.output, expected.messages, True)


def test_an_empty_message() -> None:
    assert serve(BEGIN + b"BDAT 0 LAST\r\n").messages == [b""]
    assert serve(BEGIN + b"BDAT 0\r\nBDAT 0 LAST\r\n").messages == [b""]


def test_what_looks_like_commands_is_data() -> None:
    evil = b"x\r\n.\r\nMAIL FROM:<evil@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n"
    run = serve(BEGIN + bdat(evil[:20], evil[20:]))
    assert run.messages == [evil]
    assert sum(isinstance(event, Mail) for event in run.events) == 1


@pytest.mark.parametrize(
    ("before", "code"),
    [
        (b"", "503 5.5.1"),
        (b"EHLO c\r\n", "503 5.5.1"),
        (b"EHLO c\r\nMAIL FROM:<a@x>\r\n", "554 5.5.1"),
    ],
)
def test_a_chunk_out_of_sequence_is_read_for_nothing(before: bytes, code: str) -> None:
    run = serve(before + bdat(b"RSET\r\n") + b"NOOP\r\n")
    assert run.codes[-2:] == [code, "250 2.0.0"]
    assert run.messages == []
    after = before.replace(b"EHLO c\r\n", b"")
    assert run.machine.state is (State.GREETED if not before else State.MAIL if after else State.READY)


def test_all_recipients_refused_and_chunks_pipelined() -> None:
    def decide(question: Question) -> Reply | None:
        return Reply(550, "5.1.1") if isinstance(question, Rcpt) else None

    script = BEGIN + bdat(b"DATA\r\n", b"QUIT\r\n") + b"RSET\r\n"
    run = serve(script, decide=decide)
    assert run.codes == ["250", "250 2.0.0", "550 5.1.1", "554 5.5.1", "554 5.5.1", "250 2.0.0"]
    assert not any(isinstance(event, Bdat) for event in run.events)


@pytest.mark.parametrize("kind", [Bdat, DataEnd])
def test_refused_after_it_was_read(kind: type[Question]) -> None:
    def decide(question: Question) -> Reply | None:
        return Reply(451, "4.3.0", ("Not now",)) if isinstance(question, kind) else None

    run = serve(BEGIN + bdat(b"RSET\r\n", b"QUIT\r\n") + b"NOOP\r\n", decide=decide)
    refused = ["451 4.3.0", "503 5.5.1"] if kind is Bdat else ["250 2.0.0", "451 4.3.0"]
    assert run.codes == [*BEGUN, *refused, "250 2.0.0"]
    assert run.machine.state is State.READY
    assert run.machine.envelope is None


def test_421_to_the_first_chunk_closes() -> None:
    run = serve(
        BEGIN + bdat(b"x\r\n") + b"NOOP\r\n",
        decide=lambda question: Reply(421, "4.3.2") if isinstance(question, Bdat) else None,
    )
    assert run.closed
    assert run.codes[-1] == "421 4.3.2"


@pytest.mark.parametrize(
    ("chunks", "code"),
    [
        ((b"x\r\n" * 40, b"y\r\n"), "552 5.3.4"),
        ((b"a\nb\r\n", b"y\r\n"), "550 5.6.0"),
        ((b"x" * 52, b"y\r\n"), "550 5.6.0"),
    ],
)
def test_a_fault_ends_the_transaction(chunks: tuple[bytes, ...], code: str) -> None:
    limits = replace(LIMITS, max_message_size=100, max_line=50)
    run = serve(BEGIN + bdat(*chunks) + BEGIN, limits=limits)
    assert run.codes == [*BEGUN, code, "503 5.5.1", *BEGUN]
    assert run.messages == []
    assert [type(event) for event in run.events].count(DataRefused) == 1


def test_refusal_by_the_caller_in_the_middle() -> None:
    run = ServerRun().feed([BEGIN, b"BDAT 10\r\nfirst"])
    run.machine.refuse_data(Reply(452, "4.3.1"))
    run.feed([b"other", b"BDAT 1 LAST\r\nx"])
    assert run.codes == [*BEGUN, "452 4.3.1", "503 5.5.1"]


def test_a_chunk_that_nobody_wants_to_read() -> None:
    limits = replace(LIMITS, max_message_size=100, max_discard=1000)
    for script in (b"BDAT 1101\r\n", b"BDAT 50\r\n" + b"x\r\n" * 16 + b"\r\nBDAT 1051 LAST\r\n"):
        run = serve(BEGIN + script, limits=limits)
        assert run.closed
        assert run.codes[-1] == "552 5.3.4"
    assert not serve(BEGIN + b"BDAT 1100\r\n", limits=limits).closed


@pytest.mark.parametrize("command", [b"RSET\r\n", b"EHLO again\r\n"])
def test_taken_back(command: bytes) -> None:
    run = serve(BEGIN + bdat(b"half\r\n", last=False) + command + b"BDAT 1 LAST\r\nx")
    assert run.codes[len(BEGUN) :] == [
        "250 2.0.0",
        "250" if command[0] == ord("E") else "250 2.0.0",
        "503 5.5.1",
    ]
    assert run.messages == []
    assert DataDropped() in run.events


@pytest.mark.parametrize("command", [b"MAIL FROM:<a@x>", b"RCPT TO:<c@x>", b"DATA"])
def test_nothing_else_between_chunks(command: bytes) -> None:
    run = serve(BEGIN + bdat(b"a\r\n", last=False) + command + b"\r\nNOOP\r\n" + bdat(b"b\r\n"))
    assert run.codes == [*BEGUN, "250 2.0.0", "503 5.5.1", "250 2.0.0", "250 2.0.0"]
    assert run.messages == [b"a\r\nb\r\n"]


def test_empty_chunks_are_counted() -> None:
    limits = replace(LIMITS, max_idle_commands=5)
    assert serve(BEGIN + b"BDAT 0\r\n" * 10, limits=limits).closed
    assert not serve(BEGIN + b"BDAT 1\r\nx" * 10, limits=limits).closed


def test_end_of_input() -> None:
    for script in (b"BDAT 5\r\n", b"BDAT 5\r\nx", bdat(b"x\r\n", last=False)):
        run = ServerRun().feed([BEGIN + script, b""])
        assert run.closed
        assert run.messages == []


# --- The client ---


OFFERED = b"220 mx\r\n250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n"


def client(opening: bytes = OFFERED) -> SmtpClient:
    machine = SmtpClient("client.example")
    for line in opening.splitlines(keepends=True):
        machine.receive_data(line)
        machine.data_to_send()
    assert isinstance(machine.next_event(), Ready)
    return machine


def say(machine: SmtpClient, replies: bytes) -> list[object]:
    machine.receive_data(replies)
    events: list[object] = []
    while not isinstance(event := machine.next_event(), NeedData):
        events.append(event)
    return events


def test_one_chunk_when_the_size_is_known() -> None:
    machine = client()
    machine.begin(transaction("b@x", "c@x", size=4))
    assert machine.data_to_send() == b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\n"
    assert say(machine, b"250 ok\r\n550 no\r\n") == []
    assert say(machine, b"250 ok\r\n") == [SendData()]
    for piece in (b".", b"\r", b"\n", b"x"):
        machine.send_message(piece)
    machine.end_message()
    assert machine.data_to_send() == b"BDAT 4 LAST\r\n.\r\nx"
    (finished,) = say(machine, b"250 taken\r\n")
    assert isinstance(finished, Finished)
    assert [(result.stage, result.code) for result in finished.results] == [("rcpt", 550), ("dot", 250)]
    assert "> BDAT 4 LAST\n> (message)\n< 250 taken" in machine.transcript
    machine.begin(transaction(size=0))
    assert b"RSET" not in machine.data_to_send()


def test_data_when_that_is_wanted() -> None:
    machine = SmtpClient("client.example", chunking=False)
    say(machine, b"220 mx\r\n")
    say(machine, b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
    machine.data_to_send()
    machine.begin(transaction(size=4))
    assert machine.data_to_send().endswith(b"DATA\r\n")


def test_data_when_it_is_not() -> None:
    machine = client()
    machine.begin(transaction())
    assert machine.data_to_send().endswith(b"DATA\r\n")


def test_without_pipelining() -> None:
    machine = client(b"220 mx\r\n250-mx\r\n250 CHUNKING\r\n")
    machine.begin(transaction("b@x", "c@x", size=0))
    assert machine.data_to_send() == b"MAIL FROM:<a@example.org>\r\n"
    assert say(machine, b"250 ok\r\n") == []
    assert say(machine, b"550 no\r\n") == []
    assert say(machine, b"250 ok\r\n") == [SendData()]


@pytest.mark.parametrize(
    "replies", [b"250 ok\r\n550 no\r\n", b"550 no\r\n550 no\r\n", b"550 no\r\n250 ok\r\n"]
)
def test_nobody_accepted(replies: bytes) -> None:
    machine = client()
    machine.begin(transaction(size=9))
    (finished,) = say(machine, replies)
    assert isinstance(finished, Finished)
    assert finished.results[0].code == 550
    assert b"BDAT" not in machine.data_to_send()


def test_rset_after_a_refused_chunk() -> None:
    """RFC 3030 section 2: the state is not known."""
    machine = client()
    machine.begin(transaction(size=3))
    say(machine, b"250 ok\r\n250 ok\r\n")
    machine.send_message(b"x\r\n")
    machine.end_message()
    machine.data_to_send()
    (finished,) = say(machine, b"554 5.6.0 no\r\n")
    assert isinstance(finished, Finished)
    assert (finished.results[0].stage, finished.results[0].code) == ("dot", 554)
    machine.begin(transaction(size=3))
    assert machine.data_to_send().startswith(b"RSET\r\n")


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ((b"a\nb",), "bare CR or LF"),
        ((b"a\r", b"b\n"), "bare CR or LF"),
        ((b"abc\r",), "bare CR"),
        ((b"abc",), "1 octets less than the 4"),
        ((b"abc", b"de"), "more than the 4"),
    ],
)
def test_a_message_that_does_not_fit_is_never_completed(pieces: tuple[bytes, ...], text: str) -> None:
    machine = client()
    machine.begin(transaction(size=4))
    say(machine, b"250 ok\r\n250 ok\r\n")
    for piece in pieces:
        if not machine.closed:
            machine.send_message(piece)
    if not machine.closed:
        machine.end_message()
    finished = machine.next_event()
    assert isinstance(finished, Finished)
    assert finished.results[0].fate is Fate.UNSENDABLE
    assert text in finished.results[0].text
    assert machine.closed
    assert machine.data_to_send() == b""


@pytest.mark.parametrize(("sent", "fate"), [(False, Fate.BROKEN), (True, Fate.UNKNOWN)])
def test_the_connection_breaks(sent: bool, fate: Fate) -> None:
    machine = client()
    machine.begin(transaction(size=3))
    say(machine, b"250 ok\r\n250 ok\r\n")
    machine.send_message(b"x\r\n")
    if sent:
        machine.end_message()
    machine.connection_lost("gone")
    finished = machine.next_event()
    assert isinstance(finished, Finished)
    assert finished.results[0].fate is fate


def test_the_server_gives_up_while_we_send() -> None:
    machine = client()
    machine.begin(transaction(size=300))
    say(machine, b"250 ok\r\n250 ok\r\n")
    machine.send_message(b"x\r\n")
    (finished,) = say(machine, b"552 too much\r\n")
    assert isinstance(finished, Finished)
    assert (finished.results[0].fate, finished.results[0].code) == (Fate.REFUSED, 552)
    assert machine.closed


# --- The client, with a server that has taken a message ---

ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n"


def acquainted(opening: bytes = OFFERED) -> SmtpClient:
    machine = client(opening)
    hand_over(machine, transaction(size=3), b"250 ok\r\n", b"250 ok\r\n")
    (finished,) = say(machine, b"250 taken\r\n")
    assert isinstance(finished, Finished)
    return machine


def hand_over(machine: SmtpClient, what: Transaction, *replies: bytes) -> bytes:
    """What is sent up to the message's end; the replies come one by one, as long as there is no event."""
    machine.begin(what)
    sent = machine.data_to_send()
    for reply in replies:
        machine.receive_data(reply)
        sent += machine.data_to_send()
    assert machine.next_event() == SendData()
    machine.send_message(b"x\r\n")
    machine.end_message()
    return sent + machine.data_to_send()


def ahead(machine: SmtpClient, what: Transaction | None = None) -> bytes:
    return hand_over(machine, what or transaction(size=3))


def test_the_second_message_does_not_wait() -> None:
    machine = acquainted()
    assert ahead(machine) == ENVELOPE + b"BDAT 3 LAST\r\nx\r\n"
    stages = [machine.stage]
    for _ in range(2):
        assert say(machine, b"250 ok\r\n") == []
        stages.append(machine.stage)
    assert stages == ["mail", "rcpt", "dot"]
    (finished,) = say(machine, b"250 taken\r\n")
    assert isinstance(finished, Finished)
    assert finished.results[0].accepted
    assert ahead(machine) == ENVELOPE + b"BDAT 3 LAST\r\nx\r\n"


@pytest.mark.parametrize(
    ("opening", "what"),
    [
        (b"220 mx\r\n250-mx\r\n250 CHUNKING\r\n", transaction(size=3)),  # no PIPELINING
        (OFFERED, transaction(size=MAX_AHEAD + 1)),
        (OFFERED, transaction(*(f"u{n}@x" for n in range(MAX_PIPELINED)), size=3)),
        (OFFERED, transaction()),  # its size is not known
    ],
)
def test_others_wait(opening: bytes, what: Transaction) -> None:
    machine = acquainted(opening)
    machine.begin(what)
    assert isinstance(machine.next_event(), NeedData)
    assert b"BDAT" not in machine.data_to_send()


def test_one_that_the_server_refused_proves_nothing() -> None:
    machine = client()
    hand_over(machine, transaction(size=3), b"250 ok\r\n", b"250 ok\r\n")
    say(machine, b"451 4.3.0 later\r\n")
    machine.begin(transaction(size=3))
    assert isinstance(machine.next_event(), NeedData)


@pytest.mark.parametrize(
    ("replies", "stage", "code"),
    [
        (b"451 no\r\n503 no\r\n503 no\r\n", "mail", 451),
        (b"250 ok\r\n550 no\r\n503 no\r\n", "rcpt", 550),
        (b"250 ok\r\n550 no\r\n250 for nobody\r\n", "rcpt", 550),
        (b"250 ok\r\n250 ok\r\n554 no\r\n", "dot", 554),
        (b"250 ok\r\n250 ok\r\n250 ok\r\n", "dot", 250),
    ],
)
def test_replies_to_what_was_sent_at_once(replies: bytes, stage: str, code: int) -> None:
    """At every split, and whether they come after the message or while it is sent."""
    for split in range(len(replies)):
        for early in (False, True):
            machine = acquainted()
            machine.begin(transaction(size=3))
            assert machine.next_event() == SendData()
            machine.send_message(b"x")
            part = replies[:split] if early and replies[:split].count(b"\n") < 3 else b""
            if part:
                machine.receive_data(part)
            assert isinstance(machine.next_event(), NeedData)
            machine.send_message(b"\r\n")
            machine.end_message()
            (finished,) = say(machine, replies[len(part) :])
            assert isinstance(finished, Finished)
            assert [(r.stage, r.code) for r in finished.results] == [(stage, code)]
            machine.data_to_send()
            machine.begin(transaction(size=3))
            refused = not replies.splitlines()[-1].startswith(b"250")
            assert machine.data_to_send().startswith(b"RSET\r\n") is refused


def test_some_of_several() -> None:
    machine = acquainted()
    ahead(machine, transaction("b@x", "c@x", "d@x", size=3))
    (finished,) = say(machine, b"250 ok\r\n250 ok\r\n550 no\r\n452 later\r\n250 taken\r\n")
    assert isinstance(finished, Finished)
    assert [(result.stage, result.code) for result in finished.results] == [
        ("dot", 250),
        ("rcpt", 550),
        ("rcpt", 452),
    ]


def test_the_one_behind_rset_waits() -> None:
    """A server that refuses RSET may go on, and take what comes behind it."""
    machine = acquainted()
    ahead(machine)
    say(machine, b"250 ok\r\n250 ok\r\n554 no\r\n")
    machine.begin(transaction(size=3))
    assert machine.data_to_send() == b"RSET\r\n" + ENVELOPE
    (finished,) = say(machine, b"502 5.5.1 no RSET here\r\n")
    assert isinstance(finished, Finished)
    assert finished.results[0].fate is Fate.BROKEN


@pytest.mark.parametrize(
    ("then", "fates"),
    [
        (b"250 ok\r\n250 taken\r\n", [("refused", 421), ("accepted", 250)]),  # it was about one recipient
        (b"250 ok\r\n554 no\r\n", [("refused", 421), ("refused", 554)]),
        (b"250 ok\r\n", [("refused", 421), ("refused", 421)]),  # it leaves, as it said
        (b"", [("refused", 421), ("refused", 421)]),
        (b"550 no\r\n", [("refused", 421), ("refused", 550)]),
    ],
)
def test_421_to_one_recipient_of_a_message_that_is_there(then: bytes, fates: list[tuple[str, int]]) -> None:
    machine = acquainted()
    ahead(machine, transaction("b@x", "c@x", size=3))
    assert say(machine, b"250 ok\r\n421 4.7.0 not you\r\n") == []
    events = say(machine, then) if then else []
    machine.connection_lost("gone")
    finished = events[0] if events else machine.next_event()
    assert isinstance(finished, Finished)
    assert [(result.fate.value, result.code) for result in finished.results] == fates
    assert machine.closed  # even if it goes on


def test_421_to_the_only_recipient_is_the_end() -> None:
    machine = acquainted()
    ahead(machine)
    (finished,) = say(machine, b"250 ok\r\n421 4.7.0 not you\r\n")
    assert isinstance(finished, Finished)
    assert [(result.stage, result.code) for result in finished.results] == [("rcpt", 421)]
    assert machine.closed


@pytest.mark.parametrize("answered", [b"", b"250 ok\r\n", b"250 ok\r\n250 ok\r\n"])
def test_an_end_leaves_a_doubt_once_the_message_is_sent(answered: bytes) -> None:
    """The server may have taken it, and what it said of that be lost."""
    for whole, fate in ((True, Fate.UNKNOWN), (False, Fate.BROKEN)):
        machine = acquainted()
        machine.begin(transaction(size=3))
        machine.next_event()
        machine.send_message(b"x\r\n" if whole else b"x")
        if whole:
            machine.end_message()
        if answered:
            assert say(machine, answered) == []
        machine.connection_lost("gone")
        finished = machine.next_event()
        assert isinstance(finished, Finished)
        assert finished.results[0].fate is fate


def test_a_421_ends_what_was_sent_at_once() -> None:
    machine = acquainted()
    ahead(machine)
    (finished,) = say(machine, b"421 4.4.2 idle for too long\r\n")
    assert isinstance(finished, Finished)
    assert (finished.results[0].fate, finished.results[0].stage) == (Fate.REFUSED, "mail")
    assert machine.closed


def test_an_encoder_at_every_split() -> None:
    message = b"a\r\n\r\n.\r\nb"
    for place in range(len(message) + 1):
        encoder = ChunkEncoder(len(message))
        wire = encoder.feed(message[:place]) + encoder.feed(message[place:]) + encoder.finish()
        assert wire == b"BDAT 9 LAST\r\n" + message


# --- The two ---


@pytest.mark.parametrize("chunk", [1, 7, 65536])
def test_messages_one_after_the_other(chunk: int) -> None:
    pair = ConnectionPair(chunk=chunk)
    messages = [b"", b"one\r\n", b".\r\n..\r\n.x\r\n", b"a\r\n\r\n.\r\n\r\n", b"QUIT\r\n"]
    for message in messages:
        assert pair.deliver(transaction(size=len(message)), message)[0].accepted
        assert pair.deliver(transaction(), message)[0].accepted
    assert pair.server.messages == [message for message in messages for _ in range(2)]
    kinds = [type(event) for event in pair.server.events if isinstance(event, Data | Bdat)]
    assert kinds == [Bdat, Data] * len(messages)


@pytest.mark.parametrize("chunk", [1, 7, 65536])
@pytest.mark.parametrize("kind", [Mail, Rcpt, Bdat, DataEnd])
@pytest.mark.parametrize("code", [421, 451, 554])
def test_refused_at_each_stage(chunk: int, kind: type[Question], code: int) -> None:
    refusing = True

    def decide(question: Question) -> Reply | None:
        return Reply(code, None, ("No",)) if refusing and isinstance(question, kind) else None

    pair = ConnectionPair(decide=decide, chunk=chunk)
    results = pair.deliver(transaction("b@x", "c@x", size=3), b"x\r\n")
    assert [result.code for result in results] == [code] * 2
    assert pair.client.closed == pair.server.closed == (code == 421)
    if code != 421:
        refusing = False
        assert pair.deliver(transaction(size=3), b"y\r\n")[0].accepted
