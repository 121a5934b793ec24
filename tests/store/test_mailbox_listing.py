from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.store import mailbox_listing, received
from gateway.store.changes import NewCopy, NewReceived
from gateway.store.content import StoredBytes
from gateway.store.mailbox_listing import MessageFilter, page
from tests.store.sample import NOW, at, database, plans


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as conn:
        yield conn


def add(conn: sa.Connection, seconds: float = 0, **fields: Any) -> int:
    copy = NewCopy(**{"account": "shop", "mailbox": "Inbox"} | fields)
    new = NewReceived(content=StoredBytes(1, data=b"x"), copies=(copy,))
    return received.add(conn, new, at(seconds))[0]


def listed(conn: sa.Connection, **wanted: Any) -> list[int]:
    found = page(conn, "shop", MessageFilter(**wanted))
    assert found is not None
    assert found[1] == ""
    return [one.message.id for one in found[0]]


def walked(conn: sa.Connection, maximum: int, **wanted: Any) -> list[list[int]]:
    """The IDs of every page."""
    pages, cursor = [], ""
    while True:
        found = page(conn, "shop", MessageFilter(**wanted), cursor=cursor, maximum=maximum)
        assert found is not None
        pages.append([one.message.id for one in found[0]])
        cursor = found[1]
        if not cursor:
            return pages


def test_what_is_listed(conn: sa.Connection) -> None:
    add(conn, message_id="<a@b>", subject="Hi", flags=("$junk",), rcpt_to="shop@example.org")
    found = page(conn, "shop", MessageFilter())
    assert found is not None
    [one] = found[0]
    assert (one.message_id, one.subject) == ("<a@b>", "Hi")
    assert (one.message.mailbox, one.message.flags, one.message.received) == ("Inbox", ("$junk",), NOW)
    assert one.message.rcpt_to == "shop@example.org"


def test_by_mailbox_and_account(conn: sa.Connection) -> None:
    inbox, other = add(conn), add(conn, mailbox="Orders")
    add(conn, account="news", mailbox="News")
    assert listed(conn) == [other, inbox]
    assert listed(conn, mailbox="Inbox") == [inbox]
    assert listed(conn, mailbox="Orders") == [other]
    assert listed(conn, mailbox="Archive") == []
    for name in ("News", "inbox", "%"):
        assert page(conn, "shop", MessageFilter(mailbox=name)) is None


def test_by_time(conn: sa.Connection) -> None:
    ids = [add(conn, seconds) for seconds in (0, 1, 1, 2)]
    assert listed(conn, since=at(1)) == [ids[3], ids[2], ids[1]]
    assert listed(conn, before=at(1)) == [ids[0]]
    assert listed(conn, since=at(1), before=at(2)) == [ids[2], ids[1]]
    assert listed(conn, since=at(3)) == []
    assert listed(conn, since=at(2), before=at(1)) == []


def test_by_flags(conn: sa.Connection) -> None:
    none, seen, both = add(conn), add(conn, flags=("\\seen",)), add(conn, flags=("\\seen", "a_b"))
    like = add(conn, flags=("acb", "xa_b", "a_bx"))
    assert listed(conn, flags=frozenset({"\\seen"})) == [both, seen]
    assert listed(conn, flags=frozenset({"\\seen", "a_b"})) == [both]
    assert listed(conn, flags=frozenset({"a_b"})) == [both]
    assert listed(conn, flags=frozenset({"seen"})) == []
    assert listed(conn, not_flags=frozenset({"\\seen"})) == [like, none]
    assert listed(conn, not_flags=frozenset({"acb"}), flags=frozenset({"\\seen"})) == [both, seen]


def test_by_text(conn: sa.Connection) -> None:
    ada = add(conn, msg_from="Ada@example.com", rcpt_to="shop+1@example.org", subject="100% of Bestellung Ü1")
    bob = add(conn, msg_from="bob@example.net", rcpt_to="shop@example.org", subject="100 of")
    assert listed(conn, from_="ada@EXAMPLE.com") == [ada]
    assert listed(conn, from_="@example.") == [bob, ada]
    assert listed(conn, to="+1") == [ada]
    assert listed(conn, subject="0% OF") == [ada]
    assert listed(conn, subject="Ü1") == [ada]
    assert listed(conn, subject="_") == []
    assert listed(conn, subject="100", to="shop@", from_="bob") == [bob]


def test_pages_are_stable(conn: sa.Connection) -> None:
    ids = [add(conn, seconds // 3) for seconds in range(10)]
    assert walked(conn, 4) == [ids[:5:-1], ids[5:1:-1], ids[1::-1]]
    assert walked(conn, 10) == [ids[::-1]]
    assert walked(conn, 3, before=at(2)) == [ids[5:2:-1], ids[2::-1]]
    first = page(conn, "shop", MessageFilter(), maximum=4)
    assert first is not None
    for gone in (ids[6], ids[5]):  # the last of that page, and the first of the next
        received.delete(conn, "shop", gone)
    add(conn, 100)
    second = page(conn, "shop", MessageFilter(), cursor=first[1], maximum=4)
    assert second is not None
    assert [one.message.id for one in second[0]] == ids[4:0:-1]


def test_a_page_looks_at_so_many(conn: sa.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox_listing, "EXAMINED", 4)
    ids = [add(conn, 0, subject="wanted" if n in (1, 8, 9) else "") for n in range(10)]
    # 9 to 6, 5 to 2, the last two.
    assert walked(conn, 10, subject="wanted") == [[ids[9], ids[8]], [], [ids[1]]]
    assert walked(conn, 1, subject="wanted") == [[ids[9]], [ids[8]], [ids[1]], []]
    assert walked(conn, 10, subject="nowhere") == [[], [], []]
    assert walked(conn, 10) == [ids[::-1]]


@pytest.mark.parametrize("cursor", ["x", "!", "AAAA", "a" * 1000, "\u00fc", "LTEuMQ.."])
def test_what_is_no_cursor(conn: sa.Connection, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        page(conn, "shop", MessageFilter(), cursor=cursor)


@pytest.mark.parametrize("maximum", [0, -1, 1001])
def test_what_is_no_page(conn: sa.Connection, maximum: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        page(conn, "shop", MessageFilter(), maximum=maximum)


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("subject", ["", "hi"])
@pytest.mark.parametrize(
    ("wanted", "bounds"),
    [
        ({}, "received_account (account=?)"),
        ({"mailbox": "Inbox"}, "received_mailbox (account=? AND mailbox_id=?)"),
        ({"since": NOW}, "received_account (account=? AND received>?)"),
        ({"before": NOW + timedelta(1)}, "received_account (account=? AND received<?)"),
        (
            {"mailbox": "Inbox", "before": at(1)},
            "received_mailbox (account=? AND mailbox_id=? AND received<?)",
        ),
    ],
)
def test_only_what_is_the_accounts_is_read(
    conn: sa.Connection, wanted: dict[str, Any], bounds: str, subject: str, statistics: bool
) -> None:
    for n in range(200):
        add(conn, n, account=f"a{n % 3}", mailbox=f"M{n % 5}")
    for n in range(9):
        add(conn, n, subject="hi")
    if statistics:
        conn.exec_driver_sql("ANALYZE")
    first = page(conn, "shop", MessageFilter(), maximum=5)
    assert first is not None
    for cursor in ("", first[1]):
        work = partial(page, conn, "shop", MessageFilter(subject=subject, **wanted), cursor=cursor)
        plan = plans(conn, work)
        found = set(re.findall(r"received USING (?:COVERING )?INDEX (.*)", plan))
        if not cursor:
            assert found == {bounds}, plan
        else:
            assert all(" AND received" in one for one in found), plan
        assert not re.search(r"SCAN (?!anon_1)", plan), plan
