"""What a client wants sent, what the server offers, and what follows from the two."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from gateway.smtp.addresses import Mailbox
from gateway.smtp.dsn import DsnWish, xtext
from gateway.smtp.replies import Reply
from gateway.smtp.results import Fate, Result

_MAX_DIGITS = 20  # of a number (RFC 1870 section 4), which also bounds the cost of int()


NO_REQUIRETLS = "the message requires TLS on all of its way, and the server does not offer REQUIRETLS"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the server's answer to EHLO offers; empty after HELO. Keywords are in capitals.

    `max_size` is the largest message in octets that the server takes. `max_recipients` of a transaction,
    `max_domains` of recipients in one, and `max_transactions` on a connection are of LIMITS (RFC 9422). Each
    is None where the server does not say (or says 0).
    """

    keywords: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    max_size: int | None = None
    max_recipients: int | None = None
    max_domains: int | None = None
    max_transactions: int | None = None

    @classmethod
    def from_reply(cls, reply: Reply) -> "Capabilities":
        words = (line.partition(" ") for line in reply.lines[1:])
        keywords = MappingProxyType({keyword.upper(): value.strip() for keyword, _, value in words})
        pairs = (word.partition("=") for word in keywords.get("LIMITS", "").split())
        limits = {name.upper(): _number(value) for name, _, value in pairs}
        return cls(
            keywords,
            max_size=_number(keywords.get("SIZE", "")),
            max_recipients=limits.get("RCPTMAX"),
            max_domains=limits.get("RCPTDOMAINMAX"),
            max_transactions=limits.get("MAILMAX"),
        )

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """For AUTH (RFC 4954), in capitals."""
        return tuple(self.keywords.get("AUTH", "").upper().split())


def _number(text: str) -> int | None:
    good = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return (int(text) or None) if good else None


@dataclass(frozen=True, slots=True)
class Transaction:
    """One message for its recipients.

    `reverse_path` is None for `<>`; `size` is in octets without dot-stuffing, None when not known;
    `eight_bit` says that the message has octets over 127, `smtputf8` that its header needs RFC 6531.
    `require_tls`: only for a server that offers REQUIRETLS (RFC 8689, 4.2.1); whether the connection's TLS
    will do is the caller's to see. `ret` and `envid` (not encoded, at most 100 characters) are of RFC 3461,
    and so is `dsn`, empty or one for each recipient. Raises ValueError without a recipient.
    """

    reverse_path: Mailbox | None
    recipients: tuple[Mailbox, ...]
    size: int | None = None
    eight_bit: bool = False
    smtputf8: bool = False
    require_tls: bool = False
    ret: Literal["", "FULL", "HDRS"] = ""
    envid: str = ""
    dsn: tuple[DsnWish, ...] = ()

    def __post_init__(self) -> None:
        if not self.recipients:
            raise ValueError("a transaction needs a recipient")
        if self.dsn and len(self.dsn) != len(self.recipients):
            raise ValueError("a transaction needs a DsnWish for each recipient, or none")


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
    if transaction.require_tls:
        line += " REQUIRETLS"
    if "DSN" in capabilities:
        if transaction.ret:
            line += f" RET={transaction.ret}"
        if transaction.envid:
            line += f" ENVID={xtext(transaction.envid)}"
    return line


def rcpt_commands(transaction: Transaction, capabilities: Capabilities) -> Iterator[str]:
    """The RCPT commands, in the order of the recipients."""
    if not transaction.dsn or "DSN" not in capabilities:
        return (f"RCPT TO:<{recipient}>" for recipient in transaction.recipients)
    return (
        f"RCPT TO:<{recipient}>{wish.parameters()}"
        for recipient, wish in zip(transaction.recipients, transaction.dsn, strict=True)
    )


def refusals(transaction: Transaction, capabilities: Capabilities) -> list[Result | None]:
    """For each recipient, why this server is known not to take the message; None when it may."""
    if transaction.require_tls and "REQUIRETLS" not in capabilities:
        no_require_tls = Result(Fate.UNSENDABLE, "mail", NO_REQUIRETLS, enhanced="5.7.30")
        return [no_require_tls] * len(transaction.recipients)
    limit = capabilities.max_size
    if transaction.size is not None and limit is not None and transaction.size > limit:
        text = f"message of {transaction.size} octets is over the server's limit of {limit}"
        too_large = Result(Fate.UNSENDABLE, "mail", text, enhanced="5.3.4")
        return [too_large] * len(transaction.recipients)
    if "SMTPUTF8" in capabilities:
        return [None] * len(transaction.recipients)
    text = "the server does not offer SMTPUTF8, which an address or header field that is not ASCII needs"
    no_utf8 = Result(Fate.UNSENDABLE, "mail", text, enhanced="5.6.7")
    all_need_it = transaction.smtputf8 or not (
        transaction.reverse_path is None or transaction.reverse_path.ascii
    )
    return [no_utf8 if all_need_it or not mailbox.ascii else None for mailbox in transaction.recipients]
