"""What a client says about one recipient, or about a connection.

A Result always names the stage at which its fate was decided. `Outcome.UNKNOWN` is the one doubt that SMTP
leaves: the connection broke after the end of the message was sent and before it was answered.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from gateway.smtp.replies import Reply

Stage = Literal["connect", "ehlo", "starttls", "mail", "rcpt", "data", "dot"]


class Outcome(Enum):
    """How it ended."""

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

    outcome: Outcome
    stage: Stage
    text: str
    reply: Reply | None = None
    enhanced: str | None = None

    @classmethod
    def from_reply(cls, outcome: Outcome, stage: Stage, reply: Reply) -> "Result":
        return cls(outcome, stage, reply.text, reply, reply.enhanced)

    @property
    def accepted(self) -> bool:
        return self.outcome is Outcome.ACCEPTED

    @property
    def permanent(self) -> bool:
        """Trying again would not help."""
        if self.outcome is Outcome.UNSENDABLE:
            return True
        return self.outcome is Outcome.REFUSED and self.reply is not None and self.reply.permanent

    @property
    def code(self) -> int | None:
        """The server's SMTP code, if it gave one."""
        return None if self.reply is None else self.reply.code
