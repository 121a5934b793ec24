"""Accounts' templates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from gateway.model import Template
from gateway.store.tables import AnyRow, template

_c = template.c
_COLUMNS = (_c.name, _c.engine, _c.subject, _c.text, _c.html, _c.updated)


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    template: Template
    updated: datetime


def put(conn: sa.Connection, account: str, new: Template, now: datetime, maximum: int) -> bool:
    """Replaces one of the same name. False, and nothing changes, if there are `maximum` others."""
    remove(conn, account, new.name)
    count = conn.scalar(sa.select(sa.func.count()).select_from(template).where(_c.account == account)) or 0
    if count < maximum:
        conn.execute(
            sa.insert(template),
            {
                "account": account,
                "name": new.name,
                "engine": new.engine,
                "subject": new.subject,
                "text": new.text,
                "html": new.html,
                "updated": now,
            },
        )
    return count < maximum


def get(conn: sa.Connection, account: str, name: str) -> StoredTemplate | None:
    row = conn.execute(sa.select(*_COLUMNS).where(_c.account == account, _c.name == name)).first()
    return None if row is None else _stored(row)


def after(conn: sa.Connection, account: str, name: str, limit: int) -> tuple[StoredTemplate, ...]:
    """The templates whose names come after `name`, by name."""
    rows = conn.execute(
        sa.select(*_COLUMNS).where(_c.account == account, _c.name > name).order_by(_c.name).limit(limit)
    )
    return tuple(_stored(row) for row in rows)


def remove(conn: sa.Connection, account: str, name: str) -> bool:
    """False if there is none."""
    return conn.execute(sa.delete(template).where(_c.account == account, _c.name == name)).rowcount == 1


def _stored(row: AnyRow) -> StoredTemplate:
    return StoredTemplate(Template(**{k: v for k, v in row._asdict().items() if k != "updated"}), row.updated)
