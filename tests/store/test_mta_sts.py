"""MTA-STS policies in the store: one for each domain, as long as it holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from gateway.store import mta_sts
from gateway.store.changes import STEP
from gateway.store.mta_sts import StoredPolicy
from tests.store.sample import NOW, at, database

DAY = 86400.0


def policy(domain: str = "example.org", **fields: Any) -> StoredPolicy:
    given: dict[str, Any] = {
        "record_id": "1",
        "text": b"version: STSv1",
        "fetched": NOW,
        "expires": at(DAY),
        "used": NOW,
    }
    return StoredPolicy(domain=domain, **(given | fields))


def test_one_for_each_domain_until_it_expires() -> None:
    with database() as conn:
        assert mta_sts.get(conn, "example.org", NOW) is None
        mta_sts.put(conn, policy())
        mta_sts.put(conn, policy("example.net", record_id="2"))
        assert mta_sts.get(conn, "example.org", at(DAY - 1)) == policy()
        assert mta_sts.get(conn, "example.org", at(DAY)) is None
        newer = policy(record_id="3", text=b"\xff", expires=at(2 * DAY))
        mta_sts.put(conn, newer)
        assert mta_sts.get(conn, "example.org", at(DAY)) == newer
        assert mta_sts.get(conn, "example.net", NOW) == policy("example.net", record_id="2")
        mta_sts.mark_used(conn, "example.net", at(5))
        assert mta_sts.get(conn, "example.net", NOW) == policy("example.net", record_id="2", used=at(5))


def test_what_is_to_be_refreshed() -> None:
    with database() as conn:
        mta_sts.put(conn, policy("new.example", fetched=at(-10)))
        mta_sts.put(conn, policy("old.example", fetched=at(-20)))
        mta_sts.put(conn, policy("older.example", fetched=at(-30)))
        mta_sts.put(conn, policy("unused.example", fetched=at(-40), used=at(-100)))
        mta_sts.put(conn, policy("expired.example", fetched=at(-50), expires=NOW))

        def due(limit: int) -> list[str]:
            found = mta_sts.to_refresh(conn, fetched_before=at(-20), used_since=at(-99), now=NOW, limit=limit)
            return [one.domain for one in found]

        assert due(10) == ["older.example", "old.example"]
        assert due(1) == ["older.example"]


def test_the_expired_are_removed_in_steps() -> None:
    with database() as conn:
        for number in range(STEP + 1):
            mta_sts.put(conn, policy(f"{number}.example", expires=NOW))
        mta_sts.put(conn, policy(expires=NOW + timedelta(seconds=1)))
        assert mta_sts.remove_expired(conn, NOW) == STEP
        assert mta_sts.remove_expired(conn, NOW) == 1
        assert mta_sts.remove_expired(conn, NOW) == 0
        assert mta_sts.get(conn, "example.org", NOW) is not None
