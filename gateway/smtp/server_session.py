"""The server's side of an SMTP session as such, without I/O: bytes, questions, what is offered, TLS and
logins. Commands and messages are in `server`, and so are the rules for both.
"""

import binascii

from gateway.smtp.commands import (
    MAX_AUTH_LINE,
    MAX_COMMAND_LINE,
    MORE_COMMAND_LINE,
    Auth,
    CommandError,
    Hello,
    parse_auth_response,
)
from gateway.smtp.events import NEED_DATA, AuthResponse, Connected, Envelope
from gateway.smtp.intake import Intake
from gateway.smtp.lines import LineReader, LineTooLongError
from gateway.smtp.replies import Reply
from gateway.smtp.server_rules import (
    GO_AHEAD,
    IN_TLS,
    LINE_TOO_LONG,
    LOGGED_IN,
    LOGIN_ENDED,
    LOGIN_IN_TLS,
    NO_LOGIN,
    NO_MECHANISM,
    NO_TLS,
    PIPELINED,
    TOO_MANY_ERRORS,
    TOO_MANY_LOGINS,
    Event,
    Offer,
    Question,
    ServerLimits,
    State,
)


class ServerSession:
    """What a session has said, what it waits for, and who is there."""

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

    # --- Bytes ---

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

    def close(self, reply: Reply) -> None:
        """End the session for a reason of the caller's (a 421), whatever it is waiting for."""
        if self._state is not State.CLOSED:
            self._question = None
            self._output.append(reply.render())
            self._closed()

    # --- What is offered ---

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

    def _end_transaction(self) -> None:
        self.envelope = self._intake = None

    def _closed(self) -> None:
        self._end_transaction()
        self._state = State.CLOSED
