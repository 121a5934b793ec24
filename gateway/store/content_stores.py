"""Calls content stores, the built-in one and those of plugins: time limit, right type of answer, errors.

A store that raises, does not answer in time or answers nonsense is ContentUnavailable, and StoreUnavailable
where it says that a disk is full or fails: whoever asked tries again later. That one content is missing or
damaged is ContentUnavailable, too, but no failure of its store.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import trio

from gateway.config.settings import ContentSettings
from gateway.errors import ConfigError, ContentUnavailable, PluginError, StoreUnavailable
from gateway.hooks.breaker import Tally
from gateway.hooks.calls import Call, Calls, Nonsense, ask, described
from gateway.hooks.registered import registered_call
from gateway.hookspecs.additions import ContentReader, ContentStore, NewContent
from gateway.store.faults import unavailable

T = TypeVar("T")

FILES = "files"  # the built-in store's name
HOOK = "content_store"
TIMEOUT = 30.0  # seconds for each call, unless the configuration has another
TIDY = 5.0  # seconds at most for a removal: what is left is swept

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Registered:
    """The stores that plugins registered, by name, and which of them gets what is new."""

    stores: Mapping[str, CalledStore]
    chosen: str = FILES
    timeout: float = TIMEOUT


def registered(
    settings: ContentSettings, stores: Mapping[str, tuple[str, ContentStore]], calls: Calls
) -> Registered:
    """Raises ConfigError when the configured store is not there."""
    if FILES in stores:
        raise ConfigError(
            f"plugin {stores[FILES][0]!r}, hook {HOOK!r}: {FILES!r} is the gateway's own content store;"
            " give its store another name"
        )
    names = [FILES, *sorted(stores)]
    if settings.store not in names:
        close = difflib.get_close_matches(settings.store, names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"content.store: there is no content store {settings.store!r}; {hint}"
            f"there are: {', '.join(names)}"
        )
    called = {
        name: CalledStore(
            f"{name!r} of plugin {plugin!r}",
            store,
            settings.timeout,
            plugin=plugin,
            tally=calls[plugin, HOOK],
        )
        for name, (plugin, store) in stores.items()
    }
    return Registered(called, settings.store, settings.timeout)


class CalledStore:
    """A content store as the gateway calls it. All methods raise StoreUnavailable, and have logged it then.

    `label` names it for people. `plugin`: whose it is; one that fails again and again is suspended, so that
    nobody waits for a time limit each time. "" is the gateway's own, which answers at once if it fails.
    """

    def __init__(
        self, label: str, store: ContentStore, timeout: float, *, plugin: str = "", tally: Tally | None = None
    ) -> None:
        self.label = label
        self._store, self._timeout = store, timeout
        self._plugin, self._tally = plugin, tally or Tally()
        self._put = self._call("put")
        self._open = self._call("open")
        self._read = self._call("read")
        self._delete = self._call("delete", min(TIDY, timeout))
        self._next = self._call("names")
        self._close = self._call("names", min(TIDY, timeout))

    async def put(self, name: str, content: NewContent) -> None:
        await _ask(self._put, lambda: self._store.put(name, content), _nothing)

    async def open(self, name: str) -> ContentReader:
        missing = ""

        async def found() -> ContentReader | None:
            nonlocal missing
            try:
                return await self._store.open(name)
            except (FileNotFoundError, LookupError) as exc:
                missing = str(unavailable(exc) or described(exc))
                return None

        reader = await _ask(self._open, found, lambda reader: missing != "" or hasattr(reader, "read"))
        if reader is None:
            raise self._damaged(f"content {name} is missing: {missing}")
        return reader

    async def read(self, reader: ContentReader, start: int, count: int) -> bytes:
        """At most `count` bytes; fewer only where the content ends."""
        return await _ask(
            self._read,
            lambda: reader.read(start, count),
            lambda data: isinstance(data, bytes) and len(data) <= count,
        )

    async def delete(self, names: Sequence[str]) -> None:
        await _ask(self._delete, lambda: self._store.delete(names), _nothing)

    async def names(self, before: datetime) -> AsyncGenerator[str, None]:
        """To be closed when it is left early."""
        iterator: AsyncIterator[str] | None = None

        async def following() -> str | None:
            nonlocal iterator
            if iterator is None:
                iterator = aiter(self._store.names(before))
            return await anext(iterator, None)

        try:
            while name := await _ask(self._next, following, lambda found: isinstance(found, str | None)):
                yield name
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                with trio.CancelScope(shield=True), suppress(StoreUnavailable):
                    await _ask(self._close, close, _nothing)

    def damaged(self, name: str, found: int, size: int) -> StoreUnavailable:
        return self._damaged(f"content {name} is damaged: {found} bytes instead of {size}")

    def _damaged(self, problem: str) -> StoreUnavailable:
        """It says nothing of the store as a whole, which is not suspended for that."""
        self._tally.failures += 1
        text = f"content store {self.label}: {problem}"
        log.error("%s", text)
        return ContentUnavailable(text)

    def _call(self, step: str, limit: float | None = None) -> Call:
        return registered_call(
            self._plugin,
            HOOK,
            f"content store {self.label}: {step}",
            _run,
            arguments=("ask", "is_good"),
            tally=self._tally,
            limit=limit or self._timeout,
            suspends=self._plugin != "",
        )


async def _run(ask: Callable[[], Awaitable[T]], is_good: Callable[[T], bool]) -> T:
    try:
        answer = await ask()
    except OSError as exc:
        raise unavailable(exc) or exc from exc
    if not is_good(answer):
        raise Nonsense(f"answered {type(answer).__name__}, which is not what was asked for")
    return answer


def _nothing(answer: object) -> bool:
    return answer is None


async def _ask(call: Call, asked: Callable[[], Awaitable[T]], is_good: Callable[[T], bool]) -> T:
    try:
        answer: T = await ask(call, (asked, is_good))
    except PluginError as exc:
        disk = isinstance(exc.__cause__, StoreUnavailable)
        raise (StoreUnavailable if disk else ContentUnavailable)(str(exc)) from exc
    return answer
