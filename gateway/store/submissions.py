"""Submissions on their way into the queue: a batch of them in one transaction, and the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from gateway.errors import OverQuota, SubmissionRefused
from gateway.store import idempotency, queue, received
from gateway.store.changes import NewMessages
from gateway.store.statements import Statement

T = TypeVar("T")

# Plain SQL, as in the writer.
_SAVEPOINT, _RELEASE, _ROLLBACK = (
    Statement(sa.text(sql))
    for sql in ("SAVEPOINT submission", "RELEASE SAVEPOINT submission", "ROLLBACK TO SAVEPOINT submission")
)


@dataclass(frozen=True, slots=True)
class Added:
    """A message that is queued, with all of its copies. `over_quota`: but not all was kept in Sent, for want
    of room."""

    ids: tuple[int, ...]  # of its messages, in the order of the recipients
    over_quota: bool = False


Results = tuple[Added | SubmissionRefused, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep what the call is answered, for when it comes again. `answer` makes that of the results: quickly,
    without side effects, for it may be asked twice. None: nothing was queued, so nothing is kept."""

    account: str
    key: str
    digest: bytes
    answer: Callable[[Results], Mapping[str, Any] | None]


def add_all(
    conn: sa.Connection,
    batch: Sequence[Sequence[NewMessages]],
    now: datetime,
    *,
    each: bool,
    keep: Keep | None = None,
) -> Results:
    """Queues the messages; with `each`, those that can be, by themselves, otherwise all or none. A message is
    one submission, or several where it differs for each recipient, which belong together.

    Raises Stale (hold rules changed), KeyUsed, and without `each` SubmissionRefused.
    """
    results = _add_each(conn, batch, now) if each else tuple(_add_all(conn, batch, now))
    answer = None if keep is None else keep.answer(results)
    if keep is not None and answer is not None:
        idempotency.put(conn, keep.account, keep.key, idempotency.Kept(keep.digest, answer), now)
    return results


def _add_each(conn: sa.Connection, batch: Sequence[Sequence[NewMessages]], now: datetime) -> Results:
    """Nearly always all can be added. Only if not, each has a savepoint of its own, for a tenth more."""
    added = _tried(conn, lambda: _add_all(conn, batch, now))
    if not isinstance(added, SubmissionRefused):
        return tuple(added)
    return tuple(_tried(conn, lambda: _add_all(conn, (together,), now)[0]) for together in batch)  # noqa: B023 - called at once


def _tried(conn: sa.Connection, add: Callable[[], T]) -> T | SubmissionRefused:
    """What was added, or why nothing was."""
    _SAVEPOINT.run(conn)
    try:
        added = add()
    except SubmissionRefused as refused:
        _ROLLBACK.run(conn)
        _RELEASE.run(conn)
        return refused
    _RELEASE.run(conn)
    return added


def _add_all(conn: sa.Connection, batch: Sequence[Sequence[NewMessages]], now: datetime) -> list[Added]:
    queue.admit(conn, [new for together in batch for new in together], now)
    return [_add(conn, together, now) for together in batch]


def _add(conn: sa.Connection, together: Sequence[NewMessages], now: datetime) -> Added:
    ids: list[int] = []
    over_quota = False
    for new in together:
        ids += queue.add_admitted(conn, new, now)
        if new.sent_copy is not None:
            try:
                received.add(conn, new.sent_copy, now)
            except OverQuota:  # raised before anything of the copy was written
                over_quota = True
    return Added(tuple(ids), over_quota)
