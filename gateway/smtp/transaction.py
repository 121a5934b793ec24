"""What a client wants sent, what the server offers, and what follows from the two."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gateway.smtp.addresses import Mailbox
from gateway.smtp.replies import Reply
from gateway.smtp.results import Fate, Result


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the server's answer to EHLO offers; empty after HELO. Keywords are in capitals."""

    keywords: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_reply(cls, reply: Reply) -> "Capabilities":
        words = (line.partition(" ") for line in reply.lines[1:])
        return cls(MappingProxyType({keyword.upper(): value.strip() for keyword, _, value in words}))

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def max_size(self) -> int | None:
        """The largest message in octets that the server takes; None when it does not say (or says 0)."""
        value = self.keywords.get("SIZE", "")
        # At most 20 digits (RFC 1870 section 4), which also bounds the cost of int().
        return (int(value) or None) if value.isascii() and value.isdigit() and len(value) <= 20 else None


@dataclass(frozen=True, slots=True)
class Transaction:
    """One message for its recipients.

    `reverse_path` is None for `<>`; `size` is in octets without dot-stuffing, None when not known;
    `eight_bit` says that the message has octets over 127, `smtputf8` that its header needs RFC 6531.
    Raises ValueError without a recipient.
    """

    reverse_path: Mailbox | None
    recipients: tuple[Mailbox, ...]
    size: int | None = None
    eight_bit: bool = False
    smtputf8: bool = False

    def __post_init__(self) -> None:
        if not self.recipients:
            raise ValueError("a transaction needs a recipient")


def mail_command(transaction: Transaction, capabilities: Capabilities) -> str:
    """The MAIL command, with the parameters that are needed and offered."""
    line = f"MAIL FROM:<{transaction.reverse_path or ''}>"
    if transaction.size is not None and "SIZE" in capabilities:
        line += f" SIZE={transaction.size}"
    # 8-bit content goes out as it is where 8BITMIME is not offered: practically all such servers pass
    # it on unharmed, and to convert it would break its signatures.
    if transaction.eight_bit and "8BITMIME" in capabilities:
        line += " BODY=8BITMIME"
    if "SMTPUTF8" in capabilities:
        mailboxes = (transaction.reverse_path, *transaction.recipients)
        if transaction.smtputf8 or any(mailbox is not None and not mailbox.ascii for mailbox in mailboxes):
            line += " SMTPUTF8"
    return line


def refusals(transaction: Transaction, capabilities: Capabilities) -> list[Result | None]:
    """For each recipient, why this server is known not to take the message; None when it may."""
    limit = capabilities.max_size
    if transaction.size is not None and limit is not None and transaction.size > limit:
        text = f"message of {transaction.size} octets is over the server's limit of {limit}"
        too_large = Result(Fate.UNSENDABLE, "mail", text, enhanced="5.3.4")
        return [too_large] * len(transaction.recipients)
    if "SMTPUTF8" in capabilities:
        return [None] * len(transaction.recipients)
    no_utf8 = Result(Fate.UNSENDABLE, "mail", "server does not offer SMTPUTF8", enhanced="5.6.7")
    all_need_it = transaction.smtputf8 or not (
        transaction.reverse_path is None or transaction.reverse_path.ascii
    )
    return [no_utf8 if all_need_it or not mailbox.ascii else None for mailbox in transaction.recipients]
