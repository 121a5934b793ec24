"""Suppression: whom an account does not send to, and which failures put an address on its list.

The plugins decide; here they are asked, and what the store needs to know is put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from gateway.clock import Clock
from gateway.hooks.stages import Hooks, Stages
from gateway.mail.address import Address
from gateway.model import FailureSource, Outcome, QueuedMessage, Suppression
from gateway.store import settle, suppressions
from gateway.store.changes import Suppress
from gateway.store.store import Store

MAX_REASON = 2000  # characters, of an entry that a person or an application adds


async def base_address(stages: Stages, address: Address) -> str:
    """What stands for an address in the suppression list; the address itself, when no plugin says."""
    return str(await stages.base_address(address=address) or address)


def not_sent(entry: Suppression | None) -> Outcome:
    """What an attempt comes to when the recipient is suppressed. No one was asked, so there is no code."""
    if entry is None:
        return Outcome.permanent("the recipient is suppressed")
    why = f": {entry.reason}" if entry.reason else ""
    which = f" for {entry.list_name}" if entry.list_name else ""
    return Outcome.permanent(f"{entry.base_address} is on the account's suppression list{which}{why}")


async def after_failure(
    stages: Stages,
    store: Store,
    message: QueuedMessage,
    outcome: Outcome,
    source: FailureSource,
    now: datetime,
) -> Suppress | None:
    """What a message's failure adds to the list; None for nothing.

    The store checks the history that the answer rests on and raises Stale: then ask again. Raises StoreError.
    """
    if not stages.has("suppress"):
        return None
    history = await store.read(
        lambda conn: settle.latest_retired(conn, message.account, message.recipient, excluding=message.id)
    )
    answer = await stages.suppress(message=message, outcome=outcome, source=source, history=history, now=now)
    if answer is None or (answer.expires is not None and answer.expires <= now):
        return None
    return Suppress(
        base_address=message.base_address,
        original_address=str(message.recipient),
        reason=answer.reason,
        expires=answer.expires,
        history=tuple(earlier.id for earlier in history),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """What a person or an application puts on a list."""

    address: Address
    manual: bool
    reason: str = ""
    expires: datetime | None = None  # None: never
    created: datetime | None = None  # None: now
    list_name: str = ""  # the mailing list that it holds for; "" for all that the account sends


class SuppressionLists:
    """The lists as people and applications see them, by account and address. All raise StoreError."""

    def __init__(self, hooks: Hooks, store: Store, clock: Clock) -> None:
        self._hooks, self._store, self._clock = hooks, store, clock

    async def page(
        self, account: str, cursor: str = "", maximum: int = 100
    ) -> tuple[tuple[Suppression, ...], str]:
        """Entries by base address, and the cursor of the next page, empty at the end."""
        now = self._clock.now()
        return await self._store.read(
            lambda conn: suppressions.page(conn, account, now, cursor=cursor, maximum=maximum)
        )

    async def lookup(self, account: str, address: Address, list_name: str = "") -> Suppression | None:
        """The entry that keeps the account from sending mail of a list to an address."""
        [found] = await self.lookup_many(account, [address], list_name)
        return found

    async def lookup_many(
        self, account: str, addresses: Sequence[Address], list_name: str = ""
    ) -> list[Suppression | None]:
        """The entry of each; at most `changes.STEP` at a time."""
        bases, now = await self._bases(account, addresses), self._clock.now()
        return await self._store.read(
            lambda conn: [
                suppressions.lookup(conn, account, base, address, now, list_name)
                for base, address in zip(bases, addresses, strict=True)
            ]
        )

    async def add(
        self,
        account: str,
        address: Address,
        *,
        manual: bool,
        reason: str,
        expires: datetime | None = None,
        list_name: str = "",
    ) -> bool:
        """False if there is an entry for that list, or for all, already; it stays as it is."""
        entry = NewEntry(address=address, manual=manual, reason=reason, expires=expires, list_name=list_name)
        return await self.add_many(account, [entry]) == 1

    async def add_many(self, account: str, entries: Sequence[NewEntry]) -> int:
        """How many were added; those on the list stay as they are. At most `changes.STEP` at a time."""
        bases = await self._bases(account, [entry.address for entry in entries])
        now = self._clock.now()

        def add(conn: sa.Connection) -> int:
            return sum(
                suppressions.lookup(conn, account, base, entry.address, now, entry.list_name) is None
                and suppressions.add(
                    conn,
                    now,
                    account=account,
                    base_address=base,
                    original_address=str(entry.address),
                    manual=entry.manual,
                    reason=entry.reason,
                    expires=entry.expires,
                    created=entry.created,
                    list_name=entry.list_name,
                )
                for base, entry in zip(bases, entries, strict=True)
            )

        return await self._store.write(add)

    async def remove(self, account: str, address: Address, list_name: str = "") -> bool:
        """False if there is no entry for exactly that list, or for all."""
        return await self.remove_many(account, [address], list_name) == 1

    async def remove_many(self, account: str, addresses: Sequence[Address], list_name: str = "") -> int:
        """How many were on the list; at most `changes.STEP` at a time."""
        bases, now = await self._bases(account, addresses), self._clock.now()
        return await self._store.write(
            lambda conn: sum(
                suppressions.remove(conn, account, base, address, now, list_name)
                for base, address in zip(bases, addresses, strict=True)
            )
        )

    async def _bases(self, account: str, addresses: Sequence[Address]) -> list[str]:
        stages = self._hooks.for_account(account)
        return [await base_address(stages, address) for address in addresses]
