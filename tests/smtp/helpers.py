"""Drives the machines without sockets: scripts fed whole and byte by byte, and a client against a server."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gateway.smtp.addresses import parse_mailbox
from gateway.smtp.client import AskForTls, SmtpClient
from gateway.smtp.commands import Auth, Bdat, Data, Mail, Rcpt, StartTls
from gateway.smtp.events import (
    AuthResponse,
    Closed,
    Connected,
    DataChunk,
    DataEnd,
    DataRefused,
    Finished,
    NeedData,
    SendData,
    TlsStarting,
)
from gateway.smtp.replies import Reply
from gateway.smtp.results import Result
from gateway.smtp.server import SEND_DATA, Event, Offer, Question, ServerLimits, SmtpServer
from gateway.smtp.transaction import Transaction

OK = Reply(250, "2.0.0", ("OK",))
LIMITS = ServerLimits("mx.example.org")

PLAIN = Offer()
Decide = Callable[[Question], Reply | bytes | None]  # bytes are a challenge


def whole(data: bytes) -> list[bytes]:
    return [data] if data else []


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


CHUNKINGS = (whole, bytewise)


@dataclass
class ServerRun:
    """A server machine with a driver that says yes, except where `decide` has another answer. The bytes
    behind STARTTLS are taken for what comes within TLS."""

    limits: ServerLimits = LIMITS
    decide: Decide = lambda question: None
    offer: Offer = PLAIN
    mechanisms: tuple[str, ...] = ()  # without TLS
    tls_mechanisms: tuple[str, ...] = ()
    events: list[Event] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    output: bytes = b""
    closed: bool = False

    def __post_init__(self) -> None:
        self.machine = SmtpServer(self.limits, self.offer, mechanisms=self.mechanisms)
        self._message = b""
        self.run()

    def feed(self, chunks: Iterable[bytes]) -> "ServerRun":
        for chunk in chunks:
            self.machine.receive_data(chunk)
            self.run()
        return self

    def run(self) -> None:
        while not isinstance(event := self.machine.next_event(), NeedData | Closed):
            self.events.append(event)
            match event:
                case DataChunk(data):
                    self._message += data
                case DataRefused():
                    self._message = b""
                case StartTls():
                    self.machine.tls_started(self.tls_mechanisms)
                case Connected() | Mail() | Rcpt() | Data() | Bdat() | DataEnd() | Auth() | AuthResponse():
                    usual = {Connected: self.machine.greeting, Data: SEND_DATA, Bdat: SEND_DATA}.get(
                        type(event), OK
                    )
                    if isinstance(event, DataEnd):
                        self.messages.append(self._message)
                    if isinstance(event, Data | Bdat):
                        self._message = b""
                    answer = self.decide(event)
                    if isinstance(answer, bytes):
                        self.machine.challenge(answer)
                    else:
                        self.machine.answer(answer or usual)
        self.closed = isinstance(event, Closed)
        self.output += self.machine.data_to_send()

    @property
    def codes(self) -> list[str]:
        """Code and enhanced code of each reply line but the greeting, and without those that go on."""
        lines = self.output.decode("ascii").split("\r\n")
        assert lines.pop() == "", "a reply without its end"
        codes = []
        for line in lines[1:]:
            if line[3] == " ":
                enhanced = line[4:].partition(" ")[0]
                codes.append(line[:3] + (" " + enhanced if enhanced[1:2] == "." else ""))
        return codes


def serve(
    data: bytes,
    *,
    limits: ServerLimits = LIMITS,
    decide: Decide = lambda question: None,
    offer: Offer = PLAIN,
    mechanisms: tuple[str, ...] = (),
) -> ServerRun:
    """Run a script whole and byte by byte; both must give the same replies and messages."""
    runs = [ServerRun(limits, decide, offer, mechanisms).feed(chunk(data)) for chunk in CHUNKINGS]
    assert runs[0].output == runs[1].output
    assert runs[0].messages == runs[1].messages
    assert runs[0].closed == runs[1].closed
    return runs[0]


def transaction(*recipients: str, sender: str = "a@example.org", **more: object) -> Transaction:
    mailboxes = tuple(parse_mailbox(recipient) for recipient in recipients or ("b@example.net",))
    return Transaction(parse_mailbox(sender) if sender else None, mailboxes, **more)  # type: ignore[arg-type]


class ConnectionPair:
    """A client and a server machine, with nothing but bytes between them."""

    def __init__(
        self,
        limits: ServerLimits = LIMITS,
        decide: Decide = lambda question: None,
        *,
        chunk: int = 65536,
        offer: Offer = PLAIN,
        starttls: AskForTls = AskForTls.NEVER,
    ) -> None:
        self.server = ServerRun(limits, decide, offer)
        self.client = SmtpClient("client.example", starttls)
        self._chunk = chunk
        self._passed = 0
        self.exchange()

    def exchange(self) -> list[object]:
        """Pass bytes until both sides wait; return the client's events."""
        events: list[object] = []
        moved = True
        while moved:
            moved = False
            replies = self.server.output[self._passed :]
            self._passed = len(self.server.output)
            data = self.client.data_to_send()
            for start in range(0, len(replies), self._chunk):
                self.client.receive_data(replies[start : start + self._chunk])
                moved = True
            for start in range(0, len(data), self._chunk):
                self.server.feed([data[start : start + self._chunk]])
                moved = True
            while not isinstance(event := self.client.next_event(), NeedData):
                if isinstance(event, TlsStarting):
                    self.client.tls_started()
                events.append(event)
                moved = True
        return events

    def deliver(self, transaction: Transaction, message: bytes) -> tuple[Result, ...]:
        self.client.begin(transaction)
        events = self.exchange()
        if isinstance(events[0], SendData):
            for start in range(0, len(message), self._chunk):
                self.client.send_message(message[start : start + self._chunk])
            self.client.end_message()
            events = self.exchange()
        assert isinstance(events[0], Finished)
        return events[0].results
