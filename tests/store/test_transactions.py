"""Which messages are claimed together, for one SMTP transaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.mail.address import Address
from gateway.store import actions, holds, queue, settle
from gateway.store.changes import Claim
from gateway.store.listing import Filter
from tests.store.sample import (
    NOW,
    add,
    at,
    claim,
    claim_transactions,
    database,
    delayed,
    delivered,
    later,
    plans,
    recipient,
    settle_one,
    submission,
)


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as connection:
        yield connection


def ids(conn: sa.Connection, **fields: Any) -> list[list[int]]:
    """The IDs of what is claimed, by transaction."""
    now = fields.pop("now", at(1))
    groups = claim_transactions(conn, now, **({"max_recipients": 100} | fields))
    return [[claimed.message.id for claimed in group] for group in groups]


def test_recipients_of_a_submission_at_one_domain_go_together(conn: sa.Connection) -> None:
    a = add(conn, "u1@a.example", "u2@a.example", "u@b.example", "u3@a.example")
    b = add(conn, "u1@a.example")
    assert ids(conn) == [[a[0], a[1], a[3]], [a[2]], [*b]]


def test_a_place_is_taken_by_a_transaction_not_by_its_recipients(conn: sa.Connection) -> None:
    many = add(conn, *(f"u{i}@a.example" for i in range(25)))
    wanted = Claim(owner="me", now=at(1), lease_seconds=60, room=2, per_destination=2, max_recipients=10)
    first = queue.claim(conn, wanted, later)
    assert [[c.message.id for c in group] for group in first.transactions] == [list(many[:10])]
    assert first.more  # there is a place left
    second = queue.claim(conn, wanted, later)
    assert [len(group) for group in second.transactions] == [10]
    third = queue.claim(conn, wanted, later)
    assert [len(group) for group in third.transactions] == [5]
    last = queue.claim(conn, wanted, later)
    assert (last.transactions, last.more, last.next_due) == ((), False, None)


def test_more_than_a_transaction_may_have_are_several(conn: sa.Connection) -> None:
    many = add(conn, *(f"u{i}@a.example" for i in range(7)))
    assert ids(conn, max_recipients=3, room=7) == [list(many[:3]), list(many[3:6]), [many[6]]]


@pytest.mark.parametrize(
    "other",
    [
        {"sender": Address("other", "example.org")},
        {"env_id": "another"},
        {"from_id": "x"},
        {"destination": "elsewhere"},
    ],
    ids=str,
)
def test_what_differs_goes_alone(conn: sa.Connection, other: dict[str, Any]) -> None:
    a, b, c = add(conn, recipient("u1@a.example"), recipient("u2@a.example", **other), "u3@a.example")
    assert ids(conn) == [[a, c], [b]]


def test_messages_with_from_ids_never_share(conn: sa.Connection) -> None:
    sender = Address("shop", "example.org")  # even if it were the same
    a, b = add(
        conn,
        recipient("u1@a.example", from_id="x", sender=sender),
        recipient("u2@a.example", from_id="y", sender=sender),
    )
    assert ids(conn) == [[a], [b]]


def test_attempt_transport_and_tls_must_be_the_same(conn: sa.Connection) -> None:
    a, b, c, d = add(conn, *(f"u{i}@a.example" for i in range(4)))
    (tried,) = claim(conn, at(1), room=1)
    assert tried.message.id == a
    settle_one(conn, delayed(tried, at(2)), at(2))
    actions.set_transport(conn, Filter(ids=(b,)), "other")
    actions.set_require_tls(conn, Filter(ids=(c,)), True)
    assert sorted(ids(conn, now=at(9))) == [[a], [b], [c], [d]]


def test_who_is_not_due_held_or_under_way_stays(conn: sa.Connection) -> None:
    _, b, c, d = add(conn, *(f"u{i}@a.example" for i in range(4)))
    claim(conn, at(1), room=1)
    actions.hold(conn, Filter(ids=(b,)))
    actions.schedule(conn, Filter(ids=(c,)), at=at(500))
    assert ids(conn, now=at(9)) == [[d]]


def test_a_new_rule_holds_siblings_too(conn: sa.Connection) -> None:
    add(conn, "u1@a.example", "u2@a.example")
    holds.add_rule(conn, NOW, recipient_domain="a.example")
    assert ids(conn, room=1) == []
    assert queue.next_due(conn) is None


def test_each_recipient_has_its_own_result(conn: sa.Connection) -> None:
    a, b = add(conn, "u1@a.example", "u2@a.example")
    ((one, two),) = claim_transactions(conn, at(1), max_recipients=10)
    assert (one.message.id, two.message.id) == (a, b)
    settled = settle.settle_all(conn, [([delivered(one), delayed(two, at(60))], at(2))])[0]
    assert [s.applied for s in settled] == [True, True]
    assert ids(conn, now=at(60)) == [[b]]


def test_siblings_are_found_by_their_index(conn: sa.Connection) -> None:
    add(conn, *(f"u{i}@a.example" for i in range(50)), *(f"u@b{i}.example" for i in range(50)))
    plan = plans(conn, lambda: claim_transactions(conn, at(1), room=3, max_recipients=10))
    assert "message_siblings" in plan
    assert "SCAN message" not in plan


def test_next_due_comes_with_the_claim(conn: sa.Connection) -> None:
    queue.add(conn, submission("u@a.example", not_before=at(50)), NOW)
    wanted = Claim(owner="me", now=at(1), lease_seconds=60, room=9, per_destination=9, max_recipients=9)
    assert queue.claim(conn, wanted, later).next_due == at(50)
