"""Unique MAIL FROM addresses: what comes back to one says which message it is about.

For each recipient, a FromID is put after the sender's localpart: mox@example.org sends as
mox+RANDOM@example.org. It is random, so only who got the message, or carried it, can know it.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gateway.mail.address import Address

BYTES = 16  # 128 bits, 22 characters of base64url


@dataclass(frozen=True, slots=True)
class FromId:
    """Of one recipient's message; without an ID there is none."""

    id: str = ""
    sender: Address | None = None  # the unique reverse-path
    secret: bool = False  # the gateway made it: one that a submitter chose may be guessed


def random_id() -> str:
    return secrets.token_urlsafe(BYTES)


def unique_sender(
    sender: Address, from_id: str, addresses: Collection[Address], separators: Sequence[str]
) -> Address:
    """The sender's address with a FromID, after the first of its domain's separators.

    `addresses`: the account's. Raises AddressError if it gets too long.
    """
    base = _base(sender, addresses, separators)
    return Address(f"{base}{separators[0]}{from_id}", sender.domain)


def details(address: Address, separators: Sequence[str]) -> tuple[str, ...]:
    """What stands after each of the separators that an address has: where a FromID can be."""
    cuts = (address.localpart.partition(separator) for separator in separators)
    return tuple(dict.fromkeys(rest for before, _, rest in cuts if before and rest))


def without_from_id(sender: Address, from_id: str, separators: Sequence[str]) -> Address:
    """The address that a unique one was made of."""
    localpart = sender.localpart
    for separator in separators:
        base = localpart.removesuffix(separator + from_id)
        if from_id and base and base != localpart:
            return Address(base, sender.domain)
    return sender


def _base(sender: Address, addresses: Collection[Address], separators: Sequence[str]) -> str:
    """The localpart up to its first separator; but an address of the account may have separators itself."""
    ours = {(address.localpart.casefold(), address.domain) for address in addresses}
    localpart = sender.localpart
    cuts = [localpart, *(localpart.partition(separator)[0] for separator in separators)]
    for cut in cuts:
        if (cut.casefold(), sender.domain) in ours:
            return cut
    return min((cut for cut in cuts if cut), key=len)
