"""An account's own messages in the queue and its history, for the web API. Another account's are none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import sqlalchemy as sa

from gateway.model import Event
from gateway.outbound.operations import QueueOperations
from gateway.store import events, listing
from gateway.store.listing import Attempt, Filter, Item, Page, Sort
from gateway.store.store import Store

CANCELED = "canceled by the account"


@dataclass(frozen=True, slots=True)
class History:
    """A message and what became of it so far, each list oldest first."""

    item: Item
    attempts: tuple[Attempt, ...]
    events: tuple[Event, ...]


class AccountQueue:
    """All methods raise StoreError. Filters are narrowed to the account, whatever they say."""

    def __init__(self, store: Store, operations: QueueOperations) -> None:
        self._store, self._operations = store, operations

    async def page(
        self, account: str, wanted: Filter, *, sort: Sort, ascending: bool, cursor: str, maximum: int
    ) -> Page:
        """Raises ValueError for a cursor that no page ended with."""
        return await self._store.read(
            partial(
                listing.page,
                wanted=replace(wanted, account=account),
                sort=sort,
                ascending=ascending,
                cursor=cursor,
                maximum=maximum,
            )
        )

    async def get(self, account: str, message_id: int) -> History | None:
        return await self._store.read(partial(_history, account=account, message_id=message_id))

    async def hold(self, account: str, wanted: Filter) -> int:
        return await self._operations.hold(replace(wanted, account=account))

    async def release(self, account: str, wanted: Filter) -> int:
        return await self._operations.release(replace(wanted, account=account))

    async def cancel(self, account: str, wanted: Filter) -> int:
        return await self._operations.drop(replace(wanted, account=account), CANCELED)


def _history(conn: sa.Connection, account: str, message_id: int) -> History | None:
    found = listing.get(conn, message_id, account)
    return None if found is None else History(*found, events.of_message(conn, message_id))
