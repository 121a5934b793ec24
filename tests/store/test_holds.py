from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from gateway.store import holds, listing, queue
from tests.store.sample import NOW, add, at, claim, database, recipient


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as conn:
        yield conn


def test_a_rule_is_in_force_before_it_is_applied(conn: sa.Connection) -> None:
    add(conn, "a@a.example", "b@b.example")
    rule = holds.add_rule(conn, NOW, recipient_domain="a.example")
    assert holds.unapplied(conn) == (rule,)
    assert [c.destination for c in claim(conn)] == ["b.example"]
    assert listing.count_held(conn) == 1


def test_it_is_applied_in_steps(conn: sa.Connection) -> None:
    add(conn, *(f"u{i}@a.example" for i in range(700)))
    add(conn, *(f"u{i}@a.example" for i in range(50)), account="other")
    rule = holds.add_rule(
        conn, NOW, account="shop", sender_domain="example.org", recipient_domain="a.example"
    )
    first = holds.apply_rule(conn, rule, "")
    assert first.affected == 500
    assert first.position is not None
    assert holds.unapplied(conn) == (rule,)
    second = holds.apply_rule(conn, rule, first.position)
    assert (second.affected, second.position) == (200, None)
    assert holds.unapplied(conn) == ()
    assert listing.count_held(conn) == 700
    assert len(claim(conn)) == 50


def test_a_rule_without_conditions_pauses_the_queue(conn: sa.Connection) -> None:
    add(conn, "a@a.example", "b@b.example", sender=None)
    rule = holds.add_rule(conn, NOW)
    assert claim(conn) == ()
    assert holds.apply_rule(conn, rule, "").position is None
    assert queue.next_due(conn) is None


def test_removing_a_rule_changes_no_message(conn: sa.Connection) -> None:
    rule = holds.add_rule(conn, NOW, account="shop")
    add(conn, recipient(hold=True), hold_generation=1)
    assert holds.remove_rule(conn, rule.id)
    assert listing.count_held(conn) == 1
    assert holds.snapshot(conn) == ((), 2)
    add(conn, hold_generation=2, now=at(1))
    assert len(claim(conn, at(1))) == 1
