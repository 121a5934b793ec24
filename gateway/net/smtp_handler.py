"""What a service writes to receive mail over SMTP: a Handler that decides, Sinks that messages go to, and
Logins that check who is there.

None of them sees the protocol: order, limits and time are kept by `smtp_server`.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from gateway.accounts.logins import Login
from gateway.smtp.addresses import Mailbox
from gateway.smtp.commands import Hello
from gateway.smtp.events import Envelope
from gateway.smtp.replies import Reply


@dataclass(frozen=True, slots=True)
class Session:
    """A connection, as a handler sees it. `id` is for logs; `hello` is None before EHLO or HELO."""

    id: str
    peer: IPv4Address | IPv6Address | None  # None when the stream is no socket
    hello: Hello | None = None
    tls: str = ""  # the version, such as "TLSv1.3"; empty without TLS
    binding: bytes | None = None  # of the TLS channel (RFC 9266), where there is one
    login: Login | None = None
    remote_ip: str = field(init=False)  # `peer` as text, "" for none

    def __post_init__(self) -> None:
        object.__setattr__(self, "remote_ip", "" if self.peer is None else str(self.peer))


class Sink(Protocol):
    """Where one message goes. Methods are called in turn, never two at a time.

    `abort` is called once, if `commit` was not called, raised, or was cancelled; it then drops what is not
    durable, and does no harm to a message that became durable just before. It has 5 seconds.
    """

    async def write(self, data: bytes) -> Reply | None:
        """Take the next octets, 64 KiB at most. A Reply refuses the message: the rest is thrown away."""

    async def commit(self) -> Reply:
        """The message is complete. 2xx says that it is durable; else the client keeps it or gives up."""
        ...

    async def abort(self) -> None:
        """The message will not be complete."""


class Handler(Protocol):
    """What a service does with mail. One object serves all connections.

    Each method answers with a Reply (2xx, 4xx, 5xx; 421 closes the connection) or with None for the
    usual yes. Whatever is raised becomes 451 4.3.0. No method is called for what is out of sequence or over
    the limits.
    """

    async def connected(self, session: Session) -> Reply | None:
        """A client connected; the reply is the greeting."""

    async def mail(self, session: Session, envelope: Envelope) -> Reply | None:
        """MAIL FROM; the envelope has no recipients yet."""

    async def rcpt(self, session: Session, envelope: Envelope, recipient: Mailbox) -> Reply | None:
        """RCPT TO; the envelope has the recipients accepted before this one."""

    async def open_data(self, session: Session, envelope: Envelope) -> Sink | Reply:
        """DATA, with at least one recipient. A Reply (4xx or 5xx) refuses it."""
        ...


class Exchange(Protocol):
    """One login, from AUTH to its end."""

    async def step(self, response: bytes | None) -> bytes | Reply | Login:
        """The initial response (None: there was none), then each answer to a challenge. Bytes are the next
        challenge, a Reply (4xx or 5xx) is a refusal, a Login is success."""
        ...


class Logins(Protocol):
    """How clients prove who they are (RFC 4954). Whatever is raised becomes 454 4.7.0."""

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        """Those that this connection may use, in capitals, the best first."""
        ...

    def begin(self, session: Session, mechanism: str) -> Exchange:
        """A client chose one of them."""
        ...
