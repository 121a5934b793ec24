"""The queue's whole life, in any order, against a model that is simple enough to believe."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.errors import Stale, SubmissionRefused
from gateway.model import Event, HoldRule
from gateway.store import actions, deferred, events, holds, queue, tables
from gateway.store.changes import Claimed, Ending, Reschedule, Settlement
from gateway.store.listing import Filter
from tests.store.sample import (
    KEEP,
    NOW,
    add,
    claim,
    count,
    database,
    delayed,
    delivered,
    failed,
    recipient,
    settle_one,
)

LEASE = 60  # seconds
DOMAINS = ("a.example", "b.example", "c.example")
ACCOUNTS = ("shop", "news")
PLUGINS = ("one", "two")
RESULTS = ("delivered", "failed", "delayed", *PLUGINS)  # a plugin's name: it failed, and the message waits


@dataclass
class Expected:
    """What the model knows of a message."""

    account: str
    domain: str
    hold: bool
    due: datetime
    attempts: int = 0  # those that count
    claims: int = 0
    lease: int = 0  # the token of the lease that is held; 0 for none
    expires: datetime = NOW
    started: datetime = NOW
    waits_for: str = ""
    waits_since: datetime | None = None
    retired_as: str = ""
    events: list[str] = field(default_factory=list)

    @property
    def queued(self) -> bool:
        return not self.retired_as


class QueueLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.database = database()
        self.conn = self.database.__enter__()
        self.now = NOW
        self.owner = 1
        self.serial = 0
        self.messages: dict[int, Expected] = {}
        self.leases: dict[int, Claimed] = {}  # of the owner that runs now, by message
        self.lost: list[Claimed] = []  # leases whose owner went on after losing them
        self.hold_rules: list[HoldRule] = []
        self.applying: dict[int, str] = {}  # rule ID -> position
        self.all_events: list[tuple[int, str]] = []

    def teardown(self) -> None:
        self.database.__exit__(None, None, None)

    # --- What happens ---

    @rule(
        account=st.sampled_from(ACCOUNTS),
        domains=st.lists(st.sampled_from(DOMAINS), min_size=1, max_size=4),
        delay=st.sampled_from((0, 0, 100)),
        stale=st.booleans(),
        from_id=st.sampled_from(("", "", "one", "two")),
    )
    def add(self, account: str, domains: list[str], delay: int, stale: bool, from_id: str) -> None:
        rules, generation = holds.snapshot(self.conn)
        hold = [any(rule.matches(account, "example.org", domain) for rule in rules) for domain in domains]
        recipients = [
            recipient(f"u@{domain}", hold=held, from_id=from_id if n == 0 else "")
            for n, (domain, held) in enumerate(zip(domains, hold, strict=True))
        ]
        due = self.now + timedelta(seconds=delay)
        taken = from_id and count(self.conn, tables.message, tables.message.c.from_id == from_id)
        savepoint = self.conn.begin_nested()
        try:
            ids = add(
                self.conn,
                *recipients,
                account=account,
                not_before=due,
                hold_generation=generation - stale,
                now=self.now,
            )
        except (Stale, SubmissionRefused):
            assert stale or taken
            savepoint.rollback()
            return
        assert not stale
        assert not taken
        savepoint.commit()
        assert not set(ids) & set(self.messages)
        for message_id, domain, held in zip(ids, domains, hold, strict=True):
            self.messages[message_id] = Expected(account, domain, held, due)

    @rule(room=st.integers(1, 5), per_destination=st.integers(1, 3))
    def claim(self, room: int, per_destination: int) -> None:
        busy: dict[str, int] = {}
        for lease in self.leases.values():
            busy[lease.destination] = busy.get(lease.destination, 0) + 1
        before = dict(busy)
        claimed = claim(
            self.conn,
            self.now,
            owner=str(self.owner),
            lease_seconds=LEASE,
            room=room,
            per_destination=per_destination,
            busy=busy,
        )
        # Rules that are not applied yet hold what a claim meets.
        met = self.held_in_store() - {i for i, m in self.messages.items() if m.hold}
        unapplied = [rule for rule in self.hold_rules if rule.id in self.applying]
        for message_id in met:
            message = self.messages[message_id]
            assert any(r.matches(message.account, "example.org", message.domain) for r in unapplied)
            message.hold = True
        assert len(claimed) <= room
        for found in claimed:
            message = self.messages[found.message.id]
            assert message.queued, "a retired message was claimed"
            assert not message.hold
            assert not message.lease, "claimed twice at a time"
            assert message.due <= self.now
            assert not any(r.matches(message.account, "example.org", message.domain) for r in unapplied)
            busy[found.destination] = busy.get(found.destination, 0) + 1
            message.attempts += 1
            message.claims += 1
            message.lease, message.started = found.token, self.now
            message.expires = self.now + timedelta(seconds=LEASE)
            assert found.message.attempts == message.attempts
            assert found.waits_since == message.waits_since
            assert found.content.data is not None
            self.leases[found.message.id] = found
        assert all(busy[d] <= max(per_destination, before.get(d, 0)) for d in busy)
        if not met and len(claimed) < room:
            for message_id, message in self.messages.items():
                ready = message.queued and not message.hold and not message.lease and message.due <= self.now
                if ready:
                    assert busy.get(message.domain, 0) >= per_destination, f"{message_id} was left"

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), result=st.sampled_from(RESULTS))
    def settle(self, data: st.DataObject, result: str) -> None:
        lease = self.leases.pop(data.draw(st.sampled_from(sorted(self.leases))))
        message = self.messages[lease.message.id]
        mine = message.queued and message.lease == lease.token
        assert self.apply(lease, result, message) is mine

    @precondition(lambda self: self.lost)
    @rule(data=st.data(), result=st.sampled_from(RESULTS))
    def settle_late(self, data: st.DataObject, result: str) -> None:
        # The worst case, if there is one: another owner is at it again.
        again = [lease for lease in self.lost if self.messages[lease.message.id].lease]
        self.late(data.draw(st.sampled_from(again or self.lost)), result)

    def late(self, lease: Claimed, result: str) -> None:
        before = self.rows()
        assert not self.apply(lease, result, self.messages[lease.message.id])
        assert self.rows() == before, "a late result changed something"

    def apply(self, lease: Claimed, result: str, message: Expected) -> bool:
        due = self.now + timedelta(seconds=200)
        applied = settle_one(self.conn, self.change(lease, result, due), self.now).applied
        if applied:
            assert message.lease == lease.token
            message.lease = 0
            if result in PLUGINS:
                message.due, message.waits_for = due, result
                message.waits_since = lease.waits_since or self.now
                message.attempts -= 1
                return True
            message.waits_for = ""
            message.events.append(result)
            self.all_events.append((lease.message.id, result))
            if result == "delayed":
                message.due, message.waits_since = due, None
            else:
                message.retired_as = result
                message.hold = False
        return applied

    def change(self, lease: Claimed, result: str, due: datetime) -> Settlement:
        if result == "delivered":
            return delivered(lease)
        if result == "failed":
            return failed(lease)
        if result == "delayed":
            return delayed(lease, due)
        waiting = Reschedule(
            next_attempt=due, counted=False, waits_for=result, waits_since=lease.waits_since or self.now
        )
        return replace(delayed(lease, due), then=waiting, event=None)

    @rule(plugin=st.sampled_from(PLUGINS), most=st.sampled_from((1, 100)))
    def a_plugin_answers_again(self, plugin: str, most: int) -> None:
        """What waits for it is due, but for what is on hold or under way."""
        ids = deferred.waiting(self.conn, plugin, self.now, most=most)
        expected = [
            i
            for i, m in self.messages.items()
            if m.queued and m.waits_for == plugin and not m.hold and not m.lease and m.due > self.now
        ]
        assert ids == sorted(expected)[:most]
        assert deferred.make_due(self.conn, ids, self.now) == len(ids)
        for message_id in ids:
            self.messages[message_id].due = self.now

    @rule(seconds=st.sampled_from((1, 29, 61, 200)))
    def time_goes_by(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(seconds=st.sampled_from((0, 31)))
    def crash(self, seconds: int) -> None:
        """Another process takes over; what the old one still finishes comes late."""
        self.owner += 1
        self.lost += self.leases.values()
        self.leases.clear()
        dead = queue.lease_owners(self.conn) - {str(self.owner)}
        self.recovered(
            queue.recover(self.conn, dead, self.now), {i for i, m in self.messages.items() if m.lease}
        )
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.leases)
    @rule(result=st.sampled_from(RESULTS))
    def the_dead_comes_back(self, result: str) -> None:
        """The one danger that chance finds too seldom: the old owner answers while a new one is at it."""
        self.crash(31)
        self.claim(5, 3)
        for lease in self.lost:
            if self.messages[lease.message.id].lease:
                self.late(lease, result)

    @rule()
    def recover_expired(self) -> None:
        expired = {i for i, m in self.messages.items() if m.lease and m.expires <= self.now}
        self.lost += [self.leases.pop(i) for i in sorted(expired & set(self.leases))]
        self.recovered(queue.recover(self.conn, [], self.now), expired)

    def recovered(self, number: int, expected: set[int]) -> None:
        assert number == len(expected)
        for message_id in expected:
            message = self.messages[message_id]
            message.lease = 0
            message.due = message.started + timedelta(seconds=30)

    @rule(
        account=st.sampled_from(("", *ACCOUNTS)),
        domain=st.sampled_from(("", *DOMAINS)),
        at_once=st.booleans(),
    )
    def add_rule(self, account: str, domain: str, at_once: bool) -> None:
        if len(self.hold_rules) < 2:
            new = holds.add_rule(self.conn, self.now, account=account, recipient_domain=domain)
            self.hold_rules.append(new)
            self.applying[new.id] = ""
            if at_once:
                self.claim(5, 3)

    @precondition(lambda self: self.applying)
    @rule(data=st.data())
    def apply_rule(self, data: st.DataObject) -> None:
        rule_id = data.draw(st.sampled_from(sorted(self.applying)))
        (applied,) = [r for r in self.hold_rules if r.id == rule_id]
        step = holds.apply_rule(self.conn, applied, self.applying[rule_id])
        assert step.position is None  # fewer than 500
        del self.applying[rule_id]
        for message in self.messages.values():
            if message.queued and applied.matches(message.account, "example.org", message.domain):
                message.hold = True

    @precondition(lambda self: self.hold_rules)
    @rule(data=st.data())
    def remove_rule(self, data: st.DataObject) -> None:
        gone = self.hold_rules.pop(data.draw(st.integers(0, len(self.hold_rules) - 1)))
        self.applying.pop(gone.id, None)
        assert holds.remove_rule(self.conn, gone.id)

    @rule(
        hold=st.booleans(), account=st.sampled_from(("", *ACCOUNTS)), to=st.sampled_from(("", "a.ex", "B.EX"))
    )
    def hold_or_release(self, hold: bool, account: str, to: str) -> None:
        matching = [m for m in self.matching(account, to).values() if m.hold is not hold]
        act = actions.hold if hold else actions.release
        assert act(self.conn, Filter(account=account, to=to)).affected == len(matching)
        for message in matching:
            message.hold = hold

    @rule(account=st.sampled_from(ACCOUNTS), to=st.sampled_from(("a.ex", "B.EX")))
    def cancel(self, account: str, to: str) -> None:
        matching = self.matching(account, to)
        ending = Ending(keep_until=KEEP + timedelta(days=99), event_keep_until=KEEP + timedelta(days=99))
        step = actions.cancel(
            self.conn, Filter(account=account, to=to), lambda _: ending, "canceled", self.now
        )
        assert step.affected == len(matching)
        for message in matching.values():
            message.retired_as, message.hold, message.lease = "canceled", False, 0
            message.waits_for = ""
            message.events.append("canceled")
        told = [e.queue_msg_id for e in self.stored_events()[len(self.all_events) :]]
        assert sorted(told) == sorted(matching)
        self.all_events += [(message_id, "canceled") for message_id in told]

    def matching(self, account: str, to: str) -> dict[int, Expected]:
        return {
            i: m
            for i, m in self.messages.items()
            if m.queued and account in ("", m.account) and to.lower() in f"u@{m.domain}"
        }

    # --- What always holds ---

    @invariant()
    def nothing_is_lost(self) -> None:
        rows = self.conn.execute(sa.select(tables.message)).all()
        assert {row.id for row in rows} == set(self.messages)
        for row in rows:
            message = self.messages[row.id]
            assert row.state == ("queued" if message.queued else "retired")
            assert row.retired_as == message.retired_as
            assert row.hold == message.hold
            assert row.attempts == message.attempts
            assert row.waits_for == message.waits_for
            assert (row.lease_token if row.lease_owner else 0) == message.lease
            assert row.success == {"": None, "delivered": True}.get(row.retired_as, False)
            if message.queued:
                assert message.lease or row.next_attempt == message.due
                assert row.content_id is not None
            else:
                assert row.content_id is None

    @invariant()
    def content_is_there_as_long_as_it_is_needed(self) -> None:
        needed = self.conn.scalars(
            sa.select(tables.message.c.content_id).where(tables.message.c.content_id.is_not(None)).distinct()
        )
        assert sorted(self.conn.scalars(sa.select(tables.content.c.id))) == sorted(needed)

    @invariant()
    def events_are_what_happened(self) -> None:
        assert [(e.queue_msg_id, e.name) for e in self.stored_events()] == self.all_events
        for message in self.messages.values():
            ends = [name for name in message.events if name != "delayed"]
            assert ends == ([message.retired_as] if message.retired_as else [])

    @invariant()
    def every_claim_has_its_attempt(self) -> None:
        rows = self.conn.execute(
            sa.select(
                tables.attempt.c.message_id, tables.attempt.c.state, tables.attempt.c.lease_token
            ).where(tables.attempt.c.number > 0)
        ).all()
        for message_id, message in self.messages.items():
            mine = [row for row in rows if row.message_id == message_id]
            assert len(mine) == message.claims
            under_way = [row.lease_token for row in mine if row.state == "delivering"]
            if message.lease:
                assert under_way == [message.lease]
            elif message.retired_as != "canceled":
                assert under_way == []

    @invariant()
    def next_due_is_the_earliest(self) -> None:
        ready = [m.due for m in self.messages.values() if m.queued and not m.hold and not m.lease]
        assert queue.next_due(self.conn) == (min(ready) if ready else None)

    @invariant()
    def one_call_waits_for_each_message(self) -> None:
        waiting = self.conn.scalars(
            sa.select(tables.webhook_call.c.queue_msg_id).where(tables.webhook_call.c.state == "queued")
        ).all()
        assert len(waiting) == len(set(waiting))

    def held_in_store(self) -> set[int]:
        return set(self.conn.scalars(sa.select(tables.message.c.id).where(tables.message.c.hold)))

    def stored_events(self) -> list[Event]:
        return [e for e in events.after(self.conn, 0, 100_000) if isinstance(e, Event)]

    def rows(self) -> list[object]:
        """All but the attempts."""
        changing = (tables.message, tables.event, tables.webhook_call, tables.content, tables.suppression)
        return [self.conn.execute(sa.select(table).order_by(table.c.id)).all() for table in changing]


QueueLife.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

TestQueueLife = QueueLife.TestCase
