from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.errors import Stale, SubmissionRefused
from gateway.mail.address import Address
from gateway.model import Event
from gateway.store import (
    actions,
    cleanup,
    events,
    holds,
    listing,
    queue,
    received,
    settle,
    submissions,
    tables,
)
from gateway.store.changes import (
    Claim,
    Ending,
    EventDraft,
    NewCopy,
    NewReceived,
    Report,
    Reschedule,
    Retire,
    Standing,
    Suppress,
)
from gateway.store.content import StoredBytes, release_content
from gateway.store.listing import Filter
from tests.store.sample import (
    DATA,
    HOOK,
    KEEP,
    NOW,
    add,
    at,
    claim,
    count,
    database,
    delayed,
    delivered,
    failed,
    later,
    messages_in,
    plans,
    recipient,
    settle_one,
    submission,
)

GONE = Retire(retired_as="delivered", success=True, keep_until=None)


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as conn:
        yield conn


def item(conn: sa.Connection, message_id: int) -> listing.Item:
    found = listing.get(conn, message_id)
    assert found is not None
    return found[0]


def attempts(conn: sa.Connection, message_id: int) -> list[tuple[int, str, str]]:
    found = listing.get(conn, message_id)
    assert found is not None
    return [(a.number, a.state, a.error) for a in found[1]]


# --- add ------------------------------------------------------------------------------------------


def test_recipients_share_content_and_base_id_in_order(conn: sa.Connection) -> None:
    first, second, third = add(conn, "b@b.example", "a@a.example", "c@b.example", extra={"k": "v"})
    assert first < second < third
    messages = [item(conn, i).message for i in (first, second, third)]
    assert [str(m.recipient) for m in messages] == ["b@b.example", "a@a.example", "c@b.example"]
    assert {m.base_id for m in messages} == {first}
    assert messages[0].extra == {"k": "v"}
    assert messages[0].sender == Address("shop", "example.org")
    assert count(conn, tables.content) == 1
    content = listing.content_of(conn, second)
    assert content is not None
    assert (content.size, content.data) == (len(DATA), DATA)


def test_many_recipients_keep_their_order(conn: sa.Connection) -> None:
    names = [f"u{(i * 7919) % 1000}@example.net" for i in range(1000)]
    ids = add(conn, *names)
    assert len(set(ids)) == 1000
    stored = {row.id: row.recipient_localpart for row in conn.execute(sa.select(tables.message))}
    assert [f"{stored[i]}@example.net" for i in ids] == names


def test_one_recipient_has_no_base_id_and_the_null_sender_is_none(conn: sa.Connection) -> None:
    (only,) = add(conn, sender=None, not_before=at(3600))
    message = item(conn, only).message
    assert message.base_id == 0
    assert message.sender is None
    assert message.next_attempt == at(3600)
    assert claim(conn, at(3599)) == ()
    assert [c.message.id for c in claim(conn, at(3600))] == [only]


def test_ids_never_come_back(conn: sa.Connection) -> None:
    (first,) = add(conn)
    settle_one(
        conn,
        delivered(claim(conn)[0], then=GONE),
        NOW,
    )
    assert listing.get(conn, first) is None
    assert add(conn)[0] > first


def test_from_ids_are_unique_over_queued_and_retired(conn: sa.Connection) -> None:
    add(conn, recipient(from_id="f1"))
    with pytest.raises(SubmissionRefused, match="'f1' is in use") as refused:
        add(conn, recipient(from_id="f2"), recipient("x@example.net", from_id="f1"))
    assert refused.value.code == "user"
    settle_one(conn, delivered(claim(conn)[0]), NOW)
    with pytest.raises(SubmissionRefused, match="in use"):
        add(conn, recipient(from_id="f1"))
    with pytest.raises(SubmissionRefused, match="two recipients"):
        add(conn, recipient(from_id="f3"), recipient("x@example.net", from_id="f3"))
    assert count(conn, tables.message) == 1


def test_the_unique_index_has_the_last_word_on_from_ids(
    conn: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(conn, recipient(from_id="f1"))
    monkeypatch.setattr(queue, "_check_from_ids", lambda conn, from_ids: None)
    with pytest.raises(SubmissionRefused, match="FromID"):
        add(conn, recipient(from_id="f1"))


def test_a_decision_on_older_hold_rules_is_stale(conn: sa.Connection) -> None:
    rule = holds.add_rule(conn, NOW, account="shop")
    with pytest.raises(Stale, match="generation 1"):
        add(conn)
    assert holds.snapshot(conn) == ((rule,), 1)
    add(conn, recipient(hold=True), hold_generation=1)
    assert holds.remove_rule(conn, rule.id)
    with pytest.raises(Stale):
        add(conn, hold_generation=1)
    assert not holds.remove_rule(conn, rule.id)


def test_a_sent_copy_comes_with_the_submission(conn: sa.Connection) -> None:
    copy = NewReceived(content=StoredBytes(3, data=b"bcc"), copies=(NewCopy(account="shop", mailbox="Sent"),))
    [added] = submissions.add_all(conn, [[submission(sent_copy=copy)]], NOW, each=False)
    assert isinstance(added, submissions.Added)
    assert not added.over_quota
    (sent,) = messages_in(conn, "shop", "Sent")
    found = received.get(conn, "shop", sent.id)
    assert found is not None
    assert found.content.data == b"bcc"
    assert events.newest(conn) == 0


# --- claim ----------------------------------------------------------------------------------------


def test_a_claim_is_a_lease_and_an_attempt(conn: sa.Connection) -> None:
    (only,) = add(conn, dsn_ret="FULL", transport="smarthost")
    (claimed,) = claim(conn, at(5))
    assert (claimed.token, claimed.lease_expires, claimed.dsn_ret) == (1, at(65), "FULL")
    assert claimed.content.data == DATA
    message = claimed.message
    assert (message.attempts, message.last_attempt, message.next_attempt) == (1, at(5), at(455))
    assert message == item(conn, only).message
    assert item(conn, only).leased
    assert attempts(conn, only) == [(1, "delivering", "")]
    assert claim(conn, at(10_000)) == ()  # not even past its expiry: recover decides
    assert queue.next_due(conn) is None


def test_the_earliest_are_claimed_first_within_the_limits(conn: sa.Connection) -> None:
    a = [add(conn, f"u{i}@a.example", now=at(i))[0] for i in range(4)]
    b = [add(conn, f"u{i}@b.example", now=at(i + 0.5))[0] for i in range(4)]
    first = claim(conn, at(60), room=5, per_destination=3, busy={"a.example": 1})
    assert [c.message.id for c in first] == [a[0], b[0], a[1], b[1], b[2]]
    second = claim(conn, at(60), room=5, per_destination=3, busy={"a.example": 3, "b.example": 3})
    assert second == ()
    third = claim(conn, at(60), room=5, per_destination=3, busy={"a.example": 2})
    assert [c.message.id for c in third] == [a[2], b[3]]
    assert claim(conn, at(60), room=0) == ()


def test_what_is_due_is_found_behind_a_busy_destination(conn: sa.Connection) -> None:
    add(conn, *(f"u{i}@busy.example" for i in range(300)))
    add(conn, *(f"u@d{i:03}.example" for i in range(10)), now=at(2))
    add(conn, *(f"u@e{i:03}.example" for i in range(10)), not_before=at(500))
    wanted = {"room": 4, "per_destination": 2, "busy": {"busy.example": 1, "d000.example": 2}}
    got = [c.destination for c in claim(conn, at(10), **wanted)]
    assert got == ["busy.example", "d001.example", "d002.example", "d003.example"]


def test_a_long_skip_scan_goes_on_where_it_stopped(conn: sa.Connection) -> None:
    add(conn, *(f"u{i}@busy.example" for i in range(300)))
    add(conn, *(f"u@late{i:03}.example" for i in range(450)), not_before=at(9999))
    (last,) = add(conn, "u@zz.example", now=at(1))
    wanted = Claim(
        owner="me",
        now=at(5),
        lease_seconds=60,
        room=3,
        per_destination=1,
        max_recipients=1,
        busy={"busy.example": 1},
    )
    rounds = 0
    found: list[int] = []
    while True:
        claims = queue.claim(conn, wanted, later)
        found += [c.message.id for (c,) in claims.transactions]
        rounds += 1
        if not claims.more:
            break
        wanted = replace(wanted, position=claims.position)
    assert found == [last]
    assert rounds == 3


def test_where_only_proven_destinations_have_room_these_are_found_behind_any_number_of_others(
    conn: sa.Connection,
) -> None:
    add(conn, *(f"u@silent{i:03}.example" for i in range(300)))
    add(conn, "a@good.example", "b@good.example", "c@good.example", "a@better.example", now=at(1))
    add(conn, "later@good.example", not_before=at(9999))
    proven = ("better.example", "good.example", "idle.example")
    standing = Standing(proven=proven, unproven_room=0, asked=proven)
    wanted: dict[str, Any] = {"room": 5, "per_destination": 2, "standing": standing}
    got = claim(conn, at(5), **wanted)
    assert sorted(str(c.message.recipient) for c in got) == [
        "a@better.example",
        "a@good.example",
        "b@good.example",
    ]
    assert claim(conn, at(5), **wanted, busy={"good.example": 2}) == ()


def test_where_only_proven_destinations_have_room_each_gets_one_before_any_gets_more(
    conn: sa.Connection,
) -> None:
    add(conn, *(f"u@silent{i:03}.example" for i in range(300)))
    names = tuple(f"good{i:03}.example" for i in range(120))
    add(conn, *(f"u{n}@{name}" for name in names[::30] for n in range(3)), now=at(1))
    standing = Standing(proven=names, unproven_room=0, asked=names)
    wanted: dict[str, Any] = {"per_destination": 2, "standing": standing}
    few = Counter(c.destination for c in claim(conn, at(5), room=3, **wanted))
    assert set(few.values()) == {1}
    assert len(few) == 3
    rest = Counter(c.destination for c in claim(conn, at(5), room=99, **wanted, busy=few))
    assert rest + few == dict.fromkeys(names[::30], 2)


def test_destinations_that_are_not_proven_share_their_room_and_slow_ones_have_one_place(
    conn: sa.Connection,
) -> None:
    add(conn, *(f"{n}@{name}.example" for n in range(3) for name in ("slow", "new", "good")))
    standing = Standing(slow=("slow.example",), proven=("good.example",), unproven_room=3)
    got = Counter(c.destination for c in claim(conn, at(5), standing=standing))
    assert got == {"slow.example": 1, "new.example": 2, "good.example": 3}


def test_held_messages_are_never_claimed(conn: sa.Connection) -> None:
    (held,) = add(conn, recipient(hold=True))
    assert claim(conn) == ()
    assert queue.next_due(conn) is None
    assert actions.release(conn, Filter(ids=(held,))).affected == 1
    assert queue.next_due(conn) == NOW
    assert [c.message.id for c in claim(conn)] == [held]


def test_next_due(conn: sa.Connection) -> None:
    assert queue.next_due(conn) is None
    add(conn, not_before=at(100))
    add(conn, not_before=at(50))
    assert queue.next_due(conn) == at(50)


# --- settle ---------------------------------------------------------------------------------------


def test_delivered_is_one_transaction(conn: sa.Connection) -> None:
    (only,) = add(conn, extra={"order": "1"})
    settled = settle_one(conn, delivered(claim(conn)[0]), at(2))
    assert settled.applied
    assert settled.files == ()
    found = item(conn, only)
    assert (found.state, found.retired_as, found.success) == ("retired", "delivered", True)
    assert (found.last_activity, found.keep_until, found.leased) == (at(2), KEEP, False)
    assert attempts(conn, only) == [(1, "done", "")]
    assert count(conn, tables.content) == 0
    (event,) = events.after(conn, 0, 10)
    assert isinstance(event, Event)
    assert (event.id, event.name, event.queue_msg_id) == (settled.event_id, "delivered", only)
    assert (event.recipient, event.attempt, event.extra) == ("jo@example.net", 1, {"order": "1"})
    (call,) = conn.execute(sa.select(tables.webhook_call)).all()
    assert (call.id, call.event_id, call.url, call.queue_msg_id) == (
        settled.call_ids[0],
        settled.event_id,
        HOOK,
        only,
    )


def test_temporary_is_rescheduled_and_keeps_its_content(conn: sa.Connection) -> None:
    (only,) = add(conn)
    assert settle_one(conn, delayed(claim(conn)[0], at(900)), at(1)).applied
    found = item(conn, only)
    assert (found.state, found.leased, found.message.next_attempt) == ("queued", False, at(900))
    assert claim(conn, at(899)) == ()
    (again,) = claim(conn, at(900))
    assert (again.message.attempts, again.token, again.content.data) == (2, 2, DATA)


def test_content_goes_with_its_last_reference(conn: sa.Connection) -> None:
    add(conn, "a@example.net", "b@example.net", content=StoredBytes(9, file="f1"))
    first, second = claim(conn)
    assert settle_one(conn, delivered(first), NOW).files == ()
    assert settle_one(conn, failed(second), NOW).files == ("f1",)
    assert count(conn, tables.content) == 0


def test_content_may_be_kept_with_the_history(conn: sa.Connection) -> None:
    (only,) = add(conn)
    keep = Retire(retired_as="delivered", success=True, keep_until=KEEP, keep_content=True)
    settle_one(conn, delivered(claim(conn)[0], then=keep), NOW)
    assert listing.content_of(conn, only) is not None
    assert release_content(conn, [1]) == []
    assert cleanup.messages(conn, KEEP).count == 1
    assert count(conn, tables.content) == 0


def test_a_message_that_nobody_keeps_leaves_only_its_event(conn: sa.Connection) -> None:
    add(conn)
    settled = settle_one(conn, delivered(claim(conn)[0], then=GONE), NOW)
    assert settled.applied
    assert count(conn, tables.message) == count(conn, tables.attempt) == 0
    assert count(conn, tables.event) == 1


def test_a_late_result_changes_nothing(conn: sa.Connection) -> None:
    (only,) = add(conn)
    (old,) = claim(conn)
    assert queue.recover(conn, [], at(60)) == 1
    late = settle_one(conn, delivered(old), at(61))
    assert late == replace(late, applied=False, event_id=0, call_ids=(), files=())
    assert attempts(conn, only) == [(1, "late", "")]
    (new,) = claim(conn, at(100))
    assert not settle_one(conn, failed(old), at(101)).applied
    assert item(conn, only).leased
    assert settle_one(conn, delivered(new), at(102)).applied
    assert not settle_one(conn, failed(new), at(103)).applied  # twice
    assert attempts(conn, only) == [(1, "late", "no such user"), (2, "done", "")]
    assert [e.name for e in events.of_message(conn, only)] == ["delivered"]


def test_recipients_of_a_transaction_are_settled_together(conn: sa.Connection) -> None:
    add(conn, "a@example.net", "b@example.net", "c@example.net")
    a, b, c = claim(conn)
    settled = settle.settle_all(conn, [([delivered(a), failed(b), delayed(c, at(900))], at(1))])[0]
    assert [s.applied for s in settled] == [True] * 3
    assert [e.name for e in events.after(conn, 0, 10) if isinstance(e, Event)] == [
        "delivered",
        "failed",
        "delayed",
    ]
    assert listing.counts(conn) == {"queued": 1, "retired": 2}


def test_transactions_are_settled_together_as_one_by_one(conn: sa.Connection) -> None:
    add(conn, *(f"u{n}@example.net" for n in range(6)))
    (kept,) = add(conn, "other@example.net", content=StoredBytes(9, file="f9"))
    for claimed in claim(conn):  # their first attempts: so there are webhook calls to supersede
        settle_one(conn, delayed(claimed, at(1)), at(1))
    a, b, c, d, e, f, g = claim(conn, at(2))
    actions.cancel(
        conn, Filter(ids=(d.message.id,)), lambda _: Ending(keep_until=KEEP, event_keep_until=KEEP), "", at(3)
    )
    entry = Suppress(base_address="u1@example.net", original_address="u1@example.net", reason="550")
    waits = Reschedule(next_attempt=at(99), counted=False, dialed_ips={"mx": ["192.0.2.1"]})
    ours = NewReceived(
        content=StoredBytes(3, data=b"dsn"), copies=(NewCopy(account="shop", mailbox="Inbox"),)
    )
    settled = settle.settle_all(
        conn,
        [
            ([delivered(a), failed(b, suppress=entry, notice=ours)], at(10)),
            ([delayed(c, at(99), then=waits)], at(11)),
            ([delivered(d), delivered(e, then=GONE)], at(12)),
            ([delivered(a)], at(13)),  # once more
            ([delivered(f, event=None), delivered(g)], at(14)),
        ],
    )
    assert [[one.applied for one in some] for some in settled] == [
        [True, True], [True], [False, True], [False], [True, True]
    ]  # fmt: skip
    assert [one.suppressing for some in settled for one in some if one.applied] == [
        False, True, False, False, False, False
    ]  # fmt: skip
    assert [file for some in settled for one in some for file in one.files] == ["f9"]
    told = [
        (one.name, one.queue_msg_id, one.time, one.suppressing)
        for one in events.after(conn, 0, 99)
        if isinstance(one, Event) and one.time >= at(10)
    ]
    assert told == [
        ("delivered", a.message.id, at(10), False),
        ("failed", b.message.id, at(10), True),
        ("delayed", c.message.id, at(11), False),
        ("delivered", e.message.id, at(12), False),
        ("delivered", kept, at(14), False),
    ]
    event_ids = [one.event_id for some in settled for one in some]
    assert sorted(filter(None, event_ids)) == list(filter(None, event_ids))
    # The call of each new event took the place of that of the first attempt.
    calls = conn.execute(
        sa.select(
            tables.webhook_call.c.id, tables.webhook_call.c.event_id, tables.webhook_call.c.queue_msg_id
        )
        .where(tables.webhook_call.c.state == "queued")
        .order_by(tables.webhook_call.c.id)
    ).all()
    new = {(call, one.event_id) for some in settled for one in some for call in one.call_ids}
    assert len(new) == 5
    assert {
        (call.id, call.event_id) for call in calls if call.queue_msg_id not in (d.message.id, f.message.id)
    } == new
    assert attempts(conn, a.message.id)[-1] == (2, "done", "")
    assert [(number, state) for number, state, _ in attempts(conn, d.message.id)] == [
        (1, "done"),
        (2, "late"),
        (0, "done"),  # that it was canceled
    ]
    assert listing.counts(conn) == {"queued": 1, "retired": 5}
    waiting = item(conn, c.message.id)
    assert (waiting.message.attempts, waiting.message.next_attempt) == (1, at(99))
    assert len(messages_in(conn, "shop", "Inbox")) == 1


def test_two_failures_for_one_address_at_a_time_are_decided_one_by_one(conn: sa.Connection) -> None:
    add(conn, "jo@example.net", "jo@example.net")
    first, second = claim(conn)
    entry = Suppress(base_address="jo@example.net", original_address="jo@example.net", reason="", history=())
    both = [([failed(first, suppress=entry)], NOW), ([failed(second, suppress=entry)], NOW)]
    with pytest.raises(Stale):
        settle.settle_all(conn, both)


def test_our_dsn_is_stored_in_the_same_transaction(conn: sa.Connection) -> None:
    add(conn)
    notice = NewReceived(
        content=StoredBytes(3, data=b"dsn"), copies=(NewCopy(account="shop", mailbox="Inbox", dsn=True),)
    )
    settle_one(conn, failed(claim(conn)[0], notice=notice), NOW)
    (dsn,) = messages_in(conn, "shop", "Inbox")
    assert dsn.dsn
    assert [e.name for e in events.after(conn, 0, 9) if isinstance(e, Event)] == ["failed"]


def test_suppressing_is_what_the_transaction_did(conn: sa.Connection) -> None:
    entry = Suppress(base_address="jo@example.net", original_address="jo@example.net", reason="550 5.1.1")
    for expected in (True, False):
        add(conn)
        assert settle_one(conn, failed(claim(conn)[0], suppress=entry), NOW).suppressing is expected
    assert [e.suppressing for e in events.after(conn, 0, 9) if isinstance(e, Event)] == [True, False]
    conn.execute(sa.update(tables.suppression).values(expires=at(10)))
    add(conn)
    assert settle_one(conn, failed(claim(conn)[0], suppress=entry), at(10)).suppressing
    assert count(conn, tables.suppression) == 1


def test_the_rule_of_three_relies_on_its_history(conn: sa.Connection) -> None:
    jo = Address.parse("jo@example.net")
    ids: list[int] = []
    for _ in range(3):
        ids += add(conn)
        settle_one(conn, failed(claim(conn)[0]), NOW)
    (canceled,) = add(conn)
    actions.cancel(
        conn, Filter(ids=(canceled,)), lambda _: Ending(keep_until=KEEP, event_keep_until=KEEP), "", NOW
    )
    (current,) = add(conn)
    before = settle.latest_retired(conn, "shop", jo, excluding=current)
    assert [b.id for b in before] == [ids[2], ids[1], ids[0]]
    assert not any(b.success for b in before)
    (claimed,) = claim(conn)
    stale = Suppress(
        base_address=str(jo), original_address=str(jo), reason="three in a row", history=(ids[1], ids[0])
    )
    with pytest.raises(Stale, match="retired meanwhile"):
        settle_one(conn, failed(claimed, suppress=stale), NOW)


def test_a_report_is_added_to_the_history(conn: sa.Connection) -> None:
    (only,) = add(conn)
    (claimed,) = claim(conn)
    settle_one(conn, delivered(claimed), NOW)
    event = failed(claimed).event
    assert event is not None
    change = Report(
        message_id=only, code=550, error="box full", success=False, event=replace(event, dsn=True)
    )
    assert settle.report(conn, change, at(9)).applied
    found = item(conn, only)
    assert (found.success, found.last_activity, found.retired_as) == (False, at(9), "delivered")
    assert attempts(conn, only)[-1] == (0, "done", "box full")
    assert [(e.name, e.dsn) for e in events.of_message(conn, only)] == [
        ("delivered", False),
        ("failed", True),
    ]
    assert not settle.report(conn, replace(change, message_id=99), NOW).applied
    with pytest.raises(Stale):
        settle.report(
            conn, replace(change, retire=Retire(retired_as="failed", success=False, keep_until=KEEP)), NOW
        )


def test_a_report_may_end_a_queued_message(conn: sa.Connection) -> None:
    (only,) = add(conn)
    (claimed,) = claim(conn)
    retire = Retire(retired_as="failed", success=False, keep_until=KEEP)
    assert settle.report(conn, Report(message_id=only, error="failed by admin", retire=retire), NOW).applied
    assert item(conn, only).state == "retired"
    assert not settle_one(conn, delivered(claimed), NOW).applied


# --- recover --------------------------------------------------------------------------------------


def test_leases_of_the_dead_and_expired_ones_are_taken_over(conn: sa.Connection) -> None:
    (one,) = add(conn, "a@a.example")
    claim(conn, at(0), owner="old")
    (two,) = add(conn, "a@b.example", now=at(1))
    claim(conn, at(1), owner="other", lease_seconds=600)
    assert queue.lease_owners(conn) == {"old", "other"}
    assert queue.recover(conn, ["old"], at(2)) == 1
    assert queue.lease_owners(conn) == {"other"}
    assert attempts(conn, one) == [(1, "interrupted", "the gateway stopped during this attempt")]
    assert item(conn, one).message.attempts == 1
    assert item(conn, one).message.next_attempt == at(30)
    assert queue.recover(conn, [], at(600)) == 0
    assert queue.recover(conn, [], at(601)) == 1
    assert attempts(conn, two) == [(1, "interrupted", "the lease of this attempt ran out")]
    assert item(conn, two).message.next_attempt == at(31)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ("rrri", False),  # attempts that ended with a result, were interrupted, or do not count
        ("rrrr", True),
        ("rrru", False),
        ("rrrur", True),
        ("rrrui", False),
        ("rrriui", False),
        ("rrriiuur", True),
        ("rrril", False),  # interrupted as its lease expired, its result came late
    ],
)
def test_whether_an_attempt_from_the_fourth_on_has_a_result(
    conn: sa.Connection, ends: str, expected: bool
) -> None:
    add(conn, "a@b.example")
    for _ in range(5):  # of another message, these say nothing
        [other] = claim(conn)
        settle_one(conn, delayed(other, NOW), NOW)
    (one,) = add(conn, "a@a.example")
    now = at(0)
    for end in ends:
        now += timedelta(hours=1)
        [claimed] = [claimed for claimed in claim(conn, now, owner="me") if claimed.message.id == one]
        if end in "il":
            queue.recover(conn, ["me"], now)
        if end != "i":
            then = Reschedule(next_attempt=now, counted=end != "u")
            settle_one(conn, replace(delayed(claimed, now), then=then), now)
    made = item(conn, one).message.attempts
    assert listing.any_has_result(conn, one, 4, made + 1) is expected
    assert not listing.any_has_result(conn, one, 4, 4)


# --- listing --------------------------------------------------------------------------------------


def test_pages_are_stable_in_both_directions(conn: sa.Connection) -> None:
    ids = [add(conn, now=at(i // 3), not_before=at(100 - i))[0] for i in range(10)]
    orders: tuple[tuple[listing.Sort, list[int]], ...] = (("queued", ids), ("next_attempt", ids[::-1]))
    for sort, order in orders:
        for ascending in (True, False):
            seen: list[int] = []
            cursor = ""
            while True:
                page = listing.page(
                    conn,
                    Filter(),
                    sort=sort,
                    ascending=ascending,
                    cursor=cursor,
                    maximum=3,
                )
                seen += [i.message.id for i in page.items]
                cursor = page.cursor
                if not cursor:
                    break
            assert seen == (order if ascending else order[::-1])


def test_what_goes_meanwhile_moves_no_page(conn: sa.Connection) -> None:
    ids = [add(conn)[0] for _ in range(6)]
    first = listing.page(conn, Filter(), maximum=3)
    settle_one(conn, delivered(claim(conn, room=1)[0], then=GONE), NOW)
    (new,) = add(conn)
    second = listing.page(conn, Filter(), maximum=3, cursor=first.cursor)
    assert [i.message.id for i in second.items] == ids[3:]
    third = listing.page(conn, Filter(), maximum=3, cursor=second.cursor)
    assert [i.message.id for i in third.items] == [new]


def test_pages_hold_both_states(conn: sa.Connection) -> None:
    ids = [add(conn, now=at(i))[0] for i in range(6)]
    for claimed in claim(conn, at(9), room=3):
        settle_one(conn, delivered(claimed), NOW)
    page = listing.page(conn, Filter(), maximum=4)
    assert [i.message.id for i in page.items] == ids[:4]
    assert [i.message.id for i in listing.page(conn, Filter(), cursor=page.cursor).items] == ids[4:]
    assert [i.state for i in listing.page(conn, Filter(state="retired")).items] == ["retired"] * 3


@pytest.mark.parametrize("cursor", ["!", "AAAA", "MS4", "a" * 200, "MS41LjU", "\u00e9"])
def test_a_wrong_cursor_is_said_to_be_one(conn: sa.Connection, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        listing.page(conn, Filter(), cursor=cursor)


def test_filters(conn: sa.Connection) -> None:
    (a,) = add(conn, recipient("Jo%e@a.example", from_id="f", env_id="e"), transport="t1")
    (b,) = add(conn, recipient("jim@b.example", hold=True), account="other", message_id="<b@x>", now=at(10))
    (c,) = add(conn, "joe@a.example", sender=None, not_before=at(99), now=at(20))

    def found(**fields: object) -> list[int]:
        wanted = Filter(**fields)  # type: ignore[arg-type]
        return [i.message.id for i in listing.page(conn, wanted).items]

    assert found() == [a, b, c]
    assert found(ids=(c, a, 77)) == [a, c]
    assert found(account="other") == [b]
    assert found(to="O%E@A") == [a]
    assert found(to="a.ex") == [a, c]
    assert found(from_="shop@example") == [a, b]
    assert found(sender_domain="example.org", recipient_domain="b.example") == [b]
    assert found(hold=True) == [b]
    assert found(submitted_after=at(5), submitted_before=at(15)) == [b]
    assert found(next_attempt_after=at(50)) == [c]
    assert found(next_attempt_before=at(5)) == [a]
    assert found(transport="t1") == [a]
    assert found(message_id="<b@x>") == [b]
    assert found(from_id="f") == [a]
    assert found(state="retired") == []
    assert found(ids=()) == []
    settle_one(conn, failed(claim(conn)[0]), at(30))
    assert found(success=False) == [a]
    assert found(last_activity_after=at(29)) == [a]
    assert listing.get(conn, b, "shop") is None
    assert [i.message.id for i in listing.find(conn, env_id="e")] == [a]
    assert [i.message.id for i in listing.find(conn, from_id="f")] == [a]
    assert [i.message.id for i in listing.find(conn, message_id="<m1@example.org>", account="shop")] == [c, a]
    assert listing.find(conn) == ()
    assert listing.count_held(conn) == 1
    assert Filter(account="x", state="queued").empty
    assert not Filter(hold=False).empty
    with pytest.raises(ValueError, match="10000 IDs"):
        Filter(ids=tuple(range(10_001)))


def test_parts_of_addresses_in_any_spelling(conn: sa.Connection) -> None:
    """SQLite knows the case of ASCII only, and domains are in Unicode whatever the message came with."""
    (idn,) = add(conn, "Twin@ex\u00e4mple.org")
    (local,) = add(conn, "\u00dcnal@example.org")
    (plain,) = add(conn, "twin@example.org", sender=Address.parse("shop@\u00fcber.example"))

    def found(**fields: str) -> list[int]:
        return [i.message.id for i in listing.page(conn, Filter(**fields)).items]  # type: ignore[arg-type]

    for text in (
        "ex\u00e4mple",
        "EX\u00c4MPLE",
        "ex\u00c4",
        "exa\u0308mple.ORG",
        "xn--exmple-cua.org",
        "XN--exmple-cua",
        "@xn--exmple-cua.o",
        "tWIN@EX\u00c4MPLE.org",
        "win@xn--exmple-cua.org",
    ):
        assert found(to=text) == [idn], text
    assert found(to="TWIN@") == [idn, plain]
    assert found(to="\u00dcnal") == found(to="\u00dcNAL@EXAMPLE") == [local]
    assert found(from_="@\u00dcBER.example") == found(from_="xn--ber-goa") == [plain]
    assert found(to="xn--zzzzzz") == found(to="b\u00fccher") == []
    assert actions.hold(conn, Filter(to="EX\u00c4MPLE")).affected == 1
    # An ASCII text, as almost all are, costs one comparison.
    assert str(listing.conditions(Filter(to="EXAMPLE.org"))[0]).count("LIKE") == 1


# --- actions --------------------------------------------------------------------------------------


def test_actions_go_in_steps(conn: sa.Connection) -> None:
    add(conn, *(f"u{i}@{'ab'[i % 2]}.example" for i in range(1000)))
    add(conn, *(f"v{i}@a.example" for i in range(100)), now=at(1))
    total, position, steps = 0, "", 0
    while True:
        step = actions.hold(conn, Filter(recipient_domain="a.example"), position)
        total, steps = total + step.affected, steps + 1
        if step.position is None:
            break
        position = step.position
    assert (total, steps) == (600, 3)
    assert listing.count_held(conn) == 600
    ids = tuple(range(1, 1101))
    step = actions.release(conn, Filter(ids=ids))
    assert step.position is not None
    assert step.affected + actions.release(conn, Filter(ids=ids), step.position).affected < 600


@pytest.mark.parametrize("named", [False, True])
def test_an_action_goes_on_behind_its_maximum(conn: sa.Connection, named: bool) -> None:
    """Those that were queued first, or by their IDs if these are given, though others do not match."""
    ids = add(conn, *(f"u{i}@{'ab'[i % 2]}.example" for i in range(20)))
    late = add(conn, "z@a.example", now=at(-1))  # before them
    wanted = Filter(to="@a.example", maximum=3, ids=(*ids, *late) if named else None)
    order = [*ids[::2], *late] if named else [*late, *ids[::2]]

    def held() -> set[int]:
        return {i.message.id for i in listing.page(conn, Filter(hold=True)).items}

    step = actions.hold(conn, wanted)
    assert (step.affected, held()) == (3, set(order[:3]))
    assert step.position is not None
    step = actions.hold(conn, wanted, step.position)
    assert (step.affected, held()) == (3, set(order[:6]))
    found, position = actions.matching(conn, replace(wanted, maximum=10))
    assert [i.message.id for i in found] == sorted(order[:10])
    assert position is not None
    found, position = actions.matching(conn, replace(wanted, maximum=10), position)
    assert ([i.message.id for i in found], position) == (order[10:], None)
    with pytest.raises(ValueError, match="1 or more"):
        Filter(maximum=0)
    assert Filter(maximum=1).empty


def test_schedule_transport_and_tls(conn: sa.Connection) -> None:
    a, b = add(conn, "a@a.example", "b@b.example")
    assert actions.schedule(conn, Filter(ids=(a,)), at=at(77)).affected == 1
    assert actions.schedule(conn, Filter(account="shop"), plus=timedelta(hours=1)).affected == 2
    assert item(conn, a).message.next_attempt == at(3677)
    assert item(conn, b).message.next_attempt == at(3600)
    assert actions.set_transport(conn, Filter(to="b@"), "smarthost").affected == 1
    assert item(conn, b).message.transport == "smarthost"
    assert actions.set_require_tls(conn, Filter(), True).affected == 2
    assert actions.set_require_tls(conn, Filter(), True).affected == 0
    assert actions.set_require_tls(conn, Filter(ids=(a,)), None).affected == 1
    assert [item(conn, i).message.require_tls for i in (a, b)] == [None, True]
    claim(conn, at(9999))
    assert actions.schedule(conn, Filter(), at=NOW).affected == 0  # under way
    with pytest.raises(ValueError, match="either"):
        actions.schedule(conn, Filter())


def test_cancel(conn: sa.Connection) -> None:
    a, b = add(conn, "a@a.example", "b@b.example", content=StoredBytes(9, file="f1"))
    (claimed,) = claim(conn, room=1)
    endings = {"shop": Ending(keep_until=KEEP, event_keep_until=KEEP)}
    step = actions.cancel(conn, Filter(account="shop"), endings.__getitem__, "canceled by shop", at(3))
    assert (step.affected, step.position, step.files) == (2, None, ("f1",))
    assert [item(conn, i).retired_as for i in (a, b)] == ["canceled", "canceled"]
    errors = [events.of_message(conn, i)[0].error for i in (a, b)]
    assert errors == [
        "canceled by shop; an attempt was under way and may still deliver it",
        "canceled by shop",
    ]
    assert not settle_one(conn, delivered(claimed), at(4)).applied
    assert attempts(conn, a)[0][1] == "late"
    assert actions.cancel(conn, Filter(), endings.__getitem__, "", NOW).affected == 0


def test_canceling_many_goes_in_steps(conn: sa.Connection) -> None:
    add(conn, *(f"u{i}@a.example" for i in range(250)))
    ending = Ending(keep_until=None, event_keep_until=KEEP)
    position: str | None = ""
    affected = []
    while position is not None:
        step = actions.cancel(conn, Filter(), lambda _: ending, "x", NOW, position)
        affected.append(step.affected)
        position = step.position
    assert affected == [100, 100, 50]
    assert count(conn, tables.message) == count(conn, tables.content) == count(conn, tables.attempt) == 0
    assert count(conn, tables.event) == 250


# --- plans ----------------------------------------------------------------------------------------


def test_the_hot_path_scans_no_table(conn: sa.Connection) -> None:
    add(conn, *(f"u{i}@busy.example" for i in range(60)), recipient("a@b.example", from_id="f", env_id="e"))
    holds.add_rule(conn, NOW, account="nobody")
    jo = Address.parse("jo@example.net")
    works: dict[str, tuple[Callable[[], object], list[str]]] = {
        "next_due": (lambda: queue.next_due(conn), ["message_due"]),
        "claim": (
            lambda: claim(conn, room=3, per_destination=1, busy={"busy.example": 1}),
            ["message_due", "message_ready", "sqlite_autoindex_suppression"],
        ),
        "claim of many": (lambda: claim(conn, room=30), ["message_due"]),
        "settle": (lambda: settle_one(conn, delivered(claim(conn, room=1)[0]), NOW), ["message_content"]),
        "settle several": (
            lambda: settle.settle_all(conn, [([delivered(claimed)], NOW) for claimed in claim(conn, room=3)]),
            ["message_content", "webhook_call_waiting", "CONSTANT ROWS"],
        ),
        "recover": (lambda: queue.recover(conn, ["me"], NOW), ["message_leased"]),
        "history": (
            lambda: settle.latest_retired(conn, "shop", jo, excluding=1),
            ["message_history"],
        ),
        "add": (
            lambda: queue.add(conn, submission(recipient(from_id="g"), hold_generation=1), NOW),
            ["message_from_id", "sqlite_autoindex_known_recipient"],
        ),
        "by from_id": (lambda: listing.find(conn, from_id="f"), ["message_from_id"]),
        "by env_id": (lambda: listing.find(conn, env_id="e"), ["message_env_id"]),
        "by message_id": (lambda: listing.find(conn, message_id="<x>"), ["message_message_id"]),
        "told that it is late": (lambda: listing.any_has_result(conn, 1, 5, 7), ["attempt_message"]),
        "held": (lambda: listing.count_held(conn), ["message_held"]),
        "by queued": (lambda: listing.page(conn, Filter()), ["message_queued"]),
        "by next_attempt": (
            lambda: listing.page(conn, Filter(), sort="next_attempt", ascending=False, cursor="MS4x"),
            ["message_next"],
        ),
        "of an account": (lambda: listing.page(conn, Filter(account="shop")), ["message_account"]),
        "hold": (lambda: actions.hold(conn, Filter(to="x")), ["message_queued"]),
        "clean-up": (lambda: cleanup.messages(conn, NOW), ["message_keep"]),
    }
    for name, (work, indexes) in works.items():
        plan = plans(conn, work)
        for index in indexes:
            assert index in plan, f"{name} does not use {index}:\n{plan}"
        scans = re.findall(r"SCAN (?!head|given|found|\d|CONSTANT|hold_rule).*", plan)
        # Along a partial index, or an index in the order that is wanted, is as good as a search.
        bad = [s for s in scans if not re.search(r"USING (COVERING )?INDEX message_(due|leased|held)", s)]
        assert not bad, f"{name} scans:\n{plan}"
        assert "TEMP B-TREE FOR ORDER BY" not in plan, f"{name} sorts:\n{plan}"
        if name in ("claim of many", "hold"):  # many IDs at a time
            assert "(state=?)" not in plan, f"{name} walks the whole queue:\n{plan}"


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (Filter(ids=(1,), state="queued"), "INTEGER PRIMARY KEY"),
        (Filter(message_id="<m1@example.org>", state="queued"), "message_message_id"),
        (Filter(from_id="f", state="queued"), "message_from_id"),
    ],
)
@pytest.mark.parametrize("sort", ["queued", "next_attempt"])
def test_a_page_of_few_walks_no_queue(
    conn: sa.Connection, wanted: Filter, index: str, sort: listing.Sort
) -> None:
    message_id, other = add(
        conn, recipient("a@b.example", from_id="f"), recipient("c@b.example", from_id="g")
    )
    plan = plans(conn, lambda: listing.page(conn, wanted, sort=sort))
    assert index in plan
    assert "message_queued" not in plan
    assert "message_next" not in plan
    found = [item.message.id for item in listing.page(conn, wanted, sort=sort).items]
    assert found == ([message_id, other] if wanted.message_id else [message_id])


def test_what_ends_outside_of_an_attempt(conn: sa.Connection) -> None:
    first, second, gone = add(conn, "a@a.example", "b@b.example", "c@c.example")
    settle_one(conn, delivered(claim(conn, room=1)[0]), NOW)  # the first
    items, following = actions.matching(conn, Filter(state="queued"))
    assert ([item.message.id for item in items], following) == ([second, gone], None)
    settle_one(conn, failed(claim(conn, room=2)[1]), NOW)  # before the decision is written
    retire = Retire(retired_as="failed", success=False, keep_until=KEEP)
    draft = EventDraft(name="failed", error="enough", keep_until=KEEP)
    reports = [
        Report(message_id=item.message.id, error="enough", retire=retire, event=draft) for item in items
    ]
    assert actions.end(conn, reports, at(1)).affected == 1
    assert item(conn, second).retired_as == "failed"
    assert [e.error for e in events.of_message(conn, second)] == ["enough"]
    assert [e.error for e in events.of_message(conn, gone)] == ["no such user"]
    assert attempts(conn, gone)[-1][1] == "done"
    assert item(conn, first).retired_as == "delivered"
