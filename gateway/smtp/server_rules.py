"""What an SMTP server offers and allows, what is in sequence, and the replies that need no decision.

The machine that goes by it is in `server`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from gateway.smtp.commands import Auth, Bdat, Command, Data, Hello, Inquiry, Mail, Rcpt, Rset, StartTls
from gateway.smtp.events import (
    AuthResponse,
    Closed,
    Connected,
    DataChunk,
    DataDropped,
    DataEnd,
    DataRefused,
    NeedData,
)
from gateway.smtp.replies import Reply


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a server tells about itself, and what it allows one connection."""

    hostname: str
    max_message_size: int = 100 * 1024 * 1024  # octets, as in SIZE (RFC 1870)
    max_recipients: int = 1000  # of a message; RFC 5321 section 4.5.3.1.8 wants at least 100
    max_line: int | None = 998  # octets of a line of the message without CRLF; None is unlimited
    max_errors: int = 50  # 5xx replies on a connection
    max_failed_logins: int = 5  # on a connection, those that the client ends itself included
    max_idle_commands: int = 100  # commands since the last message that carry no mail (NOOP, RSET, ...)
    max_discard: int = (
        64 * 1024 * 1024
    )  # octets read beyond max_message_size to reach the end of refused data


def nothing_more() -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server offers beyond what every one does. `more` gives further lines of the answer to EHLO,
    for extensions that add parameters (`commands.MORE_COMMAND_LINE`); their keywords are always the same."""

    starttls: bool = False
    login: bool = (
        False  # mail is taken after AUTH only; the mechanisms are the machine's, for they may change
    )
    require_tls: bool = False  # REQUIRETLS (RFC 8689), within TLS
    more: Callable[[], tuple[str, ...]] = nothing_more


class State(Enum):
    """Where a session is."""

    CONNECTED = auto()  # the greeting is not decided
    TURNED_AWAY = auto()  # greeted with a 5xx: the client may only quit (RFC 5321 section 3.1)
    GREETED = auto()
    READY = auto()  # the client said EHLO or HELO
    AUTH = auto()  # the client has to answer a challenge
    TLS = auto()  # the handshake is to be done
    MAIL = auto()
    RCPT = auto()  # there is a recipient
    DATA = auto()  # the client sends the message
    CHUNKS = auto()  # the client sends the message by BDAT, and has not sent its last chunk
    CLOSED = auto()


Question = Connected | Mail | Rcpt | Data | Bdat | DataEnd | Auth | AuthResponse
Event = Question | StartTls | DataChunk | DataRefused | DataDropped | NeedData | Closed


# --- What is out of sequence, and what it is answered with (to BDAT, once its octets were read) ---

HELLO_FIRST = Reply(503, "5.5.1", ("Send EHLO or HELO first",))
MAIL_FIRST = Reply(503, "5.5.1", ("Send MAIL first",))
NESTED = Reply(503, "5.5.1", ("A message is already begun",))
NO_RECIPIENTS = Reply(554, "5.5.1", ("No valid recipients",))
CHUNKS_ONLY = Reply(503, "5.5.1", ("The message goes on with BDAT, or is taken back with RSET",))
QUIT_ONLY = Reply(503, "5.5.1", ("No service here; only QUIT is possible",))

REFUSALS: Mapping[tuple[State, type[Command]], Reply] = {
    (State.TURNED_AWAY, Hello): QUIT_ONLY,
    (State.TURNED_AWAY, Mail): QUIT_ONLY,
    (State.TURNED_AWAY, Rcpt): QUIT_ONLY,
    (State.TURNED_AWAY, Data): QUIT_ONLY,
    (State.TURNED_AWAY, Bdat): QUIT_ONLY,
    (State.TURNED_AWAY, Rset): QUIT_ONLY,
    (State.TURNED_AWAY, Inquiry): QUIT_ONLY,
    (State.TURNED_AWAY, StartTls): QUIT_ONLY,
    (State.TURNED_AWAY, Auth): QUIT_ONLY,
    (State.GREETED, Mail): HELLO_FIRST,
    (State.GREETED, Rcpt): HELLO_FIRST,
    (State.GREETED, Data): HELLO_FIRST,
    (State.GREETED, Bdat): HELLO_FIRST,
    (State.GREETED, StartTls): HELLO_FIRST,
    (State.GREETED, Auth): HELLO_FIRST,
    (State.READY, Rcpt): MAIL_FIRST,
    (State.READY, Data): MAIL_FIRST,
    (State.READY, Bdat): MAIL_FIRST,
    (State.MAIL, Mail): NESTED,
    (State.MAIL, Data): NO_RECIPIENTS,
    (State.MAIL, Bdat): NO_RECIPIENTS,
    (State.MAIL, StartTls): NESTED,
    (State.MAIL, Auth): NESTED,
    (State.RCPT, Mail): NESTED,
    (State.RCPT, StartTls): NESTED,
    (State.RCPT, Auth): NESTED,
    (State.CHUNKS, Mail): CHUNKS_ONLY,
    (State.CHUNKS, Rcpt): CHUNKS_ONLY,
    (State.CHUNKS, Data): CHUNKS_ONLY,
    (State.CHUNKS, StartTls): CHUNKS_ONLY,
    (State.CHUNKS, Auth): CHUNKS_ONLY,
}

# --- Where an answer leads: question -> (state after yes, state after no); None stays ---

NEXT: Mapping[type[Question], tuple[State, State | None]] = {
    Connected: (State.GREETED, State.TURNED_AWAY),
    Mail: (State.MAIL, None),
    Rcpt: (State.RCPT, None),
    Data: (State.DATA, None),
    Bdat: (State.CHUNKS, State.CHUNKS),
    DataEnd: (State.READY, State.READY),
    Auth: (State.READY, State.READY),
    AuthResponse: (State.READY, State.READY),
}

# --- Replies that need no decision ---

OK = Reply(250, "2.0.0", ("OK",))
BYE = Reply(221, "2.0.0", ("Bye",))
LINE_TOO_LONG = Reply(500, "5.5.2", ("Line is too long",))
NOT_ASCII = Reply(553, "5.6.7", ("Address is not ASCII and MAIL had no SMTPUTF8",))
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", ("Too many recipients",))
TOO_MANY_ERRORS = Reply(421, "4.7.0", ("Too many errors",))
TOO_MANY_COMMANDS = Reply(421, "4.7.0", ("Too many commands without a message",))
TOO_MANY_LOGINS = Reply(421, "4.7.0", ("Too many failed logins",))
PIPELINED = Reply(503, "5.5.1", ("Nothing may be sent before the answer to this",))
NO_TLS = Reply(502, "5.5.1", ("STARTTLS is not offered",))
IN_TLS = Reply(503, "5.5.1", ("TLS is in use already",))
GO_AHEAD = Reply(220, "2.0.0", ("Start TLS",))
TLS_FIRST = Reply(530, "5.7.0", ("Send STARTTLS first",))
LOGIN_FIRST = Reply(530, "5.7.0", ("Authentication required",))
LOGIN_IN_TLS = Reply(538, "5.7.11", ("Send STARTTLS first: there is no AUTH without TLS",))
NO_LOGIN = Reply(502, "5.5.1", ("AUTH is not offered",))
LOGGED_IN = Reply(503, "5.5.1", ("You are logged in already",))
NO_MECHANISM = Reply(504, "5.5.4", ("This mechanism is not offered",))
LOGIN_ENDED = Reply(501, "5.7.0", ("Authentication ended by you",))
INQUIRIES: Mapping[str, Reply] = {
    "NOOP": OK,
    "VRFY": Reply(252, "2.1.5", ("Can't verify; send a message and see",)),
    "EXPN": Reply(502, "5.5.1", ("EXPN is not supported",)),
    "HELP": Reply(214, "2.0.0", ("EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY",)),
}

SEND_DATA = Reply(354, None, ("Send the message, end with <CRLF>.<CRLF>",))  # the yes to Data and Bdat
