"""What the machines tell those who drive them. The server's commands Mail, Rcpt, Data, Bdat (a
message's first), StartTls and Auth are events too."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from gateway.smtp.addresses import Mailbox
from gateway.smtp.commands import Body
from gateway.smtp.dsn import DsnWish as DsnWish
from gateway.smtp.replies import Reply
from gateway.smtp.results import Result
from gateway.smtp.transaction import Capabilities

# --- Of both ---


@dataclass(frozen=True, slots=True)
class NeedData:
    """Nothing to do before there is more from the peer: send what there is to send, then read."""


NEED_DATA = NeedData()

# --- Of the server ---


@dataclass(frozen=True, slots=True)
class Connected:
    """Answer with the greeting: 220 (`SmtpServer.greeting` has one), 5xx, or 421."""


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """What the client answers to a challenge, decoded. Answer as Auth."""

    response: bytes

    def __repr__(self) -> str:  # it may be a password
        return "AuthResponse()"


@dataclass(frozen=True, slots=True)
class DataChunk:
    """Octets of the message, without dot-stuffing. Not answered."""

    data: bytes


@dataclass(frozen=True, slots=True)
class DataRefused:
    """The message can't be taken, for this reason; the client will be told at its end. Not answered."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class DataDropped:
    """The client takes back a message of which it had sent a part, by BDAT. Not answered."""


@dataclass(frozen=True, slots=True)
class DataEnd:
    """The whole message was read. Answer with 250 once it is safe, or with 4xx or 5xx."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The session is over: send what there is to send and close the connection."""


CLOSED = Closed()


@dataclass(frozen=True, slots=True)
class Envelope:
    """A transaction as far as it has come. `reverse_path` is None for `<>`; `size` is as declared; what
    follows it is as in `commands.Mail`. `dsn` goes with `recipients`, one for each."""

    reverse_path: Mailbox | None
    recipients: tuple[Mailbox, ...] = ()
    size: int | None = None
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    require_tls: bool = False
    hold_for: int | None = None
    hold_until: datetime | None = None
    ret: Literal["", "FULL", "HDRS"] = ""
    envid: str = ""
    dsn: tuple[DsnWish, ...] = ()


# --- Of the client ---


@dataclass(frozen=True, slots=True)
class TlsStarting:
    """The server said yes to STARTTLS: do the handshake, then call `tls_started`."""


@dataclass(frozen=True, slots=True)
class LoginStep:
    """The server gave a challenge: give what `answer` returns to `answer_challenge`. It never raises, and may
    take a second where the server wants it to (a password is hashed): best called in a thread."""

    answer: Callable[[], bytes | None]


@dataclass(frozen=True, slots=True)
class Ready:
    """The server was greeted, and we are logged in if we are to: a transaction can begin."""

    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class SendData:
    """The server waits for the message, and at least one recipient is accepted."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The transaction is over: a result for each recipient, in the transaction's order."""

    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The connection is of no more use (outside of a transaction)."""

    result: Result
