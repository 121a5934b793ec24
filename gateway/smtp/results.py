"""What a client says about one recipient, or about a connection.

A Result always names the stage at which its fate was decided. `Fate.UNKNOWN` is the one doubt that SMTP
leaves: the connection broke after the end of the message was sent and before it was answered.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from gateway.smtp.replies import Reply

Stage = Literal["connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "dot"]


class Fate(Enum):
    """How it ended for a recipient, or a connection."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # the server's reply says so
    UNSENDABLE = "unsendable"  # we know that this server can't take it: permanent, without a reply
    BROKEN = "broken"  # no usable reply: connection, time limit or nonsense; nothing was accepted
    UNKNOWN = "unknown"  # the same, after the final dot: the message may have been accepted


@dataclass(frozen=True, slots=True)
class Result:
    """The fate of a recipient, or of a connection that failed.

    `reply` is the server's, None when there was none to the point; `enhanced` is the reply's enhanced status
    code, or ours for what was not asked of the server; `text` explains it to a person.
    """

    fate: Fate
    stage: Stage
    text: str
    reply: Reply | None = None
    enhanced: str | None = None

    @classmethod
    def from_reply(cls, fate: Fate, stage: Stage, reply: Reply) -> "Result":
        return cls(fate, stage, reply.text, reply, reply.enhanced)

    @property
    def accepted(self) -> bool:
        return self.fate is Fate.ACCEPTED

    @property
    def permanent(self) -> bool:
        """Trying again would not help."""
        if self.fate is Fate.UNSENDABLE:
            return True
        return self.fate is Fate.REFUSED and self.reply is not None and self.reply.permanent

    @property
    def code(self) -> int | None:
        """The server's SMTP code, if it gave one."""
        return None if self.reply is None else self.reply.code
