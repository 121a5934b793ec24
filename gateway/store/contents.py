"""Messages' bytes outside of transactions: into a content store, out of it, and away again.

What is said of durability in gateway.store.content is done here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Never, TypeVar, TypeVarTuple

import trio

from gateway.errors import StoreError, StoreUnavailable
from gateway.hookspecs.additions import NewContent
from gateway.model import Content
from gateway.store.content import BATCH, SMALL, Located, StoredBytes, files_with_row
from gateway.store.content_files import TEMPORARY, FileStore
from gateway.store.content_reading import BytesContent, StoredContent
from gateway.store.content_stores import FILES, TIMEOUT, CalledStore, Registered
from gateway.store.faults import unavailable
from gateway.store.spool import Spool, new_name

if TYPE_CHECKING:
    from gateway.store.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SWEEP_AGE = timedelta(hours=1)  # the row of a younger content may be on its way
_NAME = re.compile(r"[0-9a-f]{32}")


class Contents:
    """The contents of a store's messages (Store.content).

    `directory`: of the built-in content store, and of what is spooled.

    Error handling: a store that fails, and a full disk, are StoreUnavailable everywhere.
    """

    def __init__(self, directory: Path, store: Store, registered: Registered) -> None:
        self.directory = directory
        self.spooling: set[str] = set()  # names that the sweep leaves alone, however old
        # When we gave the youngest names away (trio.current_time): the stores' clocks may be wrong.
        self._given: dict[str, float] = {}
        self._store = store
        self._files = FileStore(directory)
        files = CalledStore(repr(FILES), self._files, registered.timeout)
        self._stores = {FILES: files, **registered.stores}
        self._chosen = registered.chosen

    def spool(self) -> Spool:
        """For bytes that come in pieces: `async with content.spool() as spool`."""
        return Spool(self)

    async def put(self, data: bytes) -> StoredBytes:
        """Stores bytes that are at hand, for one Store.write with insert_content.

        If that write fails, `discard` gives the space back; else the next sweep does.
        """
        if len(data) < SMALL:
            return StoredBytes(len(data), data=data)
        return await self._keep(new_name(), BytesContent(data))

    async def keep_scratch(self, name: str, size: int) -> StoredBytes:
        """Stores the temporary file of a name; it is the store's."""
        file = name + TEMPORARY
        content = StoredContent(self._stores[FILES], file, size, self.directory / file)
        return await self._keep(name, content)

    async def _keep(self, name: str, content: NewContent) -> StoredBytes:
        self._given[name] = trio.current_time()
        await self._stores[self._chosen].put(name, content)
        return StoredBytes(content.size, file=_join(self._chosen, name))

    async def discard(self, stored: StoredBytes) -> None:
        """Removes stored bytes, unless a row has them: right in any doubt about a write."""
        if stored.file is None:
            return
        file = stored.file
        with trio.CancelScope(shield=True):
            try:
                if not await self._store.read(lambda conn: files_with_row(conn, [file])):
                    await self.unlink([file])
            except StoreError as exc:
                log.warning("content %s is left for the next sweep: %s", file, exc)

    def open(self, where: Located) -> Content:
        """A reader of stored bytes. Nothing is opened before it is read."""
        if where.file is None:
            return BytesContent(where.data or b"")
        name, in_store = _split(where.file)
        store = self._stores.get(name) or CalledStore(repr(name), _Gone(), TIMEOUT)
        return StoredContent(store, in_store, where.size)

    async def unlink(self, files: Iterable[str]) -> None:
        """Removes contents whose rows are gone. Does not raise: what cannot be removed now is swept later."""
        by_store: dict[str, list[str]] = {}
        for file in files:
            name, in_store = _split(file)
            by_store.setdefault(name, []).append(in_store)
        for name, names in by_store.items():
            if name not in self._stores:
                log.error("content store %r is gone; %d contents are left in it", name, len(names))
                continue
            for at in range(0, len(names), BATCH):
                try:
                    await self._stores[name].delete(names[at : at + BATCH])
                except StoreUnavailable:  # which is in the log
                    break

    async def sweep(self) -> int:
        """Removes contents older than an hour that no row has; answers how many. May run at any time.

        Raises StoreError; a content store that fails is left for the next time.
        """
        swept = 0
        old = trio.current_time() - SWEEP_AGE.total_seconds()
        self._given = {name: given for name, given in self._given.items() if given > old}
        for name, store in self._stores.items():
            try:
                async with (
                    aclosing(store.names(self._store.clock.now() - SWEEP_AGE)) as names,
                    aclosing(_batches(names)) as batches,
                ):
                    async for some in batches:
                        swept += await self._sweep(name, some)
            except StoreUnavailable as exc:
                log.warning("content store %s will be swept in an hour: %s", store.label, exc)
        if swept:
            log.info("removed %d contents that belonged to no message", swept)
        return swept

    async def _sweep(self, name: str, names: Sequence[str]) -> int:
        """Only what has a name that we gave: other things may lie there too."""
        ours = [
            _join(name, one)
            for one in names
            if _NAME.fullmatch(one.removesuffix(TEMPORARY))
            and one.removesuffix(TEMPORARY) not in self.spooling
            and one not in self._given
        ]
        kept = await self._store.read(partial(files_with_row, names=ours))
        orphans = [file for file in ours if file not in kept]
        await self.unlink(orphans)
        return len(orphans)

    async def on_disk(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Runs what works on temporary files in a thread."""
        try:
            return await self._files.in_thread(function, *args)
        except OSError as exc:
            raise unavailable(exc) or exc from exc


class _Gone:
    """In place of a content store that was configured once."""

    async def open(self, name: str) -> Never:
        raise StoreUnavailable("no plugin of the plugin sets registers it; add the one that does")

    async def put(self, name: str, content: NewContent) -> None:
        await self.open(name)

    async def delete(self, names: Sequence[str]) -> None:
        await self.open("")

    def names(self, before: datetime) -> Never:
        raise NotImplementedError  # nobody asks: what is swept are the stores that are configured


async def _batches(names: AsyncIterator[str]) -> AsyncGenerator[list[str], None]:
    some: list[str] = []
    async for name in names:
        some.append(name)
        if len(some) == BATCH:
            yield some
            some = []
    if some:
        yield some


def _join(store: str, name: str) -> str:
    """What a row has: of the built-in store the name alone."""
    return name if store == FILES else f"{store}/{name}"


def _split(file: str) -> tuple[str, str]:
    store, _, name = file.rpartition("/")
    return store or FILES, name
