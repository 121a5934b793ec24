"""Messages that came in, and what they report on messages that were sent, in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from gateway.errors import Stale
from gateway.store import received, settle
from gateway.store.changes import NewReceived, Report, Settled


class Arrival(NamedTuple):
    """A message that came in.

    `found`: for each copy what it reports on messages that were sent; their history names the copy. Of two
    copies about one message the first counts.
    """

    new: NewReceived
    found: Sequence[Sequence[Report]]
    now: datetime


def add(conn: sa.Connection, arrived: Sequence[Arrival]) -> list[tuple[tuple[int, ...], tuple[Settled, ...]]]:
    """Stores what came in, and settles the messages that it is about; of each, the IDs of the copies and what
    was settled.

    Raises OverQuota as `received.add`, and Stale if a message is gone, or as `settle.report` does: for all.
    """
    ids = received.add_all(conn, [(one.new, one.now) for one in arrived])
    return [(row_ids, _settle(conn, one, row_ids)) for one, row_ids in zip(arrived, ids, strict=True)]


def _settle(conn: sa.Connection, arrived: Arrival, row_ids: Sequence[int]) -> tuple[Settled, ...]:
    settled: dict[int, Settled] = {}
    for row_id, copy, reports in zip(row_ids, arrived.new.copies, arrived.found, strict=True):
        for report in reports:
            if report.message_id in settled:
                continue
            where = f"(message {row_id} in {copy.mailbox})"
            error = f"{report.error} {where}".strip()
            one = settle.report(conn, replace(report, error=error), arrived.now)
            if not one.applied:
                raise Stale(f"message {report.message_id} is gone")
            settled[report.message_id] = one
    return tuple(settled.values())
