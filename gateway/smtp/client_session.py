"""The client's side of an SMTP session as such, without I/O: commands and their replies, and the opening up
to Ready (RFC 5321, 2920, 3207, 4954). Transactions are in `client`, and so are the rules for both.
"""

from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum, auto
from functools import partial
from typing import ClassVar, Literal, NamedTuple

from gateway.smtp.client_auth import ChannelBinding, Credentials, Login
from gateway.smtp.events import (
    NEED_DATA,
    Failed,
    Finished,
    LoginStep,
    NeedData,
    Ready,
    SendData,
    TlsStarting,
)
from gateway.smtp.replies import Reply, ReplyError, ReplyParser
from gateway.smtp.results import Fate, Result, Stage
from gateway.smtp.transaction import Capabilities
from gateway.smtp.transcript import Transcript

# Commands sent ahead of their replies with PIPELINING. Their replies, at 100 octets each, fit into the
# smallest receive buffers in use, so that neither side waits for the other to read (RFC 2920 section 3.1).
MAX_PIPELINED = 100

NONSENSE = "4.5.0"  # RFC 3463: the protocol was not kept
CLOSED = "connection closed by the server"


Event = Ready | TlsStarting | LoginStep | SendData | Finished | Failed | NeedData


class AskForTls(Enum):
    """Whether to say STARTTLS."""

    NEVER = auto()
    IF_OFFERED = auto()  # and go on without it where the server does not want to
    REQUIRED = auto()


# What a reply that we wait for answers; "dot" is the message's end, also by BDAT, and "lone dot" ends data
# that nobody gets.
Kind = Literal[
    "greeting", "ehlo", "helo", "starttls", "auth", "rset", "mail", "rcpt", "data", "dot", "lone dot", "quit"
]

STAGES: Mapping[Kind, Stage] = {
    "greeting": "connect",
    "ehlo": "ehlo",
    "helo": "ehlo",
    "starttls": "starttls",
    "auth": "auth",
    "rset": "mail",
    "mail": "mail",
    "rcpt": "rcpt",
    "data": "data",
    "dot": "dot",
    "lone dot": "data",
    "quit": "dot",
}


class Command(NamedTuple):
    kind: Kind
    line: str
    recipient: int = -1  # its place in the transaction


class ClientSession:
    """Opens a session, and matches replies with commands."""

    def __init__(
        self,
        hello_name: str,
        starttls: AskForTls = AskForTls.NEVER,
        credentials: Credentials | None = None,
    ) -> None:
        if not (hello_name.isascii() and hello_name.isprintable()) or " " in hello_name or not hello_name:
            raise ValueError(f"{hello_name!r} can't be given in EHLO")
        self._hello_name = hello_name
        self._starttls = starttls  # NEVER once it is decided
        self._handshaking = False
        self._in_tls = False
        self._binding: ChannelBinding | None = None  # of the TLS connection
        self._credentials = credentials
        self._login: Login | None = None  # while it goes on
        self._parser = ReplyParser()
        self._output: list[bytes] = []
        self._events: deque[Event] = deque()
        self._unsent: deque[Command] = deque()
        self._awaiting: deque[Command] = deque([Command("greeting", "")])
        self._transcript = Transcript()
        self.capabilities = Capabilities()
        self.replies = 0  # read so far; the caller's time limits are for one reply each
        self.failure: Result | None = None  # why the connection is of no more use

    @property
    def closed(self) -> bool:
        """The connection is of no more use."""
        return self.failure is not None

    @property
    def stage(self) -> Stage:
        """What is waited for, or done, now."""
        if self._handshaking:
            return "starttls"
        if self._awaiting:
            return STAGES[self._awaiting[0].kind]
        if self._login is not None:
            return "auth"
        return "data" if self._sending else "mail"

    @property
    def message_sent(self) -> bool:
        """All of a message was sent, and its reply is not here yet, nor perhaps those to its envelope."""
        return any(command.kind == "dot" for command in self._awaiting)

    @property
    def _sending(self) -> bool:
        """A message is on its way."""
        return False

    @property
    def transcript(self) -> str:
        """The opening of the connection and the last transaction, shortened, without message data."""
        return str(self._transcript)

    # --- What the caller wants done ---

    def quit(self) -> None:
        """Say QUIT; the answer, if there is one, comes as Failed."""
        if not self.closed and not self._awaiting and not self._sending:
            self._unsent.append(Command("quit", "QUIT"))
            self._send_commands()

    def tls_started(self, binding: ChannelBinding | None = None) -> None:
        """The handshake is done. After STARTTLS the server is greeted again (RFC 3207 section 4.2)."""
        if not self._handshaking and (self._in_tls or self.replies or self.closed):
            raise RuntimeError("no TLS handshake was due")
        self._in_tls, self._binding = True, binding
        self._transcript.note("TLS started")
        if self._handshaking:
            self._handshaking = False
            self._unsent.append(Command("ehlo", f"EHLO {self._hello_name}"))
            self._send_commands()
        else:
            self._starttls = AskForTls.NEVER

    def answer_challenge(self, response: bytes | None) -> None:
        """What the `answer` of LoginStep returned."""
        if self.closed:
            return
        if self._login is None or self._awaiting:
            raise RuntimeError("no answer to a challenge was due")
        self._awaiting.append(Command("auth", ""))
        self._transcript.sent("*" if response is None else "(response)")
        self._output += [b"*" if response is None else response, b"\r\n"]

    def tls_failed(self, reason: str) -> None:
        """There is no TLS, and so no connection any more; the text says why. The handshake failed, or what
        came right after it."""
        if not self.closed:
            self._fail(Result(Fate.BROKEN, "starttls", reason))

    def connection_lost(self, reason: str, enhanced: str | None = None) -> None:
        """The network, or a time limit, ended the connection: the text says how, and the status if it is
        another than that of any connection that ends."""
        if not self.closed:
            self._fail(self._broken(reason, enhanced))

    # --- Bytes and events ---

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the server; b"" says that there will be no more."""
        if self._handshaking and not self.closed:
            raise RuntimeError("the TLS handshake is not the machine's")
        if data:
            self._parser.feed(data)
            self._read_replies()
        elif not self.closed:
            self.connection_lost(CLOSED)

    def data_to_send(self) -> bytes:
        """The bytes for the server that were not yet asked for."""
        if not self._output:
            return b""
        data = b"".join(self._output)
        self._output.clear()
        return data

    def next_event(self) -> Event:
        """What happened next."""
        return self._events.popleft() if self._events else NEED_DATA

    # --- Commands out ---

    def _send_commands(self) -> None:
        """Send as many commands as may be ahead of their replies."""
        ahead = MAX_PIPELINED if "PIPELINING" in self.capabilities else 1
        while self._unsent and len(self._awaiting) < ahead:
            command = self._unsent.popleft()
            self._awaiting.append(command)
            self._transcript.sent(command.line)
            self._output.append(f"{command.line}\r\n".encode())

    # --- Replies in ---

    def _read_replies(self) -> None:
        try:
            while self.failure is None and not self._handshaking and (reply := self._parser.next_reply()):
                self._read_reply(reply)
        except ReplyError as error:
            self._fail(self._broken(str(error), NONSENSE))

    def _read_reply(self, reply: Reply) -> None:
        self.replies += 1
        if self._login is not None:
            reply = self._received_in_login(reply)
        else:
            self._transcript.received(reply)
        if not self._awaiting:
            self._on_unasked(reply)
            return
        command = self._awaiting.popleft()
        if reply.code == 421:
            self._refused(command, reply)
            return
        # Any 2xx says yes, to DATA any 3xx (RFC 5321 section 4.3.2: clients go by the first digit).
        yes = 3 if command.kind == "data" or (command.kind == "auth" and reply.code == 334) else 2
        if reply.code < 400 and reply.code // 100 != yes:
            self._awaiting.appendleft(command)
            self._fail(self._broken(f"unexpected reply: {reply}", NONSENSE))
            return
        self._ON_REPLY[command.kind](self, command, reply)
        if self._unsent and self.failure is None:
            self._send_commands()

    def _on_unasked(self, reply: Reply) -> None:
        """A reply to nothing: a server may give up while we send the message, or while nothing is done."""
        if reply.code == 421 or (reply.code >= 400 and self._sending):
            self._fail(Result.from_reply(Fate.REFUSED, self.stage, reply))
        else:
            self._fail(self._broken(f"unexpected reply: {reply}", NONSENSE))

    # --- The opening ---

    def _on_greeting(self, command: Command, reply: Reply) -> None:
        if reply.positive:
            self._unsent.append(Command("ehlo", f"EHLO {self._hello_name}"))
        else:
            self._refused(command, reply)

    def _on_ehlo(self, command: Command, reply: Reply) -> None:
        if reply.positive:
            self.capabilities = Capabilities.from_reply(reply)
            if self._starttls is not AskForTls.NEVER and "STARTTLS" in self.capabilities:
                self._unsent.append(Command("starttls", "STARTTLS"))
            else:
                self._ready()
        elif reply.permanent:
            self._unsent.append(Command("helo", f"HELO {self._hello_name}"))
        else:
            self._refused(command, reply)

    def _on_helo(self, command: Command, reply: Reply) -> None:
        if reply.positive:
            self._ready()
        else:
            self._refused(command, reply)

    def _ready(self) -> None:
        if self._starttls is AskForTls.REQUIRED:
            text = "TLS is required, and the server does not offer STARTTLS"
            self._fail(Result(Fate.BROKEN, "starttls", text))
        elif self._credentials is None:
            self._events.append(Ready(self.capabilities))
        elif not (self._in_tls or self._credentials.without_tls):
            self._fail(Result(Fate.BROKEN, "auth", "no login without TLS"))
        elif "AUTH" not in self.capabilities:
            self._fail(Result(Fate.BROKEN, "auth", "the server does not offer AUTH"))
        else:
            self._login = Login(self._credentials, self.capabilities.mechanisms, self._binding)
            self._log_in("")

    def _on_starttls(self, _command: Command, reply: Reply) -> None:
        required, self._starttls = self._starttls is AskForTls.REQUIRED, AskForTls.NEVER
        if not reply.positive:
            if required:  # a matter of the server's state, not of the message: no permanent failure
                self._fail(Result(Fate.BROKEN, "starttls", f"TLS is required, and STARTTLS failed: {reply}"))
            else:
                self._ready()
        elif not self._parser.empty:
            self._handshaking = True  # so that the failure names its stage
            self._fail(self._broken("the server sent more behind its reply to STARTTLS"))
        else:
            self._handshaking = True
            self.capabilities = Capabilities()
            self._events.append(TlsStarting())

    # --- Login ---

    def _log_in(self, refusal: str) -> None:
        """Begin with the next mechanism, if there is one; `refusal` is what became of the last one."""
        assert self._login is not None
        line = self._login.next_command()
        if line is None:
            self._login_failed(refusal or self._login.nothing_to_use())
            return
        self._awaiting.append(Command("auth", ""))
        initial = line.count(" ") > 1
        self._transcript.sent(f"AUTH {self._login.name}{' (response)' if initial else ''}")
        self._output.append(f"{line}\r\n".encode())

    def _received_in_login(self, reply: Reply) -> Reply:
        """The reply without what we said; of a challenge, which is no one's to read, nothing is noted."""
        assert self._login is not None
        if reply.code == 334:
            self._transcript.received(Reply(334, None, ("(challenge)",)))
            return reply
        reply = self._login.without_secrets(reply)
        self._transcript.received(reply)
        return reply

    def _on_auth(self, _command: Command, reply: Reply) -> None:
        login = self._login
        assert login is not None
        if reply.code == 334:
            if login.fault:  # we had ended it
                self._login_failed(login.fault)
            else:
                self._events.append(LoginStep(partial(login.answer, reply.text)))
        elif reply.positive:
            if login.accepted():
                self._login = None
                self._events.append(Ready(self.capabilities))
            else:
                self._login_failed(login.fault)
        else:
            # A matter of the configuration, which can be mended: no permanent failure of a message.
            refusal = login.fault or f"remote answered {reply}"
            if login.proven:
                self._login_failed(refusal)
            else:
                self._log_in(refusal)

    def _login_failed(self, why: str) -> None:
        assert self._login is not None
        name = f" with {self._login.name}" if self._login.name else ""
        self._fail(Result(Fate.BROKEN, "auth", f"login{name} failed: {why}"))

    # --- The end ---

    def _on_quit(self, command: Command, reply: Reply) -> None:
        self._refused(command, reply)

    def _refused(self, command: Command, reply: Reply) -> None:
        self._fail(Result.from_reply(Fate.REFUSED, STAGES[command.kind], reply))

    def _broken(self, text: str, enhanced: str | None = None) -> Result:
        fate = Fate.UNKNOWN if self.message_sent else Fate.BROKEN
        return Result(fate, self.stage, text, enhanced=enhanced)

    def _fail(self, result: Result) -> None:
        """The end of the session."""
        self._end(result, result)
        self._events.append(Failed(result))

    def _end(self, result: Result, failure: Result) -> None:
        """What is not sent is not sent any more; `failure` is why."""
        if result.reply is None:
            self._transcript.note(result.text)
        self.failure = failure
        self._awaiting.clear()
        self._unsent.clear()
        self._output.clear()
        self._login = None

    _ON_REPLY: ClassVar[Mapping[Kind, Callable[..., None]]] = {
        "greeting": _on_greeting,
        "ehlo": _on_ehlo,
        "helo": _on_helo,
        "starttls": _on_starttls,
        "auth": _on_auth,
        "quit": _on_quit,
    }
