"""An account's events, oldest first, as webhooks tell them: for receivers that were down, or have no URL."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from gateway.config.accounts import MOX
from gateway.events import read_incoming
from gateway.model import Event
from gateway.offload import Offload
from gateway.store import events
from gateway.store.events import IncomingReference
from gateway.store.store import Store
from gateway.wakeup import Bell
from gateway.webhooks.calling import Caller, NoPayload

MAX_PAGE = 1000  # events
# Bytes of the payloads of a page, after which it ends: incoming mail has its text in them.
MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    id: int
    payload: Any  # a JSON object, as webhooks in mox's format have it


@dataclass(frozen=True, slots=True)
class EventPage:
    """`cursor` is for the next page, also when there is none yet. `more`: there may be one already."""

    events: tuple[LoggedEvent, ...]
    cursor: str
    more: bool


class EventLog:
    """The events of all accounts, as long as each account keeps its webhooks."""

    def __init__(self, caller: Caller, store: Store, offload: Offload, happened: Bell) -> None:
        self._caller, self._store, self._offload, self._happened = caller, store, offload, happened

    @property
    def changed(self) -> trio.Event:
        """Set when something more has happened: a hint."""
        return self._happened.next

    async def newest(self) -> str:
        """The cursor after which there is only what is still to happen. Raises StoreError."""
        return make_cursor(await self._store.read(events.newest))

    def check_cursor(self, cursor: str) -> None:
        """Raises ValueError for one that no page ended with."""
        if cursor:
            parse_cursor(cursor)

    async def page(
        self, account: str, *, cursor: str = "", maximum: int = 100, names: Sequence[str] = ()
    ) -> EventPage:
        """The events after a cursor (empty: all that are kept), of these names if any are given.

        A page may be short, or empty, and yet have a next one. Raises ValueError for a cursor that no page
        ended with or a page over 1000, NoPayload, StoreError, OffloadError.
        """
        if not 1 <= maximum <= MAX_PAGE:
            raise ValueError(f"a page has 1 to {MAX_PAGE} events, not {maximum}")
        after = parse_cursor(cursor) if cursor else 0
        found, last, more = await self._store.read(
            partial(events.window, account=account, cursor=after, limit=maximum, names=names)
        )
        logged: list[LoggedEvent] = []
        size = 0
        for event in found:
            if size >= MAX_BYTES:
                last, more = logged[-1].id, True
                break
            body = await self._body(event)
            if body is not None:
                logged.append(LoggedEvent(event.id, _parsed(body)))
                size += len(body)
        return EventPage(tuple(logged), make_cursor(last) if last else "", more)

    async def payload(self, event: Event) -> Any:
        """The JSON of one, None if the format has nothing for it. Raises NoPayload."""
        body = await self._body(event)
        return None if body is None else _parsed(body)

    async def _body(self, event: Event | IncomingReference) -> bytes | None:
        """None for what the format has nothing for, and for a message that is no longer there."""
        if isinstance(event, Event):
            told = await self._caller.format(event, MOX)
        else:
            incoming = await read_incoming(self._store, self._offload, event)
            told = None if incoming is None else await self._caller.format(incoming, MOX)
        return None if told is None else told.body


def _parsed(body: bytes) -> Any:
    """By json: 100 parts within each other go deeper than pydantic's parser does."""
    return json.loads(body)


def make_cursor(event_id: int) -> str:
    return base64.urlsafe_b64encode(b"e%d" % event_id).decode().rstrip("=")


def parse_cursor(text: str) -> int:
    """Raises ValueError."""
    try:
        raw = base64.b64decode(text[:100] + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        digits = raw.removeprefix(b"e")
        if digits == raw or not digits.isdigit() or int(digits) >= 1 << 63:
            raise ValueError("it has no ID")
        return int(digits)
    except (ValueError, binascii.Error):
        raise ValueError(f"cursor {text[:100]!a} is none that a page ended with") from None


__all__ = ["EventLog", "EventPage", "LoggedEvent", "NoPayload", "make_cursor", "parse_cursor"]
