"""What became of TLS: counted by day, written with the attempts that it is of, removed in time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from gateway.net.tls_results import TlsResult
from gateway.store import cleanup, tls_results
from gateway.store.changes import STEP
from gateway.store.tables import tls_result
from tests.store.sample import NOW, database

TODAY = tls_results.day_of(NOW)
RESULT = TlsResult(
    recipient_domain="example.org",
    policy_type="sts",
    policy_domain="example.org",
    mx_host="mx.example.org",
    remote_ip="192.0.2.1",
    local_ip="192.0.2.9",
    policy=("version: STSv1", "mode: enforce"),
    mx=("*.example.org",),
)
EXPIRED = replace(RESULT, result="certificate-expired", detail="the certificate has expired")


def rows(conn: sa.Connection, day: int = TODAY) -> list[tuple[Any, ...]]:
    found = tls_results.of_day(conn, day, "example.org")
    return [(row.mx_host, row.result, row.sessions, row.detail) for row in found]


def test_equal_ones_are_counted() -> None:
    with database() as conn:
        tls_results.add(conn, [RESULT, EXPIRED, RESULT], NOW)
        tls_results.add(conn, [replace(EXPIRED, detail="since long", policy=("new",))], NOW)
        tls_results.add(conn, [replace(RESULT, recipient_domain="example.net")], NOW)
        tls_results.add(conn, [RESULT], NOW + timedelta(days=1))
        assert rows(conn) == [
            ("mx.example.org", "", 2, ""),
            ("mx.example.org", "certificate-expired", 2, "since long"),
        ]
        first, second = tls_results.of_day(conn, TODAY, "example.org")
        assert first.policy == {"strings": ["version: STSv1", "mode: enforce"], "mx": ["*.example.org"]}
        assert second.policy == {"strings": ["new"], "mx": ["*.example.org"]}
        assert rows(conn, TODAY + 1) == [("mx.example.org", "", 1, "")]


def test_removed_when_no_report_is_made_of_them_any_more() -> None:
    with database() as conn:
        many = [replace(RESULT, mx_host=f"mx{number}") for number in range(STEP + 1)]
        tls_results.add(conn, many, NOW - timedelta(days=tls_results.KEPT_DAYS + 1))
        tls_results.add(conn, [RESULT], NOW - timedelta(days=tls_results.KEPT_DAYS))
        assert cleanup.tls_results(conn, NOW).more
        assert cleanup.tls_results(conn, NOW).count == 1
        assert conn.scalar(sa.select(sa.func.count()).select_from(tls_result)) == 1
