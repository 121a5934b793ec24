"""Stored messages, as their account may read them."""

from __future__ import annotations

from gateway.errors import NotVisible
from gateway.model import Content, ReceivedMessage
from gateway.store import received
from gateway.store.store import Store


class Mailboxes:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, account: str, msg_id: int) -> tuple[ReceivedMessage, Content]:
        """A message and its content. Raises NotVisible, another account's ID included; StoreError."""
        found = await self._store.read(lambda conn: received.get(conn, account, msg_id))
        if found is None:
            raise NotVisible(f"no message has ID {msg_id}")
        return found.message, self._store.content.open(found.content)
