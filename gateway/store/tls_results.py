"""What became of TLS, counted by day, for TLS reports (RFC 8460)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from gateway.net.tls_results import TlsResult
from gateway.store.statements import Statement
from gateway.store.tables import AnyRow, tls_result

KEPT_DAYS = 8  # a report is of the day before; what cannot be sent is tried again for a while
_DAY = 86400

_COUNT = Statement(
    sa.text(
        "INSERT INTO tls_result (day, recipient_domain, policy_type, policy_domain, mx_host, remote_ip,"
        " local_ip, result, sessions, detail, policy)"
        " VALUES (:day, :recipient_domain, :policy_type, :policy_domain, :mx_host, :remote_ip,"
        " :local_ip, :result, 1, :detail, :policy)"
        " ON CONFLICT (day, recipient_domain, policy_type, policy_domain, mx_host, remote_ip, local_ip,"
        " result) DO UPDATE SET sessions = tls_result.sessions + 1, detail = excluded.detail,"
        " policy = excluded.policy"
    ).bindparams(sa.bindparam("policy", type_=sa.JSON()))
)


def day_of(now: datetime) -> int:
    """Days since 1970."""
    return int(now.timestamp()) // _DAY


def add(conn: sa.Connection, results: Sequence[TlsResult], now: datetime) -> None:
    """Counts connections."""
    for one in results:
        _COUNT.run(
            conn,
            {
                "day": day_of(now),
                "recipient_domain": one.recipient_domain,
                "policy_type": one.policy_type,
                "policy_domain": one.policy_domain,
                "mx_host": one.mx_host,
                "remote_ip": one.remote_ip,
                "local_ip": one.local_ip,
                "result": one.result,
                "detail": one.detail,
                "policy": {"strings": list(one.policy), "mx": list(one.mx)},
            },
        )


def of_day(conn: sa.Connection, day: int, recipient_domain: str) -> Sequence[AnyRow]:
    """The rows of `tables.TlsResultRow` that a report about a domain has."""
    columns = tls_result.c
    return conn.execute(
        sa.select(tls_result)
        .where(columns.day == day, columns.recipient_domain == recipient_domain)
        .order_by(*tls_result.primary_key.columns)
    ).all()
