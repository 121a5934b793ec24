"""Calls content stores, the built-in one and those of plugins: time limit, right type of answer, errors.

A store that raises, does not answer in time or answers nonsense is ContentUnavailable, and StoreUnavailable
where it says that a disk is full or fails: whoever asked tries again later.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import TypeVar

import trio

from gateway.additions import ContentReader, ContentStore, NewContent
from gateway.breaker import Tally
from gateway.config.settings import ContentSettings
from gateway.errors import ConfigError, ContentUnavailable, StoreUnavailable
from gateway.hookcalls import Calls, contain, described
from gateway.store.writer import unavailable

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
        name: CalledStore(f"{name!r} of plugin {plugin!r}", store, settings.timeout, calls[plugin, HOOK])
        for name, (plugin, store) in stores.items()
    }
    return Registered(called, settings.store, settings.timeout)


class CalledStore:
    """A content store as the gateway calls it. All methods raise StoreUnavailable, and have logged it then.

    `label` names it for people.
    """

    def __init__(self, label: str, store: ContentStore, timeout: float, tally: Tally | None = None) -> None:
        self.label = label
        self._store, self._timeout, self._tally = store, timeout, tally or Tally()

    async def put(self, name: str, content: NewContent) -> None:
        await self._ask(lambda: self._store.put(name, content), lambda answer: answer is None, "put")

    async def open(self, name: str) -> ContentReader:
        return await self._ask(
            lambda: self._store.open(name),
            lambda reader: callable(getattr(reader, "read", None)),
            f"open {name}",
        )

    async def read(self, reader: ContentReader, start: int, count: int) -> bytes:
        """At most `count` bytes; fewer only where the content ends."""
        return await self._ask(
            lambda: reader.read(start, count),
            lambda data: isinstance(data, bytes) and len(data) <= count,
            "read",
        )

    async def delete(self, names: Sequence[str]) -> None:
        await self._ask(
            lambda: self._store.delete(names),
            lambda answer: answer is None,
            "delete",
            min(TIDY, self._timeout),
        )

    async def names(self, before: datetime) -> AsyncGenerator[str, None]:
        """To be closed when it is left early."""
        iterator: AsyncIterator[str] | None = None

        async def following() -> str | None:
            nonlocal iterator
            if iterator is None:
                iterator = aiter(self._store.names(before))
            return await anext(iterator, None)

        try:
            while name := await self._ask(following, lambda found: isinstance(found, str | None), "names"):
                yield name
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                with trio.move_on_after(TIDY) as scope:
                    scope.shield = True
                    with suppress(Exception):
                        await close()

    async def _ask(
        self,
        ask: Callable[[], Awaitable[T]],
        is_good: Callable[[T], bool],
        step: str,
        limit: float | None = None,
    ) -> T:
        limit = limit or self._timeout
        scope = trio.CancelScope(relative_deadline=limit)
        raised: BaseException | None = None
        started = perf_counter()
        try:
            with scope:
                answer = await ask()
        except BaseException as exc:
            await contain(exc)
            raised = exc
        self._tally.calls += 1
        self._tally.seconds += perf_counter() - started
        if scope.cancelled_caught:
            self._tally.timeouts += 1
            reason = f"no answer in {limit:g} s"
        elif raised is not None:
            told = raised if isinstance(raised, StoreUnavailable) else unavailable(raised)
            reason = str(told or f"raised {described(raised)}")
        elif not is_good(answer):
            reason = f"answered {type(answer).__name__}, which is not what was asked for"
        else:
            return answer
        raise self._failed(f"{step}: {reason}", raised) from raised

    def damaged(self, name: str, found: int, size: int) -> StoreUnavailable:
        return self._failed(f"content {name} is damaged: {found} bytes instead of {size}")

    def _failed(self, reason: str, raised: BaseException | None = None) -> StoreUnavailable:
        """Counts and logs."""
        self._tally.failures += 1
        text = f"content store {self.label}: {reason}"
        # What a disk or the like says needs no traceback.
        shown = raised if isinstance(raised, Exception) and not isinstance(raised, OSError) else None
        log.error("%s", text, exc_info=shown)
        return (StoreUnavailable if isinstance(raised, OSError) else ContentUnavailable)(text)
