"""Actions on all that match a filter run in many short transactions, so that everything else goes on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import sqlalchemy as sa

from gateway.store.changes import Step
from gateway.store.store import Store


async def run_steps(
    store: Store, step: Callable[[sa.Connection, str], Step], after_each: Callable[[], None] | None = None
) -> int:
    """Run `step(conn, position)` to its end; how many rows it changed. `after_each`: once each is durable.

    Raises StoreError; the steps before are done then.
    """
    changed, position = 0, ""
    while True:
        done = await store.write(partial(_one_step, step, position))
        await store.content.unlink(done.files)
        changed += done.affected
        if after_each is not None:
            after_each()
        if done.position is None:
            return changed
        position = done.position


def _one_step(step: Callable[[sa.Connection, str], Step], position: str, conn: sa.Connection) -> Step:
    return step(conn, position)
