"""A report that came back: the message with it, and what it says of messages that were sent, in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa

from gateway.errors import Stale
from gateway.store import received, settle
from gateway.store.changes import NewReceived, Report, Settled


def add(
    conn: sa.Connection, new: NewReceived, found: Sequence[Sequence[Report]], now: datetime
) -> tuple[tuple[int, ...], tuple[Settled, ...]]:
    """Stores a received message, and settles the messages that its copies are about; both kinds' IDs.

    `found`: for each copy what is recorded; its history names the copy. Of two copies about one message the
    first counts. Raises Stale if a message is gone, or as `settle.report` does.
    """
    ids = received.add(conn, new, now)
    settled: dict[int, Settled] = {}
    for row_id, copy, reports in zip(ids, new.copies, found, strict=True):
        for report in reports:
            if report.message_id in settled:
                continue
            where = f"(message {row_id} in {copy.mailbox})"
            one = settle.report(conn, replace(report, error=f"{report.error} {where}".strip()), now)
            if not one.applied:
                raise Stale(f"message {report.message_id} is gone")
            settled[report.message_id] = one
    return ids, tuple(settled.values())
