"""Suppression: whom an account does not send to, and which failures put an address on its list.

The plugins decide; here they are asked, and what the store needs to know is put together.
"""

from __future__ import annotations

from datetime import datetime

from gateway.clock import Clock
from gateway.hooks import Hooks, Stages
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
    return Outcome.permanent(f"{entry.base_address} is on the account's suppression list{why}")


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

    async def lookup(self, account: str, address: Address) -> Suppression | None:
        """The entry that keeps the account from sending to an address."""
        base, now = await self._base(account, address), self._clock.now()
        return await self._store.read(lambda conn: suppressions.lookup(conn, account, base, address, now))

    async def add(
        self,
        account: str,
        address: Address,
        *,
        manual: bool,
        reason: str,
        expires: datetime | None = None,
    ) -> bool:
        """False if it is on the list already; that entry stays as it is."""
        base, now = await self._base(account, address), self._clock.now()
        return await self._store.write(
            lambda conn: (
                suppressions.lookup(conn, account, base, address, now) is None
                and suppressions.add(
                    conn,
                    now,
                    account=account,
                    base_address=base,
                    original_address=str(address),
                    manual=manual,
                    reason=reason,
                    expires=expires,
                )
            )
        )

    async def remove(self, account: str, address: Address) -> bool:
        """False if it is not on the list."""
        base, now = await self._base(account, address), self._clock.now()
        return await self._store.write(lambda conn: suppressions.remove(conn, account, base, address, now))

    async def _base(self, account: str, address: Address) -> str:
        return await base_address(self._hooks.for_account(account), address)
