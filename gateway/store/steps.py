"""Actions on all that match a filter run in many short transactions, so that everything else goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import sqlalchemy as sa

from gateway.store.changes import Step
from gateway.store.listing import Filter
from gateway.store.store import Store


async def run_steps(
    store: Store, step: Callable[[sa.Connection, str], Step], after_each: Callable[[], None] | None = None
) -> int:
    """Run `step(conn, position)` to its end; how many rows it changed. `after_each`: once each is durable.

    Raises StoreError; the steps before are done then.
    """
    return await run_filtered(
        store, Filter(), lambda conn, _wanted, position: step(conn, position), after_each
    )


async def run_filtered(
    store: Store,
    wanted: Filter,
    act: Callable[[sa.Connection, Filter, str], Step],
    after_each: Callable[[], None] | None = None,
) -> int:
    """The same for `act(conn, wanted, position)`: its filter's maximum is what the steps before have left."""
    changed, position = 0, ""
    while True:
        done = await store.write(partial(_one_step, act, remaining(wanted, changed), position))
        await store.content.unlink(done.files)
        changed += done.affected
        if after_each is not None:
            after_each()
        if done.position is None or changed == wanted.maximum:
            return changed
        position = done.position


def remaining(wanted: Filter, changed: int) -> Filter:
    """The filter for what is left to do when so many messages were changed."""
    return wanted if wanted.maximum is None else replace(wanted, maximum=wanted.maximum - changed)


def _one_step(
    act: Callable[[sa.Connection, Filter, str], Step], wanted: Filter, position: str, conn: sa.Connection
) -> Step:
    return act(conn, wanted, position)
