"""Accounts' passwords, as what checks them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime

import sqlalchemy as sa

from gateway.store.tables import credential


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """See `tables.CredentialRow`. It is never shown: no repr of its parts."""

    account: str
    argon2: str
    scram_salt: bytes
    scram_iterations: int
    scram_stored_key: bytes
    scram_server_key: bytes

    def __repr__(self) -> str:
        return f"Credential(account={self.account!r})"


_NAMES = tuple(field.name for field in fields(Credential))
_GET = sa.select(*(credential.c[name] for name in _NAMES)).where(
    credential.c.account == sa.bindparam("wanted")
)


def get(conn: sa.Connection, account: str) -> Credential | None:
    row = conn.execute(_GET, {"wanted": account}).first()
    return None if row is None else Credential(**row._asdict())


def put(conn: sa.Connection, new: Credential, now: datetime) -> None:
    """Replaces what the account had."""
    remove(conn, new.account)
    conn.execute(sa.insert(credential), asdict(new) | {"created": now})


def remove(conn: sa.Connection, account: str) -> bool:
    return conn.execute(sa.delete(credential).where(credential.c.account == account)).rowcount == 1
