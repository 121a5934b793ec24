"""Accounts' API keys, as what finds them again: a key itself is nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from gateway.store.tables import AnyRow, api_key

_c = api_key.c


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """See `tables.ApiKeyRow`."""

    id: int
    account: str
    name: str
    scopes: frozenset[str]
    created: datetime
    expires: datetime | None  # None: never
    last_used: datetime | None  # to a minute


_COLUMNS = tuple(_c[name] for name in ApiKey.__dataclass_fields__)
_BY_DIGEST = sa.select(*_COLUMNS).where(_c.digest == sa.bindparam("wanted"))


def by_digest(conn: sa.Connection, digest: bytes) -> ApiKey | None:
    """The key whose SHA-256 this is, expired or not."""
    row = conn.execute(_BY_DIGEST, {"wanted": digest}).first()
    return None if row is None else _key(row)


def add(
    conn: sa.Connection,
    now: datetime,
    *,
    account: str,
    name: str,
    digest: bytes,
    scopes: frozenset[str],
    expires: datetime | None,
    maximum: int,
) -> bool | None:
    """False if the account has a key of this name, None if it has `maximum` keys; then nothing changes."""
    mine = of_account(conn, account)
    if any(key.name == name for key in mine):
        return False
    if len(mine) >= maximum:
        return None
    conn.execute(
        sa.insert(api_key),
        {
            "account": account,
            "name": name,
            "digest": digest,
            "scopes": sorted(scopes),
            "created": now,
            "expires": expires,
        },
    )
    return True


def of_account(conn: sa.Connection, account: str) -> tuple[ApiKey, ...]:
    """By name."""
    rows = conn.execute(sa.select(*_COLUMNS).where(_c.account == account).order_by(_c.name))
    return tuple(_key(row) for row in rows)


def used(conn: sa.Connection, key_id: int, now: datetime) -> None:
    conn.execute(sa.update(api_key).where(_c.id == key_id).values(last_used=now))


def remove(conn: sa.Connection, account: str, name: str) -> bool:
    """False if there is none."""
    return conn.execute(sa.delete(api_key).where(_c.account == account, _c.name == name)).rowcount == 1


def _key(row: AnyRow) -> ApiKey:
    values = row._asdict()
    return ApiKey(**(values | {"scopes": frozenset(values["scopes"])}))
