"""What a delivery is on the wire, and how it is divided where a server takes no more at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from gateway import Address, Delivery
from gateway.smtp.addresses import Mailbox
from gateway.smtp.dsn import DsnWish
from gateway.smtp.transaction import Capabilities, Transaction

_NOTIFY = frozenset({"NEVER", "SUCCESS", "FAILURE", "DELAY"})


def transaction(delivery: Delivery, numbers: Sequence[int]) -> Transaction:
    """The transaction for these of the delivery's messages."""
    first = delivery.messages[numbers[0]]
    dsn = delivery.dsn
    return Transaction(
        reverse_path=mailbox(first.sender) if first.sender else None,
        recipients=tuple(mailbox(delivery.messages[number].recipient) for number in numbers),
        size=delivery.content.size,
        eight_bit=first.has_8bit,
        smtputf8=first.smtputf8,
        require_tls=bool(first.require_tls),
        ret=dsn[numbers[0]].ret if dsn else "",
        envid=first.env_id,
        dsn=tuple(
            DsnWish(tuple(word for word in dsn[number].notify if word in _NOTIFY), dsn[number].orcpt)
            for number in numbers
        )
        if dsn
        else (),
    )


@lru_cache(maxsize=1024)
def mailbox(address: Address) -> Mailbox:
    """An address for a command: with its domain in A-labels where that makes all of it ASCII, or where its
    labels have joiners (RFC 5892, A.1), which are legal and invisible."""
    in_ascii = address.is_ascii or not address.domain.isprintable()
    return Mailbox(address.localpart, address.ascii_domain if in_ascii else address.domain)


def next_batch(delivery: Delivery, numbers: Sequence[int], offered: Capabilities) -> Sequence[int]:
    """As many of these messages as the server takes in one transaction (RFC 9422), from the first on."""
    if offered.max_domains is None:
        return numbers[: offered.max_recipients]
    domains: set[str] = set()
    batch: list[int] = []
    for number in numbers:
        if len(batch) == offered.max_recipients:
            break
        domain = delivery.messages[number].recipient.domain
        if domain in domains or len(domains) < offered.max_domains:
            domains.add(domain)
            batch.append(number)
    return batch
