"""The suppression lists: entries, their ends, pages, and what a claim finds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.mail.address import Address
from gateway.store import cleanup, suppressions, tables
from tests.store.sample import NOW, add, at, claim, count, database, plans, recipient

JO = Address.parse("jo@example.net")


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as conn:
        yield conn


def put(
    conn: sa.Connection,
    base: str = "jo@example.net",
    *,
    account: str = "shop",
    now: datetime = NOW,
    expires: datetime | None = None,
    **fields: Any,
) -> bool:
    values: dict[str, Any] = {"original_address": "Jo+x@example.net", "manual": True, "reason": "asked"}
    return suppressions.add(
        conn, now, account=account, base_address=base, expires=expires, **(values | fields)
    )


def bases(conn: sa.Connection, account: str = "shop", **fields: Any) -> tuple[list[str], str]:
    entries, cursor = suppressions.page(conn, account, fields.pop("now", NOW), **fields)
    return [entry.base_address for entry in entries], cursor


def test_an_entry(conn: sa.Connection) -> None:
    assert put(conn)
    found = suppressions.lookup(conn, "shop", "jo@example.net", Address.parse("j.o@example.net"), at(5))
    assert found is not None
    assert (found.created, found.account, found.base_address, found.original_address) == (
        NOW,
        "shop",
        "jo@example.net",
        "Jo+x@example.net",
    )
    assert (found.manual, found.reason, found.expires) == (True, "asked", None)
    assert not put(conn, reason="again")
    assert suppressions.lookup(conn, "shop", "jo@example.net", JO, NOW) == found


def test_each_account_has_its_own(conn: sa.Connection) -> None:
    assert put(conn)
    assert put(conn, account="desk")
    assert suppressions.remove(conn, "shop", "jo@example.net", JO, NOW)
    assert not suppressions.remove(conn, "shop", "jo@example.net", JO, NOW)
    assert suppressions.lookup(conn, "shop", "jo@example.net", JO, NOW) is None
    assert suppressions.lookup(conn, "desk", "jo@example.net", JO, NOW) is not None
    assert (bases(conn), bases(conn, "desk")) == (([], ""), (["jo@example.net"], ""))


def test_an_entry_of_one_list_holds_for_that_list_only(conn: sa.Connection) -> None:
    assert put(conn, list_name="news")
    for name in ("", "offers", "news"):
        add(conn, recipient(base_address="jo@example.net"), list_name=name, message_id=f"<{name}@x>")
    found = {c.message.message_id: c.suppression and c.suppression.list_name for c in claim(conn)}
    assert found == {"<@x>": None, "<offers@x>": None, "<news@x>": "news"}

    def looked_up(name: str = "") -> str | None:
        entry = suppressions.lookup(conn, "shop", "jo@example.net", JO, NOW, name)
        return None if entry is None else entry.list_name

    assert (looked_up(), looked_up("offers"), looked_up("news")) == (None, None, "news")
    assert put(conn)
    assert not put(conn, list_name="news")
    assert (looked_up(), looked_up("offers"), looked_up("news")) == ("", "", "")
    assert bases(conn) == (["jo@example.net"] * 2, "")
    assert bases(conn, maximum=1) == (["jo@example.net"], ":jo@example.net")
    rest, _ = suppressions.page(conn, "shop", NOW, cursor=":jo@example.net")
    assert [entry.list_name for entry in rest] == ["news"]
    assert suppressions.page(conn, "shop", NOW, cursor="news:jo@example.net") == ((), "")
    assert suppressions.remove(conn, "shop", "jo@example.net", JO, NOW)
    assert not suppressions.remove(conn, "shop", "jo@example.net", JO, NOW, "offers")
    assert looked_up("news") == "news"
    assert suppressions.remove(conn, "shop", "jo@example.net", JO, NOW, "news")
    assert count(conn, tables.suppression) == 0


@pytest.mark.parametrize(
    "cursor", ["zzz", ":", "news:", "jo@example.net", ":jo", "MS4x", ":jo@example.net\0"]
)
def test_a_wrong_cursor_is_said_to_be_one(conn: sa.Connection, cursor: str) -> None:
    put(conn)
    with pytest.raises(ValueError, match=r"^cursor '.*' is none that a page ended with$"):
        suppressions.page(conn, "shop", NOW, cursor=cursor)


def test_an_end(conn: sa.Connection) -> None:
    put(conn, expires=at(10))
    put(conn, "other@example.net")
    assert suppressions.lookup(conn, "shop", "jo@example.net", JO, at(9.9)) is not None
    assert suppressions.lookup(conn, "shop", "jo@example.net", JO, at(10)) is None
    assert bases(conn, now=at(9)) == (["jo@example.net", "other@example.net"], "")
    assert bases(conn, now=at(10)) == (["other@example.net"], "")
    assert not suppressions.remove(conn, "shop", "jo@example.net", JO, at(10))
    assert not put(conn, now=at(9))
    assert put(conn, now=at(10), reason="anew")  # in its place
    found = suppressions.lookup(conn, "shop", "jo@example.net", JO, at(11))
    assert found is not None
    assert (found.created, found.reason, found.expires) == (at(10), "anew", None)
    assert count(conn, tables.suppression) == 2


def test_expired_ones_are_cleaned_up(conn: sa.Connection) -> None:
    for number in range(600):
        put(conn, f"u{number}@example.net", expires=at(number))
    put(conn)
    removed = [cleanup.suppressions(conn, at(550)) for _ in range(3)]
    assert [(r.count, r.more) for r in removed] == [(500, True), (51, False), (0, False)]
    assert count(conn, tables.suppression) == 50


def test_pages(conn: sa.Connection) -> None:
    wanted = [f"u{number}@example.net" for number in range(5)]
    for base in reversed(wanted):
        put(conn, base)
    put(conn, account="desk")
    seen: list[list[str]] = []
    cursor = ""
    while True:
        page, cursor = bases(conn, cursor=cursor, maximum=2)
        seen.append(page)
        if not cursor:
            break
        put(conn, "a@example.net")  # what comes before moves nobody to another page
    assert seen == [wanted[:2], wanted[2:4], wanted[4:]]
    for maximum in (0, 1001):
        with pytest.raises(ValueError, match="a page has 1 to 1000 entries"):
            bases(conn, maximum=maximum)


def test_a_claim_finds_the_entry(conn: sa.Connection) -> None:
    add(conn, recipient("j.o+news@example.net", base_address="jo@example.net"))
    add(conn, recipient("j.o+news@example.net", base_address="jo@example.net"), account="desk")
    add(conn, recipient("al@example.net", base_address="al@example.net"))
    put(conn)
    put(conn, "al@example.net", expires=NOW)
    found = {(c.message.account, str(c.message.recipient)): c.suppression for c in claim(conn)}
    assert {key: entry and entry.reason for key, entry in found.items()} == {
        ("shop", "j.o+news@example.net"): "asked",
        ("desk", "j.o+news@example.net"): None,
        ("shop", "al@example.net"): None,
    }
    assert all(claimed.message.base_address for claimed in claim(conn, at(3600)))


def test_an_address_that_stands_for_itself(conn: sa.Connection) -> None:
    """What was added when no plugin said the base address holds when one does; both may be there."""
    address = Address.parse("j.o@example.net")
    add(conn, recipient(str(address)))  # its base address: itself
    assert claim(conn)[0].message.base_address == "j.o@example.net"
    put(conn, "j.o@example.net", reason="itself")
    put(conn, reason="base")
    add(conn, recipient(str(address), base_address="jo@example.net"))
    [claimed] = claim(conn)
    assert claimed.suppression is not None
    assert claimed.suppression.reason == "itself"  # the older
    assert suppressions.lookup(conn, "shop", "nobody@example.net", address, NOW) is not None
    assert suppressions.remove(conn, "shop", "jo@example.net", address, NOW)
    assert count(conn, tables.suppression) == 0


def test_lookups_go_by_indexes(conn: sa.Connection) -> None:
    add(conn, *(recipient(f"u{n}@example.net", base_address=f"u{n}@example.net") for n in range(20)))
    for number in range(50):
        put(conn, f"u{number}@example.net")
    works = {
        "claim": lambda: claim(conn),
        "lookup": lambda: suppressions.lookup(conn, "shop", "jo@example.net", JO, NOW),
        "remove": lambda: suppressions.remove(conn, "shop", "u1@example.net", JO, NOW),
        "page": lambda: suppressions.page(conn, "shop", NOW, cursor=":u5@example.net"),
        "clean-up": lambda: cleanup.suppressions(conn, NOW),
    }
    for name, work in works.items():
        plan = plans(conn, work)
        assert "SCAN suppression" not in plan, f"{name}:\n{plan}"
        assert "SEARCH suppression USING" in plan, f"{name}:\n{plan}"
        assert "B-TREE" not in plan, f"{name} sorts:\n{plan}"
