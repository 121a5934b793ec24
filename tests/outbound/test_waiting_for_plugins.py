"""Mail that waits because a plugin failed: how long, how often it is tried, how it is found."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from gateway.model import GiveUp, Outcome, Result, RetryAt
from gateway.outbound.settle import decide
from gateway.store import deferred, queue, tables
from gateway.store.changes import Claimed, Reschedule, Retire, Settlement
from tests.store.sample import add, at, claim, database, plans, settle_one

MINUTE, DAY = 60.0, 86400.0
FAILED = Outcome(result=Result.TEMPORARY, error="plugin 'p', hook 'route': raised", counts=False)


def decided(
    claimed: Claimed, seconds: float, outcome: Outcome = FAILED, *, plugin: str = "p", give_up: bool = False
) -> Settlement:
    """What follows, at a time, when the stage `retry` says ten seconds."""
    retry = GiveUp("enough") if give_up else RetryAt(at(seconds + 10))
    return decide(
        claimed,
        outcome,
        retry,
        None,
        suppressed=False,
        waits_for=plugin,
        transport="",
        duration=1.0,
        now=at(seconds),
    )


def one(conn: sa.Connection, seconds: float = 0.0) -> Claimed:
    [claimed] = claim(conn, at(seconds))
    return claimed


def test_pauses_grow_with_the_wait_to_four_hours_and_end_after_five_days() -> None:
    with database() as conn:
        add(conn)
        now, tries = 0.0, 0
        pauses = []
        while True:
            claimed = one(conn, now)
            assert claimed.message.attempts == 1  # none of those before was counted
            change = decided(claimed, now)
            settle_one(conn, change, at(now))
            if isinstance(change.then, Retire):
                break
            tries += 1
            pauses.append((change.then.next_attempt - at(now)).total_seconds())
            now += pauses[-1]
    assert pauses[:4] == [10, 10, 20, 40]
    assert max(pauses) == pauses[-1] == 4 * 60 * MINUTE
    assert 5 * DAY < now <= 5 * DAY + pauses[-1]
    assert tries < 50
    assert change.event is not None
    assert (change.event.name, change.event.error) == (
        "failed",
        "plugin 'p', hook 'route': raised (given up after 5 days)",
    )


def test_the_stage_retry_can_wait_longer_and_give_up_earlier() -> None:
    with database() as conn:
        add(conn)
        claimed = one(conn)
    later = replace(claimed, waits_since=at(-5))
    change = decided(later, 0.0)
    assert isinstance(change.then, Reschedule)
    assert change.then.next_attempt == at(10)  # which is later than the five seconds that it has waited
    assert isinstance(decided(later, 0.0, give_up=True).then, Retire)


def test_an_attempt_that_came_to_something_ends_the_wait() -> None:
    with database() as conn:
        add(conn)
        settle_one(conn, decided(one(conn), 0), at(0))
        again = one(conn, 10)
        assert again.waits_since == at(0)
        # Another plugin's failure does not begin it anew.
        change = decided(again, 10, plugin="q")
        assert isinstance(change.then, Reschedule)
        assert (change.then.waits_for, change.then.waits_since) == ("q", at(0))
        answered = Outcome.temporary("try later", code=451)
        settle_one(conn, decided(again, 10, answered, plugin=""), at(10))
        assert deferred.plugins(conn) == []
        assert one(conn, 20).waits_since is None


def test_it_is_found_by_its_plugin_and_made_due() -> None:
    with database() as conn:
        first, second, other, _, held = (add(conn, f"u{n}@example.net")[0] for n in range(5))
        for claimed in claim(conn, at(0)):
            plugin = {other: "q", first: "p", second: "p", held: "p"}.get(claimed.message.id, "")
            change = decided(claimed, 0, replace(FAILED, counts=plugin == ""), plugin=plugin)
            settle_one(conn, change, at(0))
        conn.execute(sa.update(tables.message).where(tables.message.c.id == held).values(hold=True))
        assert deferred.waiting(conn, "p", at(1)) == [first, second]
        assert deferred.waiting(conn, "p", at(1), after=first, most=1) == [second]
        assert set(deferred.plugins(conn)) == {"p", "q"}
        used = plans(conn, lambda: deferred.waiting(conn, "p", at(1)))
        assert (
            "message_waiting (waits_for=? AND rowid>?)" in used
            or "message_waiting (waits_for=? AND id>?)" in used
        )
        assert "COVERING INDEX message_waiting" in plans(conn, lambda: deferred.plugins(conn))
        # One that is under way, or was dealt with since, stays as it is.
        assert deferred.make_due(conn, [first, second], at(1)) == 2
        assert deferred.make_due(conn, [first, second], at(1)) == 0
        assert {claimed.message.id for claimed in claim(conn, at(1))} == {first, second}
        assert queue.next_due(conn) == at(10)
