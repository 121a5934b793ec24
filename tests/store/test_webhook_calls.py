from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from gateway.store import call_listing, cleanup, events, tables, webhook_calls, webhook_results, webhook_urls
from gateway.store.call_listing import CallFilter
from gateway.store.changes import Call, CallClaims, CallDraft, CallResult, ClaimCalls
from tests.store.sample import HOOK, KEEP, NOW, at, count, database, later, plans

OTHER = "https://other.example.net/"


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as conn:
        yield conn


def add(
    conn: sa.Connection,
    message_id: int = 1,
    name: str = "delayed",
    url: str = HOOK,
    *,
    supersede: bool = True,
    keep: datetime | None = KEEP,
    now: datetime = NOW,
) -> int:
    draft = CallDraft(url=url, authorization="Bearer x", supersede=supersede, superseded_keep_until=keep)
    event = events.NewEvent(now, "shop", name, KEEP, queue_msg_id=message_id)
    [(_, (call_id,))] = webhook_calls.tell(conn, [(event, (draft,))])
    return call_id


def claims(conn: sa.Connection, now: datetime = NOW, room: int = 10, **fields: object) -> CallClaims:
    wanted = ClaimCalls(owner="me", now=now, lease_seconds=90, room=room, **fields)  # type: ignore[arg-type]
    return webhook_calls.claim(conn, wanted, later, lambda account: KEEP)


def claim(conn: sa.Connection, now: datetime = NOW, **fields: object) -> list[int]:
    return [call.id for call in claims(conn, now, **fields).calls]  # type: ignore[arg-type]


def result(call: Call, *, success: bool = True, retry: datetime | None = None) -> CallResult:
    return CallResult(
        call_id=call.id,
        account=call.account,
        token=call.token,
        start=NOW,
        duration=0.25,
        url=call.url,
        success=success,
        code=200 if success else 500,
        error="" if success else "500 Internal Server Error",
        response="x",
        payload=b'{"Version":0}',
        content_type="application/json",
        next_attempt=retry,
        keep_until=KEEP,
    )


def finish(conn: sa.Connection, one: CallResult, now: datetime) -> bool:
    (done,) = webhook_results.finish(conn, [one], now)
    return done


def get(conn: sa.Connection, call_id: int) -> Call:
    found = call_listing.get(conn, call_id)
    assert found is not None
    return found[0]


def history(conn: sa.Connection, call_id: int) -> list[tuple[bool, int, str]]:
    found = call_listing.get(conn, call_id)
    assert found is not None
    return [(a.success, a.code, a.error) for a in found[1]]


def test_from_waiting_to_delivered(conn: sa.Connection) -> None:
    call_id = add(conn)
    assert webhook_calls.next_due(conn) == NOW
    (call,) = claims(conn, at(1)).calls
    assert (call.id, call.attempts, call.payload, call.authorization) == (call_id, 1, None, "Bearer x")
    assert call.next_attempt == at(451)
    assert webhook_calls.next_due(conn) is None
    assert claim(conn, at(9999)) == []
    assert finish(conn, result(call), at(2))
    done = get(conn, call_id)
    assert (done.state, done.success, done.keep_until, done.payload) == (
        "retired",
        True,
        KEEP,
        b'{"Version":0}',
    )
    assert history(conn, call_id) == [(True, 200, "")]
    assert not finish(conn, result(call, success=False, retry=at(5)), at(3))
    assert get(conn, call_id).state == "retired"


def test_the_payload_is_kept_for_the_next_attempt(conn: sa.Connection) -> None:
    call_id = add(conn)
    (call,) = claims(conn).calls
    assert finish(conn, result(call, success=False, retry=at(60)), at(1))
    assert webhook_calls.next_due(conn) == at(60)
    assert claim(conn, at(59)) == []
    (again,) = claims(conn, at(60)).calls
    assert (again.attempts, again.payload, again.content_type) == (2, b'{"Version":0}', "application/json")
    assert finish(conn, result(again, success=False), at(61))
    over = get(conn, call_id)
    assert (over.state, over.success, over.error) == ("retired", False, "500 Internal Server Error")
    assert len(history(conn, call_id)) == 2


def test_a_slow_url_delays_no_other(conn: sa.Connection) -> None:
    slow = [add(conn, i) for i in range(1, 101)]
    other = add(conn, 500, url=OTHER, now=at(1))
    assert claim(conn, at(2), room=3) == [slow[0], other]
    assert claim(conn, at(2), busy={HOOK: 1, OTHER: 1}) == []
    assert claim(conn, at(2), per_url=3, busy={HOOK: 1}) == slow[1:3]


def test_a_newer_event_supersedes_what_waits(conn: sa.Connection) -> None:
    old, elsewhere, another = add(conn), add(conn, url=OTHER), add(conn, 2)
    new = add(conn, name="delivered", now=at(5))
    superseded = get(conn, old)
    assert (superseded.state, superseded.superseded_by, superseded.success) == ("retired", new, None)
    assert superseded.keep_until == KEEP
    assert [get(conn, i).state for i in (elsewhere, another, new)] == ["queued"] * 3
    assert claim(conn, at(5), per_url=9) == [elsewhere, another, new]


def test_a_superseded_call_under_way_is_not_tried_again(conn: sa.Connection) -> None:
    old = add(conn)
    (under_way,) = claims(conn).calls
    new = add(conn, name="delivered")
    assert get(conn, old).superseded_by == new
    assert not finish(conn, result(under_way, success=False, retry=at(1)), NOW)
    assert get(conn, old).state == "retired"
    assert history(conn, old) == [(False, 500, "500 Internal Server Error")]
    assert claim(conn) == [new]


def test_a_superseded_call_may_be_kept_not_at_all(conn: sa.Connection) -> None:
    old = add(conn)
    (under_way,) = claims(conn).calls
    add(conn, keep=None)
    assert call_listing.get(conn, old) is None
    assert not finish(conn, result(under_way), NOW)
    assert count(conn, tables.webhook_attempt) == 0


@pytest.mark.parametrize("newer", ["unrecognized", "delivered"])
@pytest.mark.parametrize("name", ["failed", "suppressed", "complained"])
def test_what_never_supersedes_bad_news(conn: sa.Connection, name: str, newer: str) -> None:
    delayed = add(conn)
    bad_news = add(conn, name=name)
    other = add(conn, name=newer, now=at(1))
    assert get(conn, delayed).superseded_by == bad_news
    assert get(conn, bad_news).state == "queued"
    # And it does not overtake.
    assert claim(conn, at(2), per_url=9) == [bad_news]
    add(conn, name="relayed")
    assert [get(conn, i).state for i in (bad_news, other)] == ["retired"] * 2


def test_incoming_calls_supersede_nothing(conn: sa.Connection) -> None:
    first, second = add(conn, 0, "incoming"), add(conn, 0, "incoming")
    assert claim(conn, per_url=9) == [first, second]


def test_without_superseding_events_come_in_order(conn: sa.Connection) -> None:
    first = add(conn, supersede=False)
    second = add(conn, name="delivered", supersede=False, now=at(1))
    free = add(conn, 2, now=at(2))
    (call, other) = claims(conn, at(3), per_url=9).calls
    assert [call.id, other.id] == [first, free]
    finish(conn, result(call, success=False, retry=at(100)), at(4))
    assert claim(conn, at(99), per_url=9) == []
    (call,) = claims(conn, at(1000), per_url=1).calls
    assert call.id == first
    finish(conn, result(call), at(1001))
    assert claim(conn, at(1001)) == [second]


def test_leases_are_recovered(conn: sa.Connection) -> None:
    call_id = add(conn)
    (call,) = claims(conn, at(1)).calls
    assert webhook_calls.recover(conn, [], at(2)) == 0
    assert webhook_calls.recover(conn, ["me"], at(2)) == 1
    assert webhook_calls.next_due(conn) == at(31)
    assert history(conn, call_id) == [(False, 0, "the gateway stopped during this call")]
    assert not finish(conn, result(call), at(3))
    assert get(conn, call_id).state == "queued"
    assert claim(conn, at(31)) == [call_id]
    assert webhook_calls.recover(conn, [], at(121)) == 1
    assert history(conn, call_id)[-1] == (False, 0, "the lease of this call ran out")


def test_list_cancel_and_schedule(conn: sa.Connection) -> None:
    ids = [add(conn, i, url=HOOK if i % 2 else OTHER, now=at(i)) for i in range(1, 6)]
    calls, cursor = call_listing.page(conn, CallFilter(), maximum=3)
    assert [c.id for c in calls] == ids[:3]
    assert [c.id for c in call_listing.page(conn, CallFilter(), cursor=cursor)[0]] == ids[3:]
    assert [c.id for c in call_listing.page(conn, CallFilter(url=OTHER), ascending=False)[0]] == [
        ids[3],
        ids[1],
    ]
    recent = CallFilter(submitted_after=at(3), event_name="delayed", account="shop", state="queued")
    assert [c.id for c in call_listing.page(conn, recent, sort="next_attempt")[0]] == ids[3:]
    assert call_listing.get(conn, ids[0], "other") is None
    assert call_listing.schedule(conn, CallFilter(ids=(ids[0],)), at(77)).affected == 1
    assert get(conn, ids[0]).next_attempt == at(77)
    step = call_listing.cancel(conn, CallFilter(url=HOOK), lambda _: KEEP, at(9))
    assert (step.affected, step.position) == (3, None)
    canceled = get(conn, ids[0])
    assert (canceled.state, canceled.success, canceled.error) == ("retired", False, "canceled by admin")
    assert call_listing.cancel(conn, CallFilter(), lambda _: None, at(9)).affected == 2
    assert count(conn, tables.webhook_call) == 3


def test_plans(conn: sa.Connection) -> None:
    def work() -> None:
        for i in range(1, 90):
            add(conn, i)
        add(conn, 1, "delivered")
        (call,) = claims(conn, room=3).calls
        finish(conn, result(call), NOW)
        webhook_calls.next_due(conn)
        webhook_calls.recover(conn, ["me"], NOW)
        call_listing.page(conn, CallFilter())
        call_listing.page(conn, CallFilter(), sort="next_attempt")
        cleanup.webhook_calls(conn, KEEP)
        cleanup.events(conn, KEEP + timedelta(days=1))

    plan = plans(conn, work)
    for index in ("due", "ready", "waiting", "leased", "submitted", "next", "keep", "event"):
        assert f"webhook_call_{index}" in plan, plan
    scans = re.findall(r"SCAN (?!head|found|\d|CONSTANT).*", plan)
    assert not [s for s in scans if not re.search(r"INDEX webhook_call_(due|leased)", s)], plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan, plan


def test_what_waits_for_a_disabled_url_is_retired_and_nothing_else(conn: sa.Connection) -> None:
    many = [add(conn, i) for i in range(1, 502)]
    other = add(conn, 600, url=OTHER)
    (leased,) = claims(conn, room=1).calls
    state = webhook_urls.UrlState(
        account="shop", url=HOOK, failing_since=NOW, last_failure=NOW, error="gone", disabled=NOW
    )
    webhook_urls.put(conn, state, known=False)
    assert webhook_urls.get(conn, "shop", HOOK) == state
    assert webhook_urls.disabled(conn, [HOOK, OTHER]) == {("shop", HOOK): state}
    found = claims(conn, room=1, per_url=9)
    assert (found.calls, found.more) == ((), True)
    over = get(conn, many[-1])
    assert (over.state, over.success, over.error) == ("retired", False, "the URL is disabled: gone")
    assert over.keep_until == KEEP
    assert get(conn, leased.id).state == "queued"
    assert claim(conn) == [other]
    webhook_urls.worked(conn, "shop", HOOK)
    assert webhook_urls.get(conn, "shop", HOOK) == state
    assert webhook_urls.enable(conn, HOOK, "other") == ()
    assert [webhook_urls.enable(conn, HOOK, "shop") for _ in range(2)] == [("shop",), ()]
    assert webhook_urls.get(conn, "shop", HOOK) is None


def test_another_account_may_go_on_with_the_same_url(conn: sa.Connection) -> None:
    call_id = add(conn)
    state = webhook_urls.UrlState(
        account="other", url=HOOK, failing_since=NOW, last_failure=NOW, error="gone", disabled=NOW
    )
    webhook_urls.put(conn, state, known=False)
    assert claim(conn) == [call_id]
