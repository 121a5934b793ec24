"""Mail that waits because a plugin failed is tried again as soon as the plugin answers again.

At the start, all of it: whoever repairs a plugin starts the gateway again. Later, when a plugin has answered
after failures. So that this is found out even when no other mail is under way, one message after the other is
tried now and then; these attempts do not count.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.hooks.calls import Calls
from gateway.store import deferred
from gateway.store.store import Store

HOOKS = frozenset({"suppressed", "route", "around_attempt"})  # whose failure ends an attempt
LOOK_EVERY = 1.0  # seconds

log = logging.getLogger(__name__)


class DeferredMail:
    """Looks after it. `queued` is called when something has become due."""

    def __init__(self, calls: Calls, store: Store, clock: Clock, queued: Callable[[], None]) -> None:
        self._calls, self._store, self._clock, self._queued = calls, store, clock, queued
        self._probed: dict[str, float] = {}  # when a message was last tried, by plugin
        self._position: dict[str, int] = {}  # the message that was

    async def serve(self) -> None:
        """For ever."""
        await self._guarded(self._release_all)
        failing: set[str] = set()
        while True:
            await trio.sleep(LOOK_EVERY)
            now_failing = {plugin for plugin, hook, tally in self._calls if hook in HOOKS and tally.in_a_row}
            for plugin in failing - now_failing:
                await self._guarded(partial(self._release, plugin))
            for plugin in now_failing & self._may_be_asked():
                await self._guarded(partial(self._probe, plugin))
            failing = now_failing

    def _may_be_asked(self) -> set[str]:
        now = trio.current_time()
        due = set()
        for plugin, hook, tally in self._calls:
            if hook in HOOKS and tally.in_a_row and self._probed.get(plugin, 0.0) < tally.again_at <= now:
                due.add(plugin)
                self._probed[plugin] = now
        return due

    async def _guarded(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except StoreError as exc:
            log.warning("mail that waits for a plugin is not looked for: %s", exc)

    async def _release_all(self) -> None:
        for plugin in await self._store.read(deferred.plugins):
            await self._release(plugin)

    async def _release(self, plugin: str) -> None:
        position = total = 0
        while ids := await self._store.read(
            partial(deferred.waiting, plugin=plugin, now=self._clock.now(), after=position)
        ):
            total += await self._store.write(partial(deferred.make_due, ids=ids, now=self._clock.now()))
            position = ids[-1]
            self._queued()
        if total:
            log.info("%d messages that waited for plugin %r are due again", total, plugin)

    async def _probe(self, plugin: str) -> None:
        now, position = self._clock.now(), self._position.get(plugin, 0)
        for after in (position, 0):  # begins again when it has come to the end
            look = partial(deferred.waiting, plugin=plugin, now=now, after=after, most=1)
            if ids := await self._store.read(look):
                self._position[plugin] = ids[0]
                await self._store.write(partial(deferred.make_due, ids=ids, now=now))
                self._queued()
                return
