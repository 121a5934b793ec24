"""What is known of an account's webhook URLs: since when one fails, and whether it is disabled.

A URL that works has no row.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa

from gateway.store.statements import Statement
from gateway.store.tables import AnyRow, webhook_url


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlState:
    """A URL that failed when it was last called. While `disabled` is set, no calls are made to it."""

    account: str
    url: str
    failing_since: datetime
    last_failure: datetime
    error: str
    disabled: datetime | None = None


_c = webhook_url.c
_this = (_c.account == sa.bindparam("of"), _c.url == sa.bindparam("at"))
_GET = Statement(sa.select(webhook_url).where(*_this).with_for_update())
_WORKED = Statement(sa.delete(webhook_url).where(*_this, _c.disabled.is_(None)))
_INSERT = Statement(sa.insert(webhook_url))
_CHANGING = ("failing_since", "last_failure", "error", "disabled")
_UPDATE = Statement(
    sa.update(webhook_url).where(*_this).values({name: sa.bindparam(f"new_{name}") for name in _CHANGING})
)
_DISABLED = Statement(
    sa.select(webhook_url).where(_c.disabled.is_not(None), _c.url.in_(sa.bindparam("urls", expanding=True)))
)


def get(conn: sa.Connection, account: str, url: str) -> UrlState | None:
    row = _GET.first(conn, {"of": account, "at": url})
    return None if row is None else _state(row)


def put(conn: sa.Connection, state: UrlState, *, known: bool) -> None:
    """Writes it; `known`: there is a row, which `get` has found in this transaction."""
    if not known:
        _INSERT.run(conn, asdict(state))
        return
    changed = {f"new_{name}": getattr(state, name) for name in _CHANGING}
    _UPDATE.run(conn, {"of": state.account, "at": state.url, **changed})


def worked(conn: sa.Connection, account: str, url: str) -> None:
    """Its failures are over. One that is disabled stays so: this was a call that was under way."""
    _WORKED.run(conn, {"of": account, "at": url})


def enable(conn: sa.Connection, url: str, account: str = "") -> tuple[str, ...]:
    """Calls to it are made again, of an account or of all; the accounts for which it was disabled."""
    statement = sa.delete(webhook_url).where(_c.url == url, _c.disabled.is_not(None))
    if account:
        statement = statement.where(_c.account == account)
    return tuple(sorted(conn.scalars(statement.returning(_c.account))))


def disabled(conn: sa.Connection, urls: Collection[str]) -> dict[tuple[str, str], UrlState]:
    """Those of the URLs that are disabled, by account and URL."""
    rows = _DISABLED.all(conn, {"urls": list(urls)})
    return {(row.account, row.url): _state(row) for row in rows}


def failing(conn: sa.Connection, account: str = "") -> tuple[UrlState, ...]:
    """All of an account's that failed when they were last called, or everybody's."""
    statement = sa.select(webhook_url).order_by(_c.account, _c.url)
    if account:
        statement = statement.where(_c.account == account)
    return tuple(_state(row) for row in conn.execute(statement))


def _state(row: AnyRow) -> UrlState:
    return UrlState(**row._asdict())
