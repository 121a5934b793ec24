"""The client's side of an SMTP session, without I/O (RFC 5321, 2920, 1870, 3030, 6152, 6531, 3207, 3461,
4954, 8689).

Bytes from the server go in through `receive_data`, events come out of `next_event`, bytes for the server out
of `data_to_send`. Five rules hold throughout:

1. Every command sent is in `_awaiting` until its reply is read; replies are matched with commands by order
   and by nothing else. What a reply means stands in one method for each kind of command.
2. Each recipient gets exactly one Result, set once. Whatever ends the connection gives the same result to all
   that have none yet; `connection_lost` is how the caller tells of the network's part.
3. A 421 answers whatever was asked and ends the connection. It is a normal reply.
4. What the server said before TLS is forgotten, and what it sent behind its yes to STARTTLS ends the
   connection: neither was from whom we talk to.
5. There is no login outside of TLS, unless that is asked for, and none of it is in the transcript.

A message goes by BDAT where the server offers CHUNKING and the size is known, as a single chunk: there is one
reply less to wait for, and no dot-stuffing. Else by DATA; the caller does the same for both.

The order of calls: wait for Ready; `begin(transaction)`; when SendData comes, `send_message` for each
chunk and `end_message`; wait for Finished; again from `begin`, or `quit`. Upon NEED_DATA send what there
is to send, then read. Upon TlsStarting do the handshake, then call `tls_started`; a connection that begins
within TLS has it called first of all. Upon LoginStep call `answer_challenge`. Upon Failed, or when `closed`,
nothing more can be done with the connection.
"""

from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum, auto
from functools import partial
from typing import Literal, NamedTuple

from gateway.smtp.chunks import ChunkEncoder
from gateway.smtp.client_auth import ChannelBinding, Credentials, Login
from gateway.smtp.data import DataEncoder
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
from gateway.smtp.transaction import Capabilities, Transaction, mail_command, rcpt_commands, refusals
from gateway.smtp.transcript import Transcript

# Commands sent ahead of their replies with PIPELINING. Their replies, at 100 octets each, fit into the
# smallest receive buffers in use, so that neither side waits for the other to read (RFC 2920 section 3.1).
MAX_PIPELINED = 100


Event = Ready | TlsStarting | LoginStep | SendData | Finished | Failed | NeedData


class AskForTls(Enum):
    """Whether to say STARTTLS."""

    NEVER = auto()
    IF_OFFERED = auto()  # and go on without it where the server does not want to
    REQUIRED = auto()


# What a reply that we wait for answers; "dot" is the message's end, also by BDAT, and "lone dot" ends data
# that nobody gets.
_Kind = Literal[
    "greeting", "ehlo", "helo", "starttls", "auth", "rset", "mail", "rcpt", "data", "dot", "lone dot", "quit"
]

_STAGES: Mapping[_Kind, Stage] = {
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


class _Command(NamedTuple):
    kind: _Kind
    line: str
    recipient: int = -1  # its place in the transaction


class SmtpClient:
    """One connection. `hello_name` is our own host name or address literal; `starttls` is of no meaning for a
    connection that begins within TLS; with `credentials` we log in. Not for use by several tasks."""

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
        self._unsent: deque[_Command] = deque()
        self._awaiting: deque[_Command] = deque([_Command("greeting", "")])
        self._transcript = Transcript()
        self._results: list[Result | None] | None = None  # of the transaction under way
        self._accepted: list[int] = []  # recipients that RCPT was accepted for
        self._mail_open = False  # the server has begun a transaction and not ended it: RSET is due
        self._encoder: DataEncoder | ChunkEncoder | None = None  # while the message is sent
        self._chunk: int | None = None  # octets that are to be sent by BDAT
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
            return _STAGES[self._awaiting[0].kind]
        if self._login is not None:
            return "auth"
        return "data" if self._encoder is not None else "mail"

    @property
    def transcript(self) -> str:
        """The opening of the connection and the last transaction, shortened, without message data."""
        return str(self._transcript)

    # --- What the caller wants done ---

    def begin(self, transaction: Transaction) -> None:
        """Start a transaction; its results come with Finished, also when the connection is of no more use."""
        opening = self._awaiting or self._handshaking or self._login is not None
        if self._results is not None or (opening and not self.closed):
            raise RuntimeError("the connection is not ready for a transaction")
        self._results = [None] * len(transaction.recipients)
        self._accepted = []
        self._transcript.begin_transaction()
        if self.failure is not None:
            self._finish(self.failure)
            return
        if not self._parser.empty:  # the rest of it would be taken for the answer to our next command
            self._fail(self._broken("unexpected part of a reply"))
            return
        self._results = refusals(transaction, self.capabilities)
        if all(self._results):
            self._finish()
            return
        if self._mail_open:
            self._unsent.append(_Command("rset", "RSET"))
        self._unsent.append(_Command("mail", mail_command(transaction, self.capabilities)))
        self._unsent.extend(
            _Command("rcpt", line, number)
            for number, line in enumerate(rcpt_commands(transaction, self.capabilities))
            if self._results[number] is None
        )
        self._chunk = transaction.size if "CHUNKING" in self.capabilities else None
        if self._chunk is None:
            self._unsent.append(_Command("data", "DATA"))
        self._send_commands()

    def send_message(self, chunk: bytes) -> None:
        """A part of the message, without dot-stuffing, its lines ended by CRLF.

        A bare CR or LF makes the message unsendable and ends the connection, since data once begun
        can't be taken back. So does a message of another size than its transaction says, sent by BDAT.
        """
        if self._encoder is None:
            raise RuntimeError("the server does not wait for a message")
        try:
            self._output.append(self._encoder.feed(chunk))
        except ValueError as error:
            self._unsendable_data(error)

    def end_message(self) -> None:
        """The message is complete."""
        if self._encoder is None:
            raise RuntimeError("the server does not wait for a message")
        try:
            self._output.append(self._encoder.finish())
        except ValueError as error:
            self._unsendable_data(error)
            return
        self._encoder = None
        self._transcript.sent("(message)")
        self._awaiting.append(_Command("dot", "."))

    def quit(self) -> None:
        """Say QUIT; the answer, if there is one, comes as Failed."""
        if not self.closed and not self._awaiting and self._encoder is None:
            self._unsent.append(_Command("quit", "QUIT"))
            self._send_commands()

    def tls_started(self, binding: ChannelBinding | None = None) -> None:
        """The handshake is done. After STARTTLS the server is greeted again (RFC 3207 section 4.2)."""
        if not self._handshaking and (self._in_tls or self.replies or self.closed):
            raise RuntimeError("no TLS handshake was due")
        self._in_tls, self._binding = True, binding
        self._transcript.note("TLS started")
        if self._handshaking:
            self._handshaking = False
            self._unsent.append(_Command("ehlo", f"EHLO {self._hello_name}"))
            self._send_commands()
        else:
            self._starttls = AskForTls.NEVER

    def answer_challenge(self, response: bytes | None) -> None:
        """What the `answer` of LoginStep returned."""
        if self.closed:
            return
        if self._login is None or self._awaiting:
            raise RuntimeError("no answer to a challenge was due")
        self._awaiting.append(_Command("auth", ""))
        self._transcript.sent("*" if response is None else "(response)")
        self._output += [b"*" if response is None else response, b"\r\n"]

    def connection_lost(self, reason: str) -> None:
        """The network, or a time limit, ended the connection: the text says how."""
        if not self.closed:
            self._fail(self._broken(reason))

    # --- Bytes and events ---

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the server; b"" says that there will be no more."""
        if self._handshaking and not self.closed:
            raise RuntimeError("the TLS handshake is not the machine's")
        if data:
            self._parser.feed(data)
            self._read_replies()
        elif not self.closed:
            self.connection_lost("connection closed by the server")

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
            if command.kind == "data" and not self._awaiting and not self._accepted:
                self._finish()
                return
            self._awaiting.append(command)
            self._transcript.sent(command.line)
            self._output.append(f"{command.line}\r\n".encode())

    # --- Replies in ---

    def _read_replies(self) -> None:
        try:
            while self.failure is None and not self._handshaking and (reply := self._parser.next_reply()):
                self._read_reply(reply)
        except ReplyError as error:
            self._fail(self._broken(str(error)))

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
            self._fail(Result.from_reply(Fate.REFUSED, _STAGES[command.kind], reply))
            return
        # Any 2xx says yes, to DATA any 3xx (RFC 5321 section 4.3.2: clients go by the first digit).
        yes = 3 if command.kind == "data" or (command.kind == "auth" and reply.code == 334) else 2
        if reply.code < 400 and reply.code // 100 != yes:
            self._awaiting.appendleft(command)
            self._fail(self._broken(f"unexpected reply: {reply}"))
            return
        _ON_REPLY[command.kind](self, command, reply)
        if self._unsent and self.failure is None:
            self._send_commands()

    def _on_greeting(self, command: _Command, reply: Reply) -> None:
        if reply.positive:
            self._unsent.append(_Command("ehlo", f"EHLO {self._hello_name}"))
        else:
            self._refused(command, reply)

    def _on_ehlo(self, command: _Command, reply: Reply) -> None:
        if reply.positive:
            self.capabilities = Capabilities.from_reply(reply)
            if self._starttls is not AskForTls.NEVER and "STARTTLS" in self.capabilities:
                self._unsent.append(_Command("starttls", "STARTTLS"))
            else:
                self._ready()
        elif reply.permanent:
            self._unsent.append(_Command("helo", f"HELO {self._hello_name}"))
        else:
            self._refused(command, reply)

    def _on_helo(self, command: _Command, reply: Reply) -> None:
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

    def _on_starttls(self, _command: _Command, reply: Reply) -> None:
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
        self._awaiting.append(_Command("auth", ""))
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

    def _on_auth(self, _command: _Command, reply: Reply) -> None:
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

    # --- Replies within a transaction ---

    def _on_rset(self, _command: _Command, reply: Reply) -> None:
        if reply.positive:
            self._mail_open = False
        else:  # which says nothing about the message
            self._fail(self._broken(f"RSET failed: {reply}"))

    def _on_mail(self, _command: _Command, reply: Reply) -> None:
        if reply.positive:
            self._mail_open = True
            return
        self._unsent.clear()
        self._settle(Result.from_reply(Fate.REFUSED, "mail", reply))
        self._finish_if_answered()

    def _on_rcpt(self, command: _Command, reply: Reply) -> None:
        assert self._results is not None
        if self._results[command.recipient] is None:
            if reply.positive:
                self._accepted.append(command.recipient)
            else:
                self._results[command.recipient] = Result.from_reply(Fate.REFUSED, "rcpt", reply)
        if self._chunk is not None and self._accepted and not (self._awaiting or self._unsent):
            self._begin_chunk(self._chunk)
        else:
            self._finish_if_answered()

    def _begin_chunk(self, size: int) -> None:
        self._encoder = ChunkEncoder(size)
        self._transcript.sent(self._encoder.command)
        self._events.append(SendData())

    def _on_data(self, _command: _Command, reply: Reply) -> None:
        if reply.code >= 400:
            self._settle(Result.from_reply(Fate.REFUSED, "data", reply))
            self._finish()
        elif self._accepted:
            self._encoder = DataEncoder()
            self._events.append(SendData())
        else:
            # DATA was pipelined, and the server said yes to it though nobody is to get the message.
            self._awaiting.append(_Command("lone dot", "."))
            self._transcript.sent(".")
            self._output.append(b".\r\n")

    def _on_dot(self, _command: _Command, reply: Reply) -> None:
        self._mail_open = self._chunk is not None and not reply.positive  # RFC 3030 section 2
        fate = Fate.ACCEPTED if reply.positive else Fate.REFUSED
        self._settle(Result.from_reply(fate, "dot", reply))
        self._finish()

    def _on_lone_dot(self, _command: _Command, _reply: Reply) -> None:
        self._mail_open = False
        self._finish()

    def _on_quit(self, command: _Command, reply: Reply) -> None:
        self._refused(command, reply)

    def _on_unasked(self, reply: Reply) -> None:
        """A reply to nothing: a server may give up while we send the message, or while nothing is done."""
        if reply.code == 421 or (reply.code >= 400 and self._encoder is not None):
            self._fail(Result.from_reply(Fate.REFUSED, self.stage, reply))
        else:
            self._fail(self._broken(f"unexpected reply: {reply}"))

    # --- Results ---

    def _settle(self, result: Result) -> None:
        """The result of all recipients that have none."""
        if self._results is not None:
            self._results = [known or result for known in self._results]

    def _finish_if_answered(self) -> None:
        """Finish when nothing is left to be sent or answered; else the next reply comes here again."""
        if not self._awaiting and not self._unsent:
            self._finish()

    def _finish(self, result: Result | None = None) -> None:
        """Report the transaction, with this result for all that have none."""
        if result is not None:
            self._settle(result)
        results, self._results = self._results, None
        assert results is not None
        done = tuple(known for known in results if known is not None)
        assert len(done) == len(results)
        self._encoder = None
        self._events.append(Finished(done))

    def _refused(self, command: _Command, reply: Reply) -> None:
        self._fail(Result.from_reply(Fate.REFUSED, _STAGES[command.kind], reply))

    def _broken(self, text: str) -> Result:
        waits_for_dot = bool(self._awaiting) and self._awaiting[0].kind == "dot"
        return Result(Fate.UNKNOWN if waits_for_dot else Fate.BROKEN, self.stage, text)

    def _unsendable_data(self, error: ValueError) -> None:
        self._fail(Result(Fate.UNSENDABLE, "data", str(error), enhanced="5.6.0"))

    def _fail(self, result: Result) -> None:
        """The end of the connection. What is not sent is not sent any more."""
        if result.reply is None:
            self._transcript.note(result.text)
        in_transaction = self._results is not None
        self.failure = Result(Fate.BROKEN, "connect", result.text) if in_transaction else result
        self._awaiting.clear()
        self._unsent.clear()
        self._output.clear()
        self._login = None
        if in_transaction:
            self._finish(result)
        else:
            self._events.append(Failed(result))


_ON_REPLY: Mapping[_Kind, Callable[[SmtpClient, _Command, Reply], None]] = {
    "greeting": SmtpClient._on_greeting,
    "ehlo": SmtpClient._on_ehlo,
    "helo": SmtpClient._on_helo,
    "starttls": SmtpClient._on_starttls,
    "auth": SmtpClient._on_auth,
    "rset": SmtpClient._on_rset,
    "mail": SmtpClient._on_mail,
    "rcpt": SmtpClient._on_rcpt,
    "data": SmtpClient._on_data,
    "dot": SmtpClient._on_dot,
    "lone dot": SmtpClient._on_lone_dot,
    "quit": SmtpClient._on_quit,
}
