"""Removes what has been kept long enough: at start and hourly, in short transactions."""

from __future__ import annotations

import logging
from functools import partial
from typing import Never

import trio

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.store import cleanup
from gateway.store.store import Store

log = logging.getLogger(__name__)

EVERY = 3600.0  # seconds
STEPS = (
    cleanup.messages,
    cleanup.webhook_calls,
    cleanup.events,
    cleanup.suppressions,
    cleanup.counters,
    cleanup.idempotency_results,
    cleanup.tls_results,
)


async def clean_up(store: Store, clock: Clock) -> Never:
    """Clean up, for ever."""
    while True:
        try:
            await _all_steps(store, clock)
            await store.content.sweep()
        except StoreError as exc:
            log.warning("clean-up will be tried again in an hour: %s", exc)
        await trio.sleep(EVERY)


async def _all_steps(store: Store, clock: Clock) -> None:
    for step in STEPS:
        while True:
            removed = await store.write(partial(step, now=clock.now()))
            await store.content.unlink(removed.files)
            if not removed.more:
                break
            await trio.sleep(0.05)  # those who send come first
