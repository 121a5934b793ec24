"""The server's side of an SMTP session, without I/O (RFC 5321, 2920, 1870, 6152, 6531, 2034, 3030,
3207, 4954).

Bytes from the client go in through `receive_data`, events come out of `next_event`, bytes for the client out
of `data_to_send`. Four rules hold throughout:

1. An event that asks something (Connected, Mail, Rcpt, Data, Bdat, DataEnd, Auth, AuthResponse) is answered
   with `answer(reply)` before anything else is read; what the client pipelined waits in the buffer. Give new
   bytes only upon NEED_DATA, so that no more than one chunk is ever buffered; send upon NEED_DATA, StartTls
   and CLOSED, so that the replies to a pipelined batch go out together.
2. The machine alone decides what is in sequence and within the limits, and answers what is not by itself. The
   caller only ever sees commands that make sense.
3. A reply with 421, whoever gives it, closes the connection after it.
4. What was sent before TLS is of no use within it, nor is what was sent before its turn: bytes behind
   STARTTLS, AUTH or a response within AUTH close the connection, and are never read.

Upon StartTls send what there is to send, do the handshake, and call `tls_started`. Auth and AuthResponse may
be answered with `challenge` too.

A message comes by DATA or by BDAT, which makes little difference: Bdat is an event for the first chunk only,
and answered as Data is; a refusal is kept until the chunk was read. DataEnd follows the last chunk.

What is in sequence stands in `server_rules`: in REFUSALS, and what an answer leads to in NEXT. The rest of
the machine knows no order of commands.
"""

import binascii
from dataclasses import replace

from gateway.smtp.commands import (
    MAX_AUTH_LINE,
    MAX_COMMAND_LINE,
    MORE_COMMAND_LINE,
    Auth,
    Bdat,
    CommandError,
    Data,
    Hello,
    Inquiry,
    Mail,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    parse_auth_response,
    parse_command,
)
from gateway.smtp.events import (
    CLOSED,
    NEED_DATA,
    AuthResponse,
    Connected,
    DataDropped,
    DataEnd,
    DsnWish,
    Envelope,
)
from gateway.smtp.intake import Intake, too_large
from gateway.smtp.lines import LineReader, LineTooLongError
from gateway.smtp.replies import Reply
from gateway.smtp.server_rules import (
    BYE,
    GO_AHEAD,
    IN_TLS,
    INQUIRIES,
    LINE_TOO_LONG,
    LOGGED_IN,
    LOGIN_ENDED,
    LOGIN_FIRST,
    LOGIN_IN_TLS,
    NEXT,
    NO_LOGIN,
    NO_MECHANISM,
    NO_TLS,
    NOT_ASCII,
    OK,
    PIPELINED,
    REFUSALS,
    SEND_DATA,
    TLS_FIRST,
    TOO_MANY_COMMANDS,
    TOO_MANY_ERRORS,
    TOO_MANY_LOGINS,
    TOO_MANY_RECIPIENTS,
    Event,
    Offer,
    Question,
    ServerLimits,
    State,
    nothing_more,
)

__all__ = ["SEND_DATA", "Event", "Offer", "Question", "ServerLimits", "SmtpServer", "State", "nothing_more"]


class SmtpServer:
    """One session. Not for use by several tasks.

    `in_tls`: it begins within TLS. `mechanisms`: those of AUTH, as things stand.
    """

    def __init__(
        self,
        limits: ServerLimits,
        offer: Offer | None = None,
        *,
        in_tls: bool = False,
        mechanisms: tuple[str, ...] = (),
    ) -> None:
        self._limits = limits
        self._offer = offer or Offer()
        self._mechanisms = mechanisms
        self.in_tls = in_tls
        self.logged_in = False
        self._failed_logins = 0
        self._state = State.CONNECTED
        self._question: Question | None = Connected()
        self._asked = False
        self._input = LineReader(MAX_COMMAND_LINE)
        self._output: list[bytes] = []
        self._ended = False  # the client has closed its side
        self._intake: Intake | None = None  # of the message being read
        self._errors = 0
        self._idle_commands = 0
        self.hello: Hello | None = None
        self.envelope: Envelope | None = None
        self._set_keywords()

    @property
    def state(self) -> State:
        return self._state

    @property
    def greeting(self) -> Reply:
        """The usual yes to Connected."""
        return Reply(220, None, (f"{self._limits.hostname} ESMTP",))

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the client; b"" says that there will be no more."""
        if self._state is State.TLS:
            raise RuntimeError("the TLS handshake is not the machine's")
        if data:
            self._input.feed(data)
        else:
            self._ended = True

    def data_to_send(self) -> bytes:
        """The bytes for the client that were not yet asked for."""
        data = b"".join(self._output)
        self._output.clear()
        return data

    def next_event(self) -> Event:
        """What happened next. RuntimeError when the last event still waits for its answer."""
        if self._question is not None:
            if self._asked:
                raise RuntimeError(f"{self._question} was not answered")
            self._asked = True
            return self._question
        while self._state is not State.CLOSED:
            if self._state is State.TLS:
                return StartTls()
            if self._state is State.AUTH:
                event = self._read_auth_response()
            elif self._intake is None or not self._intake.reading:
                event = self._read_command()
            elif self._intake.finished:  # its last octets were handed out before
                event = self._finish_data(self._intake)
            else:
                event = self._read_data(self._intake)
            if event is not None:
                return event
        return CLOSED

    def answer(self, reply: Reply) -> None:
        """Answer the last event. ValueError when the reply can't be an answer to it."""
        question = self._question
        if question is None or not self._asked:
            raise RuntimeError("there is nothing to answer")
        yes = reply.code == 354 if isinstance(question, Data | Bdat) else reply.positive
        if not yes and reply.code < 400:
            raise ValueError(f"{reply.code} is no answer to {type(question).__name__}")
        self._question = None
        after_yes, after_no = NEXT[type(question)]
        self._state = after_yes if yes else after_no or self._state
        match question:
            case Mail() if not yes:
                self.envelope = None
            case Rcpt(recipient, notify, orcpt) if yes and self.envelope is not None:
                self.envelope = replace(
                    self.envelope,
                    recipients=(*self.envelope.recipients, recipient),
                    dsn=(*self.envelope.dsn, DsnWish(notify, orcpt)),
                )
            case Data() if yes:
                self._intake = Intake(self._limits)
            case Bdat():
                assert self._intake is not None
                self._intake.refusal = None if yes else reply
                return  # until the chunk was read
            case DataEnd():
                self._end_transaction()
            case Auth() | AuthResponse():
                self.logged_in = yes
                if not yes:
                    self._login_failed(reply)
                    return
        self._say(reply)

    def challenge(self, challenge: bytes) -> None:
        """Answer Auth or AuthResponse: the client has to respond to this."""
        if not (self._asked and isinstance(self._question, Auth | AuthResponse)):
            raise RuntimeError("there is nothing to challenge")
        self._question = None
        self._state = State.AUTH
        self._output.append(b"334 " + binascii.b2a_base64(challenge, newline=False) + b"\r\n")

    def tls_started(self, mechanisms: tuple[str, ...] = ()) -> None:
        """The handshake is done: the session begins anew (RFC 3207 section 4.2). `mechanisms` of AUTH now."""
        if self._state is not State.TLS:
            raise RuntimeError("no TLS handshake was due")
        self.in_tls, self._mechanisms = True, mechanisms
        self.hello, self.logged_in = None, False
        self._end_transaction()
        self._state = State.GREETED
        self._set_keywords()

    def refuse_data(self, reply: Reply) -> None:
        """While the message is being read: read the rest for nothing, and give this reply at its end."""
        if self._intake is None:
            raise RuntimeError("no message is being read")
        self._intake.refusal = self._intake.refusal or reply

    def close(self, reply: Reply) -> None:
        """End the session for a reason of the caller's (a 421), whatever it is waiting for."""
        if self._state is not State.CLOSED:
            self._question = None
            self._output.append(reply.render())
            self._closed()

    # --- Commands ---

    def _read_command(self) -> Event | None:
        """Take one command: an event when the caller has to know, None when it is dealt with."""
        try:
            line = self._input.next_line()
            if line is None:
                if not self._ended:
                    return NEED_DATA
                self._closed()
                return None
            if len(line) > self._line_limit and not line[:5].upper().startswith(b"AUTH "):
                raise LineTooLongError
            command = parse_command(line, self._keywords)
        except LineTooLongError:
            self._say(LINE_TOO_LONG)
            return None
        except CommandError as error:
            if error.fatal:
                self.close(error.reply)
            else:
                self._say(error.reply)
            return None
        refusal = REFUSALS.get((self._state, type(command)))
        if isinstance(command, Bdat):
            return self._begin_chunk(command, refusal)
        if refusal is not None:
            self._say(refusal)
            return None
        match command:
            case Mail():
                return self._begin_transaction(command)
            case Rcpt():
                return self._add_recipient(command)
            case Data():
                return self._ask(command)
            case StartTls():
                return self._begin_tls()
            case Auth():
                return self._begin_login(command)
            case Quit():
                self._say(BYE)
                self._closed()
                return None
            case Hello():
                self.hello = command
                event = self._dropped()
                self._end_transaction()
                self._state = State.READY
                reply = self._hello_reply(command)
            case Rset():
                event = self._dropped()
                self._end_transaction()
                self._state = State.GREETED if self.hello is None else State.READY
                reply = OK
            case Inquiry(verb):
                event, reply = None, INQUIRIES[verb]
        self._say(reply)
        self._count_idle_command()
        return event

    def _dropped(self) -> Event | None:
        return DataDropped() if self._state is State.CHUNKS else None

    def _count_idle_command(self) -> None:
        self._idle_commands += 1
        if self._idle_commands > self._limits.max_idle_commands:
            self._say(TOO_MANY_COMMANDS)

    def _begin_transaction(self, command: Mail) -> Event | None:
        if self._offer.login and not self.logged_in:
            self._say(LOGIN_FIRST if self._mechanisms else TLS_FIRST)
            return None
        if command.size is not None and command.size > self._limits.max_message_size:
            self._say(too_large(self._limits))
            return None
        self.envelope = Envelope(
            command.reverse_path,
            size=command.size,
            body=command.body,
            smtputf8=command.smtputf8,
            require_tls=command.require_tls,
            hold_for=command.hold_for,
            hold_until=command.hold_until,
            ret=command.ret,
            envid=command.envid,
        )
        return self._ask(command)

    def _add_recipient(self, command: Rcpt) -> Event | None:
        assert self.envelope is not None  # or it would be out of sequence
        if not (command.recipient.ascii or self.envelope.smtputf8):
            self._say(NOT_ASCII)
        elif len(self.envelope.recipients) >= self._limits.max_recipients:
            self._say(TOO_MANY_RECIPIENTS)
        else:
            return self._ask(command)
        return None

    def _end_transaction(self) -> None:
        self.envelope = self._intake = None

    def _hello_reply(self, hello: Hello) -> Reply:
        if not hello.extended:
            return Reply(250, None, (self._limits.hostname,))
        return Reply(250, None, (self._limits.hostname, *self._extensions()))

    def _extensions(self) -> tuple[str, ...]:
        lines = [
            "PIPELINING",
            f"SIZE {self._limits.max_message_size}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
            f"LIMITS RCPTMAX={self._limits.max_recipients}",  # RFC 9422
        ]
        if self._offer.starttls and not self.in_tls:
            lines.append("STARTTLS")
        if self._offer.require_tls and self.in_tls:
            lines.append("REQUIRETLS")
        if self._mechanisms:
            lines.append(" ".join(("AUTH", *self._mechanisms)))
        return (*lines, *self._offer.more())

    def _set_keywords(self) -> None:
        """What parameters may be given now, and how long that makes a line."""
        self._keywords = frozenset(line.partition(" ")[0] for line in self._extensions())
        more = (octets for keyword, octets in MORE_COMMAND_LINE.items() if keyword in self._keywords)
        self._line_limit = MAX_COMMAND_LINE + sum(more)
        self._input.limit = MAX_AUTH_LINE if self._mechanisms else self._line_limit

    # --- TLS and login ---

    def _begin_tls(self) -> Event | None:
        if self.in_tls:
            self._say(IN_TLS)
        elif not self._offer.starttls:
            self._say(NO_TLS)
        elif not self._pipelined():
            self._say(GO_AHEAD)
            self._state = State.TLS
        return None

    def _begin_login(self, command: Auth) -> Event | None:
        if self.logged_in:
            self._say(LOGGED_IN)
        elif not self._mechanisms:
            self._say(LOGIN_IN_TLS if self._offer.login and not self.in_tls else NO_LOGIN)
        elif command.mechanism not in self._mechanisms:
            self._say(NO_MECHANISM)
        elif not self._pipelined():
            return self._ask(command)
        return None

    def _read_auth_response(self) -> Event | None:
        try:
            line = self._input.next_line()
            if line is None:
                if not self._ended:
                    return NEED_DATA
                self._closed()
                return None
            response = parse_auth_response(line)
        except LineTooLongError:
            self._login_failed(LINE_TOO_LONG)
            return None
        except CommandError as error:
            self._login_failed(error.reply)
            return None
        if response is None:
            self._login_failed(LOGIN_ENDED)
            return None
        return None if self._pipelined() else self._ask(AuthResponse(response))

    def _login_failed(self, reply: Reply) -> None:
        self._state = State.READY
        self._say(reply)
        self._failed_logins += 1
        if self._failed_logins >= self._limits.max_failed_logins and self._state is not State.CLOSED:
            self._say(TOO_MANY_LOGINS)

    def _pipelined(self) -> bool:
        """Whether the client sent more than it may, which is the end."""
        if not len(self._input):
            return False
        self._input.take()
        self.close(PIPELINED)
        return True

    # --- Message data ---

    def _begin_chunk(self, command: Bdat, refusal: Reply | None) -> Event | None:
        """The octets of a chunk are read whatever becomes of it: the client has sent them already."""
        first = self._intake is None
        intake = self._intake or Intake(self._limits, chunked=True)
        intake.refusal = intake.refusal or refusal
        if not intake.begin_chunk(command.size, last=command.last):
            assert intake.refusal is not None
            self.close(intake.refusal)
            return None
        self._intake = intake
        if not (command.size or command.last):
            self._count_idle_command()
        return self._ask(command) if first and refusal is None else None

    def _read_data(self, intake: Intake) -> Event | None:
        data = self._input.take()
        if not data and intake.waiting:
            if not self._ended:
                return NEED_DATA
            self._closed()
            return None
        event = intake.read(data)
        if intake.finished:
            self._input.feed(intake.rest)
        elif intake.endless:
            assert intake.refusal is not None
            self.close(intake.refusal)
        return event

    def _finish_data(self, intake: Intake) -> Event | None:
        intake.reading = False
        if intake.refusal is None and not intake.complete:
            self._say(intake.chunk_reply())
            return None
        self._idle_commands = 0
        if intake.refusal is None:
            return self._ask(DataEnd())
        if self._state in (State.DATA, State.CHUNKS):
            self._end_transaction()
            self._state = State.READY
        else:  # it was no one's
            self._intake = None
        self._say(intake.refusal)
        return None

    # --- Common to all ---

    def _ask(self, question: Question) -> Event:
        self._question, self._asked = question, True
        return question

    def _say(self, reply: Reply) -> None:
        self._output.append(reply.render())
        if reply.code == 421:
            self._closed()
        elif reply.permanent:
            self._errors += 1
            if self._errors > self._limits.max_errors:
                self._say(TOO_MANY_ERRORS)

    def _closed(self) -> None:
        self._end_transaction()
        self._state = State.CLOSED
