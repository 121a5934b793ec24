"""Tells the plugins of the `event` stage what happened, from the events table, in order.

How far it has come is kept in the store, so that a stop or a crash skips nothing: an event may be told
twice, never not at all. While no plugin listens, nothing is read.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial

import sqlalchemy as sa
import trio

from gateway.config.settings import Settings
from gateway.errors import PluginError, StoreError
from gateway.hooks.stages import Hooks
from gateway.mail.reading import parse_message
from gateway.model import Event, IncomingEvent
from gateway.offload import Offload, OffloadError
from gateway.store import events, received
from gateway.store.changes import Received
from gateway.store.store import Store
from gateway.wakeup import Wakeup

log = logging.getLogger(__name__)

READER = "event-hook"  # the cursor's name
PAGE = 100  # events
POLL = 5.0  # seconds
AGAIN_AFTER = 5.0  # seconds, when a plugin whose policy is to defer failed, or the store is away


class EventTeller:
    def __init__(
        self, settings: Settings, hooks: Hooks, store: Store, offload: Offload, happened: Wakeup
    ) -> None:
        self._hooks, self._store, self._offload, self._happened = hooks, store, offload, happened
        self._accounts = tuple(settings.accounts)

    async def serve(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Tell what happens until `stopping`."""
        if not any(self._listens(account) for account in self._accounts):
            task_status.started()
            return
        cursor: int | None = None
        with suppress(StoreError):  # tried again below
            cursor = await self._start()
        task_status.started()
        while not stopping.is_set():
            try:
                if cursor is None:
                    cursor = await self._start()
                page = await self._store.read(partial(events.after, cursor=cursor, limit=PAGE))
                for event in page:
                    await self._tell(event)
                    cursor = event.id
                if page:
                    await self._store.write(partial(events.set_cursor, name=READER, event_id=cursor))
            except (StoreError, PluginError, OffloadError) as exc:
                log.warning("plugins will be told of events in %g s: %s", AGAIN_AFTER, exc)
                with trio.move_on_after(AGAIN_AFTER):
                    await stopping.wait()
                continue
            if not page:
                await self._happened.wait(POLL)

    async def _start(self) -> int:
        """Where it left off; the first time, at what happens from now on. Raises StoreError."""
        return await self._store.write(_place)

    def _listens(self, account: str) -> bool:
        return self._hooks.for_account(account).has("event")

    async def _tell(self, event: Event | events.IncomingReference) -> None:
        if not self._listens(event.account):
            return
        stages = self._hooks.for_account(event.account)
        told: Event | IncomingEvent | None
        if isinstance(event, Event):
            told = event
        else:
            told = await read_incoming(self._store, self._offload, event)
        if told is not None:  # else the message was deleted before it could be announced
            await stages.event(event=told)


def _place(conn: sa.Connection) -> int:
    """The reader's place, written down the first time: from then on no event is skipped."""
    cursor = events.cursor(conn, READER)
    if cursor is None:
        cursor = events.newest(conn)
        events.set_cursor(conn, READER, cursor)
    return cursor


async def read_incoming(
    store: Store, offload: Offload, event: events.IncomingReference
) -> IncomingEvent | None:
    """The incoming message that an event is about; None when it is no longer there.

    Raises StoreError, OffloadError.
    """
    found = await store.read(lambda conn: received.get(conn, event.account, event.received_id))
    return None if found is None else await parse_incoming(store, offload, event, found)


async def parse_incoming(
    store: Store, offload: Offload, event: events.IncomingReference, found: Received
) -> IncomingEvent:
    """The event with its message, as plugins get it. Raises StoreError, OffloadError."""
    data = await store.content.open(found.content).read()
    return IncomingEvent(
        id=event.id,
        time=event.time,
        account=event.account,
        message=found.message,
        parsed=await offload.run_on_message(data, parse_message),
        data=data,
    )
