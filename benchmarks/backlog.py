"""Fills the queue of a gateway that does not run, through its own store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import sqlalchemy as sa
import trio

from benchmarks.smtp_load import content
from gateway import Address
from gateway.cli.localserve import ACCOUNT
from gateway.clock import Clock
from gateway.store import holds, queue
from gateway.store.changes import STEP, NewMessages, NewRecipient
from gateway.store.content import StoredBytes
from gateway.store.store import Store

SENDER = Address("u", "example.org")


def fill(data_dir: Path, count: int, *, domains: Sequence[str], due_in: timedelta = timedelta()) -> None:
    """Queue `count` submissions of 1 kB, from SENDER to one recipient, in turn to each of `domains`."""
    trio.run(_fill, data_dir, count, domains, due_in)


async def _fill(data_dir: Path, count: int, domains: Sequence[str], due_in: timedelta) -> None:
    clock = Clock()
    async with Store.open(data_dir, clock) as store:
        for start in range(0, count, STEP):
            numbers = range(start, min(start + STEP, count))
            await store.write(partial(_queue, numbers=numbers, domains=domains, clock=clock, due_in=due_in))


def _queue(
    conn: sa.Connection, numbers: range, domains: Sequence[str], clock: Clock, due_in: timedelta
) -> None:
    _rules, generation = holds.snapshot(conn)
    now = clock.now()
    for number in numbers:
        domain = domains[number % len(domains)]
        data = content(number)
        new = NewMessages(
            account=ACCOUNT,
            submission_id=f"{number:016x}",
            sender=SENDER,
            recipients=(NewRecipient(address=Address(f"u{number}", domain), destination=domain),),
            content=StoredBytes(len(data), data=data),
            message_id=f"<{number}@example.org>",
            subject=f"Message {number}",
            hold_generation=generation,
            not_before=now + due_in,
        )
        queue.add(conn, new, now)
