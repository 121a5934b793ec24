"""The client machine against scripted servers; `test_pair.py` has it against the server machine."""

import pytest

from gateway.smtp.client import MAX_PIPELINED, SmtpClient
from gateway.smtp.events import Failed, Finished, NeedData, Ready, SendData
from gateway.smtp.results import Fate, Result
from gateway.smtp.transaction import Transaction
from tests.smtp.helpers import CHUNKINGS, transaction

PLAIN = b"220 mx\r\n", b"250 mx\r\n"
PIPELINING = b"220 mx\r\n", b"250-mx\r\n250 PIPELINING\r\n"


class Talk:
    """A client and what a script says to it; remembers what the client said."""

    def __init__(self, *opening: bytes) -> None:
        self.client = SmtpClient("client.example")
        self.events: list[object] = []
        self.sent = b""
        self.say(*opening)

    def say(self, *replies: bytes) -> None:
        """Give one reply after the other, whatever the client does."""
        for reply in replies:
            for chunk in Talk.chunking(reply):
                self.client.receive_data(chunk)
            self.collect()

    def collect(self) -> None:
        while not isinstance(event := self.client.next_event(), NeedData):
            self.events.append(event)
        self.sent += self.client.data_to_send()

    def begin(self, what: Transaction) -> None:
        self.sent = b""
        self.events.clear()
        self.client.begin(what)
        self.collect()

    def message(self, content: bytes = b"x\r\n") -> None:
        assert self.events == [SendData()]
        self.client.send_message(content)
        self.client.end_message()
        self.collect()

    @property
    def results(self) -> tuple[Result, ...]:
        assert isinstance(self.events[-1], Finished)
        return self.events[-1].results

    @property
    def fates(self) -> list[tuple[str, str, int | None]]:
        return [(result.fate.value, result.stage, result.code) for result in self.results]

    chunking = staticmethod(CHUNKINGS[0])


@pytest.fixture(autouse=True, params=CHUNKINGS)
def _chunking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with replies given whole and byte by byte."""
    monkeypatch.setattr(Talk, "chunking", staticmethod(request.param))


def test_ehlo() -> None:
    talk = Talk(b"220-mx\r\n220 hi\r\n", b"250-mx hello\r\n250-SIZE 1000\r\n250-8bitmime\r\n250 X-Y a b\r\n")
    assert talk.sent == b"EHLO client.example\r\n"
    (ready,) = talk.events
    assert isinstance(ready, Ready)
    assert dict(ready.capabilities.keywords) == {"SIZE": "1000", "8BITMIME": "", "X-Y": "a b"}
    assert ready.capabilities.max_size == 1000


@pytest.mark.parametrize(
    "value",
    ["", " 0", " x", " -1", " " + "9" * 21, " ٣"],
    ids=["none", "zero", "word", "minus", "long", "digit"],
)
def test_size_without_a_limit(value: str) -> None:
    talk = Talk(b"220 mx\r\n", f"250-mx\r\n250 SIZE{value}\r\n".encode())
    assert talk.client.capabilities.max_size is None


def test_helo() -> None:
    talk = Talk(b"220 mx\r\n", b"502 what?\r\n")
    assert talk.sent == b"EHLO client.example\r\nHELO client.example\r\n"
    talk.say(b"250 mx\r\n")
    assert talk.events == [Ready(talk.client.capabilities)]
    assert not talk.client.capabilities.keywords


@pytest.mark.parametrize(
    ("replies", "fate", "stage", "code"),
    [
        ([b"554 no\r\n"], Fate.REFUSED, "connect", 554),
        ([b"421 4.3.2 later\r\n"], Fate.REFUSED, "connect", 421),
        ([b"354 what\r\n"], Fate.BROKEN, "connect", None),
        ([b"SSH-2.0\r\n"], Fate.BROKEN, "connect", None),
        ([b"220 " + b"x" * 5000], Fate.BROKEN, "connect", None),
        ([b""], Fate.BROKEN, "connect", None),
        ([b"22", b""], Fate.BROKEN, "connect", None),
        ([b"220 mx\r\n", b"421 later\r\n"], Fate.REFUSED, "ehlo", 421),
        ([b"220 mx\r\n", b"450 later\r\n"], Fate.REFUSED, "ehlo", 450),
        ([b"220 mx\r\n", b""], Fate.BROKEN, "ehlo", None),
        ([b"220 mx\r\n", b"500 what\r\n", b"550 no\r\n"], Fate.REFUSED, "ehlo", 550),
        ([b"220 mx\r\n", b"250 mx\r\n", b"421 idle\r\n"], Fate.REFUSED, "mail", 421),
        ([b"220 mx\r\n", b"250 mx\r\n", b"550 why\r\n"], Fate.BROKEN, "mail", None),
    ],
)
def test_opening_fails(replies: list[bytes], fate: Fate, stage: str, code: int | None) -> None:
    talk = Talk()
    for reply in replies:
        if reply:
            talk.say(reply)
        else:
            talk.client.receive_data(b"")
    talk.collect()
    failed = talk.events[-1]
    assert isinstance(failed, Failed)
    assert (failed.result.fate, failed.result.stage, failed.result.code) == (fate, stage, code)
    assert talk.client.closed
    talk.begin(transaction())
    assert talk.results == (failed.result,)
    assert talk.sent == b""


def test_one_command_at_a_time() -> None:
    talk = Talk(*PLAIN)
    talk.begin(transaction("b@x", "c@x"))
    assert talk.sent == b"MAIL FROM:<a@example.org>\r\n"
    talk.say(b"250 ok\r\n")
    assert talk.sent.endswith(b"\r\nRCPT TO:<b@x>\r\n")
    talk.say(b"250 ok\r\n", b"550 5.1.1 no\r\n")
    assert talk.sent.endswith(b"RCPT TO:<c@x>\r\nDATA\r\n")
    talk.say(b"354 go\r\n")
    talk.message(b".x\r\n")
    assert talk.sent.endswith(b"DATA\r\n..x\r\n.\r\n")
    talk.say(b"250 2.0.0 queued\r\n")
    assert talk.fates == [("accepted", "dot", 250), ("refused", "rcpt", 550)]
    assert talk.results[1].permanent
    assert talk.results[1].enhanced == "5.1.1"
    assert not talk.client.closed


def test_pipelining_sends_all_at_once() -> None:
    talk = Talk(*PIPELINING)
    talk.begin(transaction("b@x", "c@x", sender=""))
    assert talk.sent == b"MAIL FROM:<>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\nDATA\r\n"
    talk.say(b"250 ok\r\n450 later\r\n250 ok\r\n354 go\r\n")
    talk.message()
    talk.say(b"250 ok\r\n")
    assert talk.fates == [("refused", "rcpt", 450), ("accepted", "dot", 250)]
    assert not talk.results[0].permanent


def test_pipelining_is_bounded() -> None:
    talk = Talk(*PIPELINING)
    talk.begin(transaction(*(f"r{number}@x" for number in range(250))))
    assert talk.sent.count(b"\r\n") == MAX_PIPELINED
    talk.say(b"250 ok\r\n" * 251)
    assert talk.sent.count(b"\r\n") == 252
    assert talk.sent.endswith(b"DATA\r\n")
    talk.say(b"354 go\r\n")
    talk.message()
    talk.say(b"250 ok\r\n")
    assert [result.accepted for result in talk.results] == [True] * 250


def test_all_recipients_refused_one_at_a_time() -> None:
    talk = Talk(*PLAIN)
    talk.begin(transaction())
    talk.say(b"250 ok\r\n", b"550 no\r\n")
    assert talk.fates == [("refused", "rcpt", 550)]
    assert b"DATA" not in talk.sent


@pytest.mark.parametrize("end", [b"250 ok\r\n", b"554 nobody\r\n", b"451 later\r\n"])
def test_all_recipients_refused_and_data_accepted(end: bytes) -> None:
    talk = Talk(*PIPELINING)
    talk.begin(transaction("b@x", "c@x"))
    talk.say(b"250 ok\r\n550 no\r\n450 no\r\n354 go\r\n")
    assert talk.events == []
    assert talk.sent.endswith(b"DATA\r\n.\r\n")
    talk.say(end)
    assert talk.fates == [("refused", "rcpt", 550), ("refused", "rcpt", 450)]
    talk.begin(transaction())
    assert talk.sent.startswith(b"MAIL")


@pytest.mark.parametrize("opening", [PLAIN, PIPELINING])
def test_mail_refused(opening: tuple[bytes, bytes]) -> None:
    talk = Talk(*opening)
    talk.begin(transaction("b@x", "c@x"))
    talk.say(b"550 5.7.1 no\r\n")
    if opening is PIPELINING:
        assert talk.events == []
        talk.say(b"503 no\r\n250 strange\r\n354 go\r\n", b"250 strange\r\n")
        assert talk.sent.endswith(b"DATA\r\n.\r\n")
    assert talk.fates == [("refused", "mail", 550)] * 2
    talk.begin(transaction())
    assert talk.sent.startswith(b"MAIL")


def test_mail_refused_before_all_is_sent() -> None:
    talk = Talk(*PIPELINING)
    talk.begin(transaction(*(f"r{number}@x" for number in range(250))))
    talk.say(b"452 4.3.1 full\r\n" + b"503 no\r\n" * (MAX_PIPELINED - 1))
    assert talk.sent.count(b"\r\n") == MAX_PIPELINED
    assert talk.fates == [("refused", "mail", 452)] * 250


@pytest.mark.parametrize("opening", [PLAIN, PIPELINING])
def test_data_refused_then_rset(opening: tuple[bytes, bytes]) -> None:
    talk = Talk(*opening)
    talk.begin(transaction("b@x", "c@x"))
    talk.say(b"250 ok\r\n", b"550 no\r\n", b"250 ok\r\n", b"451 4.3.0 later\r\n")
    assert talk.fates == [("refused", "rcpt", 550), ("refused", "data", 451)]
    talk.begin(transaction("d@x"))
    assert talk.sent.startswith(b"RSET\r\n")
    talk.say(b"250 ok\r\n")
    assert talk.sent.startswith(b"RSET\r\nMAIL FROM")
    talk.say(b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n")
    talk.message()
    talk.say(b"250 ok\r\n")
    assert talk.fates == [("accepted", "dot", 250)]


def test_rset_refused_says_nothing_about_the_message() -> None:
    talk = Talk(*PLAIN)
    talk.begin(transaction())
    talk.say(b"250 ok\r\n", b"550 no\r\n")
    talk.begin(transaction())
    talk.say(b"502 what\r\n")
    assert talk.fates == [("broken", "mail", None)]
    assert not talk.results[0].permanent


STEPS = [b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"]
STAGES = ["mail", "rcpt", "rcpt", "data", "dot"]


def reach(opening: tuple[bytes, bytes], step: int) -> Talk:
    """A transaction with this many commands answered, the last being the final dot."""
    talk = Talk(*opening)
    talk.begin(transaction("b@x", "c@x"))
    talk.say(*STEPS[:step])
    if step == len(STEPS):
        talk.message()
    return talk


@pytest.mark.parametrize("opening", [PLAIN, PIPELINING])
@pytest.mark.parametrize("step", range(5))
def test_421_anywhere(opening: tuple[bytes, bytes], step: int) -> None:
    talk = reach(opening, step)
    talk.say(b"421 4.3.2 going down\r\n")
    assert talk.fates == [("refused", STAGES[step], 421)] * 2
    assert not talk.results[0].permanent
    assert talk.client.closed


@pytest.mark.parametrize("opening", [PLAIN, PIPELINING])
@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("end", [b"", b"garbage\r\n", b"x" * 5000, b"unexpected"])
def test_broken_anywhere(opening: tuple[bytes, bytes], step: int, end: bytes) -> None:
    talk = reach(opening, step)
    if end == b"unexpected":  # a yes, but not to this
        end = b"250 what\r\n" if STAGES[step] == "data" else b"354 what\r\n"
    if end:
        talk.say(end)
    else:
        talk.client.receive_data(b"")
        talk.collect()
    assert talk.fates == [("unknown" if step == 4 else "broken", STAGES[step], None)] * 2
    assert talk.client.closed


def test_a_refusal_before_the_connection_breaks_stays() -> None:
    talk = Talk(*PIPELINING)
    talk.begin(transaction("b@x", "c@x"))
    talk.say(b"250 ok\r\n550 5.1.1 no\r\n")
    talk.client.connection_lost("no reply within 5 seconds")
    talk.collect()
    assert talk.fates == [("refused", "rcpt", 550), ("broken", "rcpt", None)]
    assert talk.results[1].text == "no reply within 5 seconds"


def test_refused_at_the_dot() -> None:
    talk = reach(PIPELINING, 4)
    talk.say(b"554 5.6.0 bad\r\n")
    assert talk.fates == [("refused", "dot", 554)] * 2
    assert not talk.client.closed
    talk.begin(transaction())
    assert talk.sent.startswith(b"MAIL")


def test_server_gives_up_while_we_send() -> None:
    talk = Talk(*PLAIN)
    talk.begin(transaction())
    talk.say(*STEPS[:2], b"354 go\r\n")
    talk.client.send_message(b"x\r\n" * 100)
    talk.say(b"552 5.3.4 too much\r\n")
    assert talk.fates == [("refused", "data", 552)]
    assert talk.client.closed


def test_a_message_with_a_bare_line_end_is_never_completed() -> None:
    for content, complete in ((b"x\ny\r\n", False), (b"x\r", True)):
        talk = Talk(*PLAIN)
        talk.begin(transaction())
        talk.say(*STEPS[:2], b"354 go\r\n")
        talk.client.send_message(content)
        if complete:
            talk.client.end_message()
        talk.collect()
        assert talk.fates == [("unsendable", "data", None)]
        assert talk.results[0].permanent
        assert talk.results[0].enhanced == "5.6.0"
        assert talk.sent.endswith(b"DATA\r\n")
        assert talk.client.closed


@pytest.mark.parametrize(
    ("offered", "what", "command"),
    [
        (b"SIZE 1000", {"size": 1000}, b" SIZE=1000"),
        (b"SIZE", {"size": 1000}, b" SIZE=1000"),
        (b"X", {"size": 1000}, b""),
        (b"8BITMIME", {"eight_bit": True}, b" BODY=8BITMIME"),
        (b"8BITMIME", {}, b""),
        (b"X", {"eight_bit": True}, b""),
        (b"SMTPUTF8", {"smtputf8": True}, b" SMTPUTF8"),
        (b"SMTPUTF8", {}, b""),
    ],
)
def test_parameters(offered: bytes, what: dict[str, object], command: bytes) -> None:
    talk = Talk(b"220 mx\r\n", b"250-mx\r\n250 " + offered + b"\r\n")
    talk.begin(transaction(**what))  # type: ignore[arg-type]
    assert talk.sent == b"MAIL FROM:<a@example.org>" + command + b"\r\n"


def test_too_large_for_the_server() -> None:
    talk = Talk(b"220 mx\r\n", b"250-mx\r\n250 SIZE 1000\r\n")
    talk.begin(transaction(size=1001))
    assert talk.fates == [("unsendable", "mail", None)]
    assert talk.results[0].enhanced == "5.3.4"
    assert talk.sent == b""
    assert not talk.client.closed


def test_smtputf8_not_offered() -> None:
    talk = Talk(*PIPELINING)
    for what in (transaction(smtputf8=True), transaction(sender="ü@x")):
        talk.begin(what)
        assert talk.fates == [("unsendable", "mail", None)]
        assert talk.results[0].enhanced == "5.6.7"
        assert talk.sent == b""
    talk.begin(transaction("b@x", "ü@x"))
    assert talk.sent == b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@x>\r\nDATA\r\n"
    talk.say(b"250 ok\r\n250 ok\r\n354 go\r\n")
    talk.message()
    talk.say(b"250 ok\r\n")
    assert talk.fates == [("accepted", "dot", 250), ("unsendable", "mail", None)]


def test_smtputf8_address() -> None:
    talk = Talk(b"220 mx\r\n", b"250-mx\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n")
    talk.begin(transaction("ü@x"))
    assert talk.sent == "MAIL FROM:<a@example.org> SMTPUTF8\r\nRCPT TO:<ü@x>\r\nDATA\r\n".encode()


def test_quit() -> None:
    talk = Talk(*PLAIN)
    talk.client.quit()
    talk.collect()
    assert talk.sent.endswith(b"QUIT\r\n")
    talk.say(b"221 bye\r\n")
    assert talk.client.closed
    talk.client.quit()
    talk.collect()
    assert talk.sent.count(b"QUIT") == 1


def test_half_a_reply_left_over_is_not_taken_for_the_next_one() -> None:
    talk = reach(PLAIN, 4)
    talk.say(b"250 ok\r\n250 o")
    assert talk.fates == [("accepted", "dot", 250)] * 2
    talk.begin(transaction())
    assert talk.fates == [("broken", "mail", None)]


def test_transcript() -> None:
    talk = Talk(*PIPELINING)
    talk.begin(transaction("secret@x"))
    talk.say(b"250 ok\r\n550-5.1.1 no\r\n550 5.1.1 really\r\n554 no\r\n")
    talk.begin(transaction("b@x"))
    talk.say(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    talk.message(b"private\r\n")
    talk.client.receive_data(b"")
    assert talk.client.transcript.splitlines() == [
        "< 220 mx",
        "> EHLO client.example",
        "< 250-mx",
        "< 250 PIPELINING",
        "> RSET",
        "> MAIL FROM:<a@example.org>",
        "> RCPT TO:<b@x>",
        "> DATA",
        "< 250 ok",
        "< 250 ok",
        "< 250 ok",
        "< 354 go",
        "> (message)",
        "* connection closed by the server",
    ]


def test_transcript_is_bounded() -> None:
    talk = Talk(*PIPELINING)
    talk.begin(transaction(*(f"r{number}@x" for number in range(1000))))
    talk.say(b"250 " + b"x" * 1000 + b"\r\n")
    talk.say(b"550 5.1.1 no\r\n" * 1000 + b"554 no\r\n")
    transcript = talk.client.transcript
    assert len(transcript) < 100 * 310
    assert "lines left out)" in transcript
    assert transcript.endswith("< 554 no")


def test_misuse() -> None:
    with pytest.raises(ValueError):
        SmtpClient("a b")
    with pytest.raises(ValueError):
        Transaction(None, ())
    talk = Talk()
    with pytest.raises(RuntimeError):
        talk.client.begin(transaction())
    talk.say(*PLAIN)
    with pytest.raises(RuntimeError):
        talk.client.send_message(b"")
    with pytest.raises(RuntimeError):
        talk.client.end_message()
    talk.begin(transaction())
    with pytest.raises(RuntimeError):
        talk.client.begin(transaction())
