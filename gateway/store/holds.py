"""Hold rules, and the generation that submissions were decided with."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from gateway.errors import Stale
from gateway.model import HoldRule
from gateway.store import actions, facts
from gateway.store.changes import Step
from gateway.store.listing import Filter
from gateway.store.statements import Statement
from gateway.store.tables import hold_rule

_GENERATION = "hold_generation"
_ALL = sa.select(
    hold_rule.c.id, hold_rule.c.account, hold_rule.c.sender_domain, hold_rule.c.recipient_domain
).order_by(hold_rule.c.id)
_RULES = Statement(_ALL)
_UNAPPLIED = Statement(_ALL.where(~hold_rule.c.applied))


def snapshot(conn: sa.Connection) -> tuple[tuple[HoldRule, ...], int]:
    """The rules, and the generation to hand to `queue.add` with what they decided.

    The generation is read first: a rule that comes in between makes the decision stale, not wrong.
    """
    generation = int(facts.read(conn, _GENERATION) or 0)
    return _rules(conn, _RULES), generation


def check_generation(conn: sa.Connection, generation: int) -> None:
    """Raises Stale if rules were added or removed since; none will be before this transaction ends."""
    stored = facts.read_locked(conn, _GENERATION, "0", exclusive=False)
    if int(stored) != generation:
        raise Stale(f"hold rules are of generation {stored}, the decision is of {generation}")


def unapplied(conn: sa.Connection) -> tuple[HoldRule, ...]:
    """Rules that the queue may still hold matching messages of, not on hold yet: claims check them."""
    return _rules(conn, _UNAPPLIED)


def add_rule(
    conn: sa.Connection,
    now: datetime,
    *,
    account: str = "",
    sender_domain: str = "",
    recipient_domain: str = "",
) -> HoldRule:
    """In force once committed; `apply_rule` then holds what is queued already, step by step."""
    _bump(conn)
    row_id = conn.scalar(
        sa.insert(hold_rule).returning(hold_rule.c.id),
        {
            "account": account,
            "sender_domain": sender_domain,
            "recipient_domain": recipient_domain,
            "created": now,
            "applied": False,
        },
    )
    assert row_id is not None
    return HoldRule(
        id=row_id, account=account, sender_domain=sender_domain, recipient_domain=recipient_domain
    )


def apply_rule(conn: sa.Connection, rule: HoldRule, position: str) -> Step:
    """Holds the rule's messages among the next 500 that are queued; the last step marks it as applied."""
    matching = Filter(
        account=rule.account, sender_domain=rule.sender_domain, recipient_domain=rule.recipient_domain
    )
    step = actions.hold(conn, matching, position)
    if step.position is None:
        conn.execute(sa.update(hold_rule).where(hold_rule.c.id == rule.id).values(applied=True))
    return step


def remove_rule(conn: sa.Connection, rule_id: int) -> bool:
    """Changes no message; only what is decided from now on. False: there is no such rule."""
    _bump(conn)
    return conn.execute(sa.delete(hold_rule).where(hold_rule.c.id == rule_id)).rowcount == 1


def _bump(conn: sa.Connection) -> None:
    generation = int(facts.read_locked(conn, _GENERATION, "0", exclusive=True))
    facts.write(conn, _GENERATION, str(generation + 1))


def _rules(conn: sa.Connection, statement: Statement) -> tuple[HoldRule, ...]:
    return tuple(
        HoldRule(id=row[0], account=row[1], sender_domain=row[2], recipient_domain=row[3])
        for row in statement.all(conn)
    )
