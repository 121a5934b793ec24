"""Fills the queue of a gateway that does not run, through its own store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import sqlalchemy as sa
import trio

from benchmarks.progress import counted
from benchmarks.smtp_load import content
from gateway import Address
from gateway.clock import Clock
from gateway.store import holds, queue
from gateway.store.changes import STEP, NewMessages, NewRecipient
from gateway.store.content import StoredBytes
from gateway.store.store import Store


def fill(
    data_dir: Path,
    count: int,
    *,
    account: str,
    domains: Sequence[str],
    due_in: timedelta = timedelta(),
    hold: bool = False,
) -> None:
    """Queue `count` submissions of 1 kB and one recipient, in turn to each of `domains`."""
    trio.run(_fill, data_dir, count, account, domains, due_in, hold)


async def _fill(
    data_dir: Path, count: int, account: str, domains: Sequence[str], due_in: timedelta, hold: bool
) -> None:
    clock = Clock()
    async with Store.open(data_dir, clock) as store:
        for start in range(0, count, STEP):
            numbers = range(start, min(start + STEP, count))
            await store.write(partial(_queue, numbers, account, domains, clock.now(), due_in, hold))
            counted(numbers.stop, count)


def _queue(
    numbers: range,
    account: str,
    domains: Sequence[str],
    now: datetime,
    due_in: timedelta,
    hold: bool,
    conn: sa.Connection,
) -> None:
    _rules, generation = holds.snapshot(conn)
    for number in numbers:
        domain = domains[number % len(domains)]
        data = content(number)
        new = NewMessages(
            account=account,
            submission_id=f"{number:016x}",
            sender=Address(account, "localhost"),
            recipients=(NewRecipient(address=Address(f"u{number}", domain), destination=domain, hold=hold),),
            content=StoredBytes(len(data), data=data),
            message_id=f"<{number}@example.org>",
            subject=f"Message {number}",
            hold_generation=generation,
            not_before=now + due_in,
        )
        queue.add(conn, new, now)
