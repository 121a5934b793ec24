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

from dataclasses import replace

from gateway.smtp.commands import (
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
    parse_command,
)
from gateway.smtp.events import (
    CLOSED,
    NEED_DATA,
    AuthResponse,
    DataDropped,
    DataEnd,
    DsnWish,
    Envelope,
)
from gateway.smtp.intake import Intake, too_large
from gateway.smtp.lines import LineTooLongError
from gateway.smtp.replies import Reply
from gateway.smtp.server_rules import (
    BYE,
    INQUIRIES,
    LINE_TOO_LONG,
    LOGIN_FIRST,
    NEXT,
    NOT_ASCII,
    OK,
    REFUSALS,
    SEND_DATA,
    TLS_FIRST,
    TOO_MANY_COMMANDS,
    TOO_MANY_RECIPIENTS,
    Event,
    Offer,
    Question,
    ServerLimits,
    State,
    nothing_more,
)
from gateway.smtp.server_session import ServerSession

__all__ = ["SEND_DATA", "Event", "Offer", "Question", "ServerLimits", "SmtpServer", "State", "nothing_more"]


class SmtpServer(ServerSession):
    """One session. Not for use by several tasks.

    `in_tls`: it begins within TLS. `mechanisms`: those of AUTH, as things stand.
    """

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

    def refuse_data(self, reply: Reply) -> None:
        """While the message is being read: read the rest for nothing, and give this reply at its end."""
        if self._intake is None:
            raise RuntimeError("no message is being read")
        self._intake.refusal = self._intake.refusal or reply

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
