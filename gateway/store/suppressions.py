"""The suppression lists: for each account the base addresses that it does not send to.

An entry holds for all that the account sends, or for one mailing list (`list_name`). One that has expired is
as good as none. An address is looked up under its base address and under
itself: the latter is its base address when the plugins that should have said it failed.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from gateway.mail.address import Address
from gateway.model import Suppression
from gateway.store.pages import MAX_PAGE
from gateway.store.statements import Statement
from gateway.store.tables import AnyRow, UtcTime, message, suppression

_c = suppression.c
ALL_LISTS = ""  # `list_name` of an entry that holds for all that the account sends, and of mail of no list
_NOW = sa.bindparam("now", type_=UtcTime())
_IN_FORCE = sa.or_(_c.expires.is_(None), _c.expires > _NOW)
_COLUMNS = (
    _c.id, _c.created, _c.account, _c.base_address, _c.original_address, _c.manual, _c.reason, _c.expires,
    _c.list_name,
)  # fmt: skip
_MINE = (
    _c.account == sa.bindparam("account"),
    _c.base_address.in_(sa.bindparam("keys", expanding=True)),
    _c.list_name.in_(sa.bindparam("lists", expanding=True)),
)
_LOOKUP = Statement(sa.select(*_COLUMNS).where(*_MINE, _IN_FORCE).order_by(_c.list_name))
_BY_ID = Statement(sa.select(*_COLUMNS).where(_c.id.in_(sa.bindparam("ids", expanding=True))))
_REMOVE = Statement(sa.delete(suppression).where(_c.id.in_(sa.bindparam("ids", expanding=True))))
_ADD = Statement(
    sa.text(
        "INSERT INTO suppression"
        " (created, account, base_address, original_address, list_name, manual, reason, expires)"
        " VALUES (:created, :account, :base, :original, :list_name, :manual, :reason, :expires)"
        " ON CONFLICT (account, base_address, list_name) DO UPDATE SET created = excluded.created,"
        " original_address = excluded.original_address, manual = excluded.manual, reason = excluded.reason,"
        " expires = excluded.expires WHERE suppression.expires <= :now RETURNING id"
    ).bindparams(
        sa.bindparam("now", type_=UtcTime()),
        sa.bindparam("created", type_=UtcTime()),
        sa.bindparam("expires", type_=UtcTime()),
        sa.bindparam("manual", type_=sa.Boolean()),
    )
)

# For a statement about messages that has the parameter `now`: the ID of the entry that holds for each.
ENTRY_OF_MESSAGE = (
    sa.select(sa.func.min(_c.id))
    .where(
        _c.account == message.c.account,
        _c.base_address.in_(
            [
                message.c.base_address,
                message.c.recipient_localpart + sa.literal_column("'@'") + message.c.recipient_domain,
            ]
        ),
        _c.list_name.in_([sa.literal_column("''"), message.c.list_name]),
        _IN_FORCE,
    )
    .correlate(message)
    .scalar_subquery()
    .label("suppression_id")
)


def add(
    conn: sa.Connection,
    now: datetime,
    *,
    account: str,
    base_address: str,
    original_address: str,
    manual: bool,
    reason: str,
    expires: datetime | None,
    created: datetime | None = None,
    list_name: str = ALL_LISTS,
) -> bool:
    """False, and nothing changes, if the base address is there for that list already.

    `created` is what is shown; None: now.
    """
    added = _ADD.first(
        conn,
        {
            "now": now,
            "created": created or now,
            "account": account,
            "base": base_address,
            "original": original_address,
            "list_name": list_name,
            "manual": manual,
            "reason": reason,
            "expires": expires,
        },
    )
    return added is not None


def lookup(
    conn: sa.Connection,
    account: str,
    base_address: str,
    address: Address,
    now: datetime,
    list_name: str = ALL_LISTS,
) -> Suppression | None:
    """The entry that keeps mail of a list from an address, if any: for that list, or for all."""
    keys, lists = _keys(base_address, address), sorted({ALL_LISTS, list_name})
    row = _LOOKUP.first(conn, {"account": account, "keys": keys, "lists": lists, "now": now})
    return None if row is None else _entry(row)


def remove(
    conn: sa.Connection,
    account: str,
    base_address: str,
    address: Address,
    now: datetime,
    list_name: str = ALL_LISTS,
) -> bool:
    """Removes what holds for an address and that list alone, or for all; False if there is nothing."""
    keys = _keys(base_address, address)
    found = _LOOKUP.all(conn, {"account": account, "keys": keys, "lists": [list_name], "now": now})
    if found:
        _REMOVE.run(conn, {"ids": [row.id for row in found]})
    return bool(found)


def page(
    conn: sa.Connection, account: str, now: datetime, *, cursor: str = "", maximum: int = 100
) -> tuple[tuple[Suppression, ...], str]:
    """The account's entries after `cursor`, by base address and list, and the next page's cursor, empty at
    the end.

    Raises ValueError for a cursor that no page ended with, or a page over 1000.
    """
    if not 1 <= maximum <= MAX_PAGE:
        raise ValueError(f"a page has 1 to {MAX_PAGE} entries, not {maximum}")
    list_name, base = _place(cursor) if cursor else ("", "")
    rows = conn.execute(
        sa.select(*_COLUMNS)
        .where(
            _c.account == account,
            _c.base_address >= base,
            sa.or_(_c.base_address > base, _c.list_name > list_name),
            _IN_FORCE,
        )
        .order_by(_c.base_address, _c.list_name)
        .limit(maximum + 1),
        {"now": now},
    ).all()
    entries = tuple(_entry(row) for row in rows[:maximum])
    last = entries[-1] if len(rows) > maximum else None
    return entries, f"{last.list_name}:{last.base_address}" if last is not None else ""


def by_id(conn: sa.Connection, ids: Collection[int]) -> dict[int, Suppression]:
    return {row.id: _entry(row) for row in _BY_ID.all(conn, {"ids": list(ids)})} if ids else {}


def _place(cursor: str) -> tuple[str, str]:
    """The list and the base address that a page ended with. Raises ValueError."""
    list_name, _, base = cursor.partition(":")  # the name of a list has no colon
    if "@" not in base or "\0" in cursor:
        raise ValueError(f"cursor {cursor[:100]!a} is none that a page ended with")
    return list_name, base


def _keys(base_address: str, address: Address) -> list[str]:
    return [base_address, str(address)]


def _entry(row: AnyRow) -> Suppression:
    return Suppression(**row._asdict())
