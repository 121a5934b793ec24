from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from gateway.errors import SubmissionRefused
from gateway.store import limits, tables
from tests.store.sample import NOW, add, at, count, database

HOUR = 3600


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as conn:
        yield conn


def refusal(conn: sa.Connection, *recipients: str, **fields: object) -> SubmissionRefused:
    """The refusal of a submission, rolled back as a write is."""
    conn.exec_driver_sql("SAVEPOINT attempt")
    with pytest.raises(SubmissionRefused) as refused:
        add(conn, *recipients, **fields)
    conn.exec_driver_sql("ROLLBACK TO attempt")
    return refused.value


def test_messages_are_counted_for_each_recipient(conn: sa.Connection) -> None:
    add(conn, "a@x.example", "a@x.example", "b@x.example", max_messages=4)
    refused = refusal(conn, "a@x.example", "b@x.example", max_messages=4)
    assert refused.code == "messageLimitReached"
    assert "may send 4 messages" in str(refused)
    assert "has sent 3; this submission has 2" in str(refused)
    add(conn, "a@x.example", max_messages=4)
    assert limits.sums(conn, "shop", NOW) == (4, 2)
    add(conn, "a@x.example", account="other", max_messages=1)
    add(conn, "a@x.example")  # no limit, but counted
    assert limits.sums(conn, "shop", NOW) == (5, 2)


def test_first_time_recipients(conn: sa.Connection) -> None:
    add(conn, "Ann@x.example", "bob@x.example", max_first_time=2)
    add(conn, "ann@x.example", "BOB@X.example", max_first_time=2)
    refused = refusal(conn, "ann@x.example", "eve@x.example", max_first_time=2)
    assert refused.code == "recipientLimitReached"
    assert "has sent to 2; this submission has 1" in str(refused)
    assert count(conn, tables.known_recipient) == 2
    assert limits.sums(conn, "shop", NOW) == (4, 2)


def test_the_day_passes(conn: sa.Connection) -> None:
    add(conn, "a@x.example", "b@x.example", max_messages=2, max_first_time=2)
    refusal(conn, "a@x.example", max_messages=2, now=at(23 * HOUR))
    assert refusal(conn, "c@x.example", max_first_time=2, now=at(24 * HOUR)).code == "recipientLimitReached"
    add(conn, "a@x.example", "c@x.example", max_messages=2, max_first_time=2, now=at(25 * HOUR))


def test_a_refused_submission_leaves_nothing(conn: sa.Connection) -> None:
    refusal(conn, *(f"u{i}@x.example" for i in range(3)), max_messages=2)
    for table in (tables.message, tables.content, tables.known_recipient, tables.sent_hour):
        assert count(conn, table) == 0
