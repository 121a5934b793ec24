"""Takes a message that comes in pieces, on its way to where it is kept."""

from __future__ import annotations

import secrets
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from gateway.store.content import SMALL, StoredBytes
from gateway.store.content_files import ScratchFile

if TYPE_CHECKING:
    from gateway.store.contents import Contents


class Spool:
    """Takes bytes in pieces: in memory while they are few, in a temporary file from then on, which goes to
    the content store at the end. Not for several tasks.

    What `finish` answers is for a Store.write inside the `async with`: leaving that removes what no
    row has by then, however it is left.
    """

    def __init__(self, owner: Contents) -> None:
        self.size = 0  # bytes so far
        self._owner = owner
        self._buffer = bytearray()  # at most SMALL and a piece
        self._scratch: ScratchFile | None = None
        self._name = ""  # of the scratch file, and then in the store
        self._stored: StoredBytes | None = None

    async def __aenter__(self) -> Spool:
        return self

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Raises StoreUnavailable."""
        if self._stored is not None:
            raise ValueError("the spool is finished")
        self._buffer += data
        self.size += len(data)
        if len(self._buffer) >= SMALL:
            buffer, self._buffer = self._buffer, bytearray()
            await self._owner.on_disk(self._to_file().write, buffer)

    async def finish(self, head: bytes = b"") -> StoredBytes:
        """Makes what was written durable, if it is large, behind `head`. Raises StoreUnavailable.

        Once: later calls answer the same. A head costs a copy of the file, before its fsync.
        """
        if self._stored is None:
            self.size += len(head)
            if self._scratch is None and self.size < SMALL:
                self._stored = StoredBytes(self.size, data=head + bytes(self._buffer))
            else:
                if head:
                    await self._begin_with(head)
                await self._owner.on_disk(_complete, self._to_file(), self._buffer)
                self._buffer = bytearray()
                self._stored = await self._owner.keep_scratch(self._name, self.size)
            self._buffer = bytearray()
        return self._stored

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """What leaving the `async with` does, for one that cannot have it in a single function."""
        self._buffer = bytearray()
        scratch, self._scratch = self._scratch, None
        if scratch is None:
            return
        with trio.CancelScope(shield=True):
            try:
                await self._owner.on_disk(scratch.remove)  # unless the store took it
                if self._stored is not None:
                    await self._owner.discard(self._stored)
            finally:
                self._owner.spooling.discard(self._name)

    async def _begin_with(self, head: bytes) -> None:
        """Puts a head before what is in the file, in a new one."""
        body, self._scratch = self._scratch, None
        before = self._name
        try:
            await self._owner.on_disk(_begin, self._to_file(), head, body)
        finally:
            self._owner.spooling.discard(before)

    def _to_file(self) -> ScratchFile:
        if self._scratch is None:
            self._name = new_name()
            self._scratch = ScratchFile(self._owner.directory, self._name)
            self._owner.spooling.add(self._name)
        return self._scratch


def _complete(scratch: ScratchFile, rest: bytes | bytearray) -> None:
    """Writes the rest. Blocks."""
    scratch.write(rest)
    scratch.close()


def _begin(scratch: ScratchFile, head: bytes, body: ScratchFile | None) -> None:
    """A file of a head, and of what another has; that one goes, whatever happens. Blocks."""
    try:
        scratch.write(head)
        if body is not None:
            scratch.write_file(body)
    finally:
        if body is not None:
            body.remove()


def new_name() -> str:
    return secrets.token_hex(16)
