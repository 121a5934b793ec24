"""How an SMTP client talks to servers: what TLS it wants, its login, its time limits, and how it dials."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

import trio

from gateway.net.tls_contexts import ClientContext
from gateway.smtp.client_auth import Credentials
from gateway.smtp.results import Stage

# Makes a connection to a host and port. Raises OSError, whose text is one line for people.
Dial: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]


class TlsPolicy(Enum):
    """What to want of a connection."""

    NONE = auto()  # never ask
    OPPORTUNISTIC = auto()  # where it is offered; whoever answers will do
    REQUIRED = auto()  # always; whoever answers will do
    VERIFIED = auto()  # always, and with a certificate that a known authority made for this host


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How to talk to servers. Times are in seconds, those of RFC 5321 section 4.5.3.2 as upper bounds.

    `tls_at_once`: TLS before the greeting (RFC 8314), instead of STARTTLS; the policy then says only whether
    certificates are verified. `ca_file` replaces the authorities that this system knows (a path, PEM).
    `tls_context` replaces what would be made of these. With `credentials` we log in (RFC 4954).
    """

    hello_name: str
    tls: TlsPolicy = TlsPolicy.NONE
    tls_at_once: bool = False
    ca_file: str | None = None
    tls_context: ClientContext | None = None
    credentials: Credentials | None = None
    chunking: bool = True  # where it is offered
    tls_timeout: float = 60.0  # for a handshake
    connect_timeout: float = 30.0
    # Without a greeting for so long, a second connection looks whether the server waits for TLS: nothing else
    # would tell. None: never.
    look_for_tls_after: float | None = None
    greeting_timeout: float = 300.0
    hello_timeout: float = 300.0
    mail_timeout: float = 300.0
    rcpt_timeout: float = 300.0
    data_timeout: float = 120.0  # from DATA to 354
    block_timeout: float = 180.0  # to send one block of commands or of the message, at most 64 KiB
    dot_timeout: float = 600.0  # from the final dot to its reply
    quit_timeout: float = 5.0

    def reply_timeout(self, stage: Stage) -> float:
        """The time limit for one reply."""
        match stage:
            case "connect":
                return self.greeting_timeout
            case "ehlo" | "starttls" | "auth":
                return self.hello_timeout
            case "mail":
                return self.mail_timeout
            case "rcpt":
                return self.rcpt_timeout
            case "data":
                return self.data_timeout
            case "dot":
                return self.dot_timeout
