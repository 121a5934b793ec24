"""Batches of submissions, and the answers that are kept with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.errors import KeyUsed, Stale, SubmissionRefused
from gateway.store import holds, idempotency, limits, tables
from gateway.store.changes import NewCopy, NewReceived
from gateway.store.content import StoredBytes
from gateway.store.submissions import Added, Keep, Results, add_all
from tests.store.sample import NOW, count, database, messages_in, recipient, submission


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as conn:
        yield conn


def keep(key: str = "k", digest: bytes = b"digest") -> Keep:
    def answer(results: Results) -> Mapping[str, Any] | None:
        ids = [added.ids for added in results if isinstance(added, Added)]
        return {"IDs": ids} if ids else None

    return Keep("shop", key, digest, answer)


def test_each_by_itself(conn: sa.Connection) -> None:
    batch = [
        submission("a@a.example", recipient("b@a.example", from_id="f1")),
        submission("a@a.example", recipient("b@a.example", from_id="f1")),
        submission(*[f"u{i}@a.example" for i in range(9)], max_messages=10),
        submission("z@a.example", max_messages=3),
    ]
    first, second, third, fourth = add_all(conn, [[new] for new in batch], NOW, each=True)
    assert isinstance(first, Added)
    assert isinstance(fourth, Added)
    assert isinstance(second, SubmissionRefused)
    assert isinstance(third, SubmissionRefused)
    assert (second.code, third.code) == ("user", "messageLimitReached")
    assert len(first.ids) == 2
    # What was refused left nothing behind: no rows, no content, no counts.
    assert count(conn, tables.message) == 3
    assert count(conn, tables.content) == 2
    assert limits.sums(conn, "shop", NOW) == (3, 3)


def test_all_or_none(conn: sa.Connection) -> None:
    refused = submission(*[f"u{i}@a.example" for i in range(9)], max_messages=8)
    with pytest.raises(SubmissionRefused, match="8 messages in 24 hours"):
        add_all(conn, [[submission()], [refused]], NOW, each=False, keep=keep())
    assert idempotency.get(conn, "shop", "k", NOW) is None


@pytest.mark.parametrize("each", [True, False])
def test_the_answer_is_kept(conn: sa.Connection, each: bool) -> None:
    [added] = add_all(conn, [[submission()]], NOW, each=each, keep=keep())
    assert isinstance(added, Added)
    assert idempotency.get(conn, "shop", "k", NOW) == idempotency.Kept(b"digest", {"IDs": [[added.ids[0]]]})
    with pytest.raises(KeyUsed):
        add_all(conn, [[submission()]], NOW, each=each, keep=keep(digest=b"other"))


def test_nothing_queued_nothing_kept(conn: sa.Connection) -> None:
    refused = submission("a@a.example", "b@a.example", max_messages=1)
    add_all(conn, [[refused]], NOW, each=True, keep=keep())
    assert idempotency.get(conn, "shop", "k", NOW) is None


def test_changed_hold_rules_stop_the_whole_batch(conn: sa.Connection) -> None:
    holds.add_rule(conn, NOW)
    with pytest.raises(Stale) as stale:
        add_all(conn, [[submission()]], NOW, each=True)
    assert not isinstance(stale.value, KeyUsed)


def test_no_room_for_the_sent_copy(conn: sa.Connection) -> None:
    """The message is queued; only the copy is not kept."""
    place = NewCopy(account="shop", mailbox="Sent", quota=5)
    copy = NewReceived(content=StoredBytes(3, data=b"bcc"), copies=(place,))
    new = submission(sent_copy=copy)
    results = add_all(conn, [[new], [replace(new, submission_id="sub2")]], NOW, each=True)
    assert [isinstance(r, Added) and r.over_quota for r in results] == [False, True]
    assert len(messages_in(conn, "shop", "Sent")) == 1
    assert count(conn, tables.message) == 2
