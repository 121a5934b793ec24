"""Stored messages, as their account may read and change them. Another account's are none."""

from __future__ import annotations

from collections.abc import Collection

from gateway.config.settings import Settings
from gateway.errors import NotVisible
from gateway.model import Content, ReceivedMessage
from gateway.store import mailbox_listing, received
from gateway.store.mailbox_listing import ListedMessage, MessageFilter
from gateway.store.store import Store


class Mailboxes:
    def __init__(self, settings: Settings, store: Store) -> None:
        self._accounts, self._store = settings.accounts, store

    def _standing(self, account: str) -> Collection[str]:
        """The mailboxes that an account has before anything is in them."""
        settings = self._accounts.get(account)
        return received.STANDARD.union(settings.mailboxes if settings is not None else ())

    async def get(self, account: str, msg_id: int) -> tuple[ReceivedMessage, Content]:
        """A message and its content. Raises NotVisible, StoreError."""
        found = await self._store.read(lambda conn: received.get(conn, account, msg_id))
        if found is None:
            raise _not_visible(msg_id)
        return found.message, self._store.content.open(found.content)

    async def delete(self, account: str, msg_id: int) -> None:
        """Removes a message, and its content with the last copy. Raises NotVisible, StoreError."""
        files = await self._store.write(lambda conn: received.delete(conn, account, msg_id))
        if files is None:
            raise _not_visible(msg_id)
        await self._store.content.unlink(files)

    async def change_flags(
        self,
        account: str,
        msg_id: int,
        *,
        add: frozenset[str] = frozenset(),
        remove: frozenset[str] = frozenset(),
    ) -> None:
        """Flags in their canonical form (gateway.mail.flags). Raises FlagError, NotVisible, StoreError."""
        if not await self._store.write(
            lambda conn: received.change_flags(conn, account, msg_id, add=add, remove=remove)
        ):
            raise _not_visible(msg_id)

    async def move(self, account: str, msg_id: int, mailbox: str) -> bool:
        """False if the account has no such mailbox. Raises NotVisible, StoreError."""
        standing = self._standing(account)
        moved = await self._store.write(lambda conn: received.move(conn, account, msg_id, mailbox, standing))
        if moved is False:
            raise _not_visible(msg_id)
        return moved is not None

    async def page(
        self, account: str, wanted: MessageFilter, *, cursor: str, maximum: int
    ) -> tuple[tuple[ListedMessage, ...], str] | None:
        """The messages that match, the newest first, and the next page's cursor, empty at the end.

        None if the account has no such mailbox. Raises ValueError for a cursor that no page ended with;
        StoreError.
        """
        standing = self._standing(account)
        return await self._store.read(
            lambda conn: mailbox_listing.page(
                conn, account, wanted, cursor=cursor, maximum=maximum, standing=standing
            )
        )


def _not_visible(msg_id: int) -> NotVisible:
    return NotVisible(f"no message has ID {msg_id}")
