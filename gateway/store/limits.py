"""The 24-hour limits: hourly counters, and the addresses that an account has sent to before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from gateway.errors import SubmissionRefused
from gateway.mail.address import Address
from gateway.store.statements import Statement
from gateway.store.tables import UtcTime, known_recipient, sent_hour

_HOUR = 3600
_CHUNK = 500  # addresses in one statement
# Counted first and read afterwards: on PostgreSQL the row lock makes submissions of one account take turns.
_COUNT = Statement(
    sa.text(
        "INSERT INTO sent_hour (account, hour, recipients, first_time)"
        " VALUES (:account, :hour, :recipients, :first_time)"
        " ON CONFLICT (account, hour) DO UPDATE SET recipients = sent_hour.recipients + excluded.recipients,"
        " first_time = sent_hour.first_time + excluded.first_time"
    )
)
_LEARN = Statement(
    sa.text(
        "INSERT INTO known_recipient (account, address, first) VALUES (:account, :address, :now)"
        " ON CONFLICT (account, address) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcTime()))
)
_KNOWN = Statement(
    sa.select(known_recipient.c.address).where(
        known_recipient.c.account == sa.bindparam("account"),
        known_recipient.c.address.in_(sa.bindparam("addresses", expanding=True)),
    )
)
_SUM = Statement(
    sa.select(
        sa.func.coalesce(sa.func.sum(sent_hour.c.recipients), 0),
        sa.func.coalesce(sa.func.sum(sent_hour.c.first_time), 0),
    ).where(sent_hour.c.account == sa.bindparam("account"), sent_hour.c.hour >= sa.bindparam("since"))
)


def hour_of(now: datetime) -> int:
    """Hours since 1970."""
    return int(now.timestamp()) // _HOUR


def count(
    conn: sa.Connection,
    account: str,
    recipients: Sequence[Address],
    now: datetime,
    *,
    max_messages: int | None,
    max_first_time: int | None,
) -> None:
    """Counts a submission, whether or not there is a limit.

    Raises SubmissionRefused ("messageLimitReached", "recipientLimitReached"); the caller's transaction then
    rolls the count back.
    """
    addresses = list(dict.fromkeys(_known_as(address) for address in recipients))
    known: set[str] = set()
    for start in range(0, len(addresses), _CHUNK):
        chunk = addresses[start : start + _CHUNK]
        known.update(row[0] for row in _KNOWN.all(conn, {"account": account, "addresses": chunk}))
    new = [address for address in addresses if address not in known]
    hour = hour_of(now)
    _COUNT.run(
        conn,
        {"account": account, "hour": hour, "recipients": len(recipients), "first_time": len(new)},
    )
    if new:
        _LEARN.run_each(conn, [{"account": account, "address": address, "now": now} for address in new])
    if max_messages is None and max_first_time is None:
        return
    messages, first_time = sums(conn, account, now)
    if max_messages is not None and messages > max_messages:
        raise SubmissionRefused(
            "messageLimitReached",
            f"account {account} may send {max_messages} messages in 24 hours, counted for each recipient,"
            f" and has sent {messages - len(recipients)}; this submission has {len(recipients)}",
        )
    if max_first_time is not None and new and first_time > max_first_time:
        raise SubmissionRefused(
            "recipientLimitReached",
            f"account {account} may send to {max_first_time} first-time recipients in 24 hours and has"
            f" sent to {first_time - len(new)}; this submission has {len(new)}",
        )


def sums(conn: sa.Connection, account: str, now: datetime) -> tuple[int, int]:
    """Recipients and first-time recipients of the last 24 hours, the oldest hour counted whole."""
    recipients, first_time = _SUM.all(conn, {"account": account, "since": hour_of(now) - 24})[0]
    return int(recipients), int(first_time)


def _known_as(address: Address) -> str:
    # Most systems ignore the case of localparts; for "have we sent there before" that is the safe reading.
    return f"{address.localpart.casefold()}@{address.domain}"
