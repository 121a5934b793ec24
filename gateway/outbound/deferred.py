"""Mail that waits because a plugin failed is tried again as soon as the plugin answers again.

At the start, all of it: whoever repairs a plugin starts the gateway again. Later, when a plugin has answered
after failures. So that this is found out even when no other mail is under way, one message is tried now and
then; but one with few attempts only, as no message may be given up for that.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from gateway.clock import Clock
from gateway.errors import PluginError, StoreError
from gateway.hookcalls import Calls
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

    async def serve(self) -> None:
        """For ever."""
        await self._guarded(self._release, PluginError.beginning())
        failing: set[str] = set()
        while True:
            await trio.sleep(LOOK_EVERY)
            now_failing = {plugin for plugin, hook, tally in self._calls if hook in HOOKS and tally.in_a_row}
            for plugin in failing - now_failing:
                await self._guarded(self._release, PluginError.beginning(plugin))
            for plugin in now_failing & self._may_be_asked():
                await self._guarded(self._probe, PluginError.beginning(plugin))
            failing = now_failing

    def _may_be_asked(self) -> set[str]:
        now = trio.current_time()
        due = set()
        for plugin, hook, tally in self._calls:
            if hook in HOOKS and tally.in_a_row and self._probed.get(plugin, 0.0) < tally.again_at <= now:
                due.add(plugin)
                self._probed[plugin] = now
        return due

    async def _guarded(self, step: Callable[[str], Awaitable[None]], prefix: str) -> None:
        try:
            await step(prefix)
        except StoreError as exc:
            log.warning("mail that waits for a plugin is not looked for: %s", exc)

    async def _release(self, prefix: str) -> None:
        position = total = 0
        while ids := await self._store.read(
            partial(deferred.waiting, prefix=prefix, now=self._clock.now(), after=position)
        ):
            total += await self._store.write(partial(deferred.make_due, ids=ids, now=self._clock.now()))
            position = ids[-1]
            self._queued()
        if total:
            log.info("%d messages that waited for a plugin are due again", total)

    async def _probe(self, prefix: str) -> None:
        now = self._clock.now()
        ids = await self._store.read(partial(deferred.waiting, prefix=prefix, now=now, probe=True))
        if ids:
            await self._store.write(partial(deferred.make_due, ids=ids, now=now))
            self._queued()
