"""Finds what is due: the earliest first, no more of one key (destination, URL) than it has room for.

Two steps, each a bounded walk along a partial index, whatever the table holds:

1. The earliest due rows of all. Nearly always this is the answer.
2. If these were many and their keys are busy, they may hide others: then a skip scan from key to key, in
   rounds that start where the one before stopped, and the earliest of each key with room. Where the only
   keys with room are those that took something lately, these are looked up instead.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import sqlalchemy as sa

from gateway.store.changes import Standing
from gateway.store.statements import Statement
from gateway.store.tables import UtcTime

_WINDOW = 50  # rows looked at beyond twice the room: enough to see past a few busy keys
_KEYS = 50  # keys that are looked at in one statement: about 0.2 ms
_SCANS = 4  # of these in a claim, at most


@dataclass(frozen=True, slots=True)
class Picked:
    ids: tuple[int, ...]
    position: str  # where the next skip scan starts
    more: bool  # not all that is due was seen


class Due:
    """The statements for one table, along its indexes `<table>_due` and `<table>_ready`.

    `ready` is these partial indexes' condition, word for word. SQLite is told which index to take: it has no
    statistics and would prefer any other with an equality.
    """

    def __init__(self, table: str, key: str, ready: str, one: str = "id") -> None:
        """`one`: what rows have in common that are under way together."""
        self._sqlite = _Statements(
            key,
            f"{table} INDEXED BY {table}_due",
            f"{table} INDEXED BY {table}_ready",
            f"{table} INDEXED BY {table}_leased",
            ready,
            one,
            "json_each(:names)",
        )
        names = "json_array_elements_text(CAST(:names AS json)) AS named (value)"
        self._others = _Statements(key, table, table, table, ready, one, names)

    def next(self, conn: sa.Connection) -> datetime | None:
        """When the earliest is due, also if that is in the past and its key is busy."""
        return cast("datetime | None", self._statements(conn).next.scalar(conn))

    def with_others(self, conn: sa.Connection, busy: Mapping[str, int], owner: str) -> Mapping[str, int]:
        """How much of each key is under way: `busy` of the owner, and what others have leases for."""
        all_busy = Counter(busy)
        for key, number in self._statements(conn).of_others.all(conn, {"owner": owner}):
            all_busy[key] += number
        return all_busy

    def pick(
        self,
        conn: sa.Connection,
        now: datetime,
        room: int,
        per_key: int,
        busy: Mapping[str, int],
        position: str,
        standing: Standing = Standing(),  # noqa: B008 - frozen
    ) -> Picked:
        """IDs of at most `room` due rows, such that no key has more than `per_key` with its `busy` ones, or
        than its `standing` allows."""
        if room <= 0:
            return Picked((), position, more=False)
        statements = self._statements(conn)
        taken = dict(busy)
        ids: list[int] = []
        unproven_room = room if standing.unproven_room is None else standing.unproven_room

        def room_of(key: str) -> int:
            left = min((1 if key in standing.slow else per_key) - taken.get(key, 0), room - len(ids))
            return left if key in standing.proven else min(left, unproven_room)

        window = 2 * room + _WINDOW
        seen = statements.earliest.all(conn, {"now": now, "limit": window})
        full: set[str] = set()  # room only gets less
        for row_id, key in seen:
            if key in full:
                continue
            if room_of(key) > 0:
                taken[key] = taken.get(key, 0) + 1
                unproven_room -= key not in standing.proven
                ids.append(row_id)
            else:
                full.add(key)
        # Where the others have none left, the next claim asks for proven ones only.
        used_up = standing.unproven_room != 0 and unproven_room <= 0
        if len(ids) == room or len(seen) < window or used_up:
            return Picked(tuple(ids), position, more=len(ids) == room or used_up)

        got = set(ids)

        def take(key: str) -> None:
            nonlocal unproven_room
            wanted = room_of(key)
            if wanted <= 0:
                return
            # What the first step took of this key comes first here as well.
            limit = taken.get(key, 0) - busy.get(key, 0) + wanted
            rows = statements.of_key.all(conn, {"key": key, "now": now, "limit": limit})
            added = [row_id for (row_id,) in rows if row_id not in got][:wanted]
            ids.extend(added)
            taken[key] = taken.get(key, 0) + len(added)
            unproven_room -= 0 if key in standing.proven else len(added)

        if standing.unproven_room == 0:
            # Those that have room are known: a walk over the others, of which there may be many, is spared.
            # One of each, and only then further ones.
            found: list[str] = []
            for start in range(0, len(standing.asked), _KEYS):
                names = [key for key in standing.asked[start : start + _KEYS] if room_of(key) > 0]
                for key, row_id in statements.first_of.all(conn, {"names": json.dumps(names), "now": now}):
                    found.append(key)
                    if row_id in got:
                        continue
                    ids.append(row_id)
                    got.add(row_id)
                    taken[key] = taken.get(key, 0) + 1
                    if len(ids) == room:
                        return Picked(tuple(ids), position, more=True)
            for key in found:
                take(key)
            return Picked(tuple(ids), position, more=len(ids) == room)

        for _ in range(_SCANS):
            heads = statements.keys.all(conn, {"position": position, "steps": _KEYS})
            position = heads[-1][0] if len(heads) == _KEYS else ""
            for key, _due in sorted((head for head in heads if head[1] <= now), key=lambda head: head[1]):
                take(key)
            if len(ids) == room or not position:
                break
        return Picked(tuple(ids), position, more=len(ids) == room or position != "" or unproven_room <= 0)

    def _statements(self, conn: sa.Connection) -> _Statements:
        return self._sqlite if conn.dialect.name == "sqlite" else self._others


class _Statements:
    """What S608 sees here are names of tables, columns and indexes from this program, never a value."""

    def __init__(
        self, key: str, by_time: str, by_key: str, leased: str, ready: str, one: str, names: str
    ) -> None:
        now = sa.bindparam("now", type_=UtcTime())
        self.next = Statement(
            sa.text(
                f"SELECT next_attempt FROM {by_time} WHERE {ready} ORDER BY next_attempt LIMIT 1"  # noqa: S608
            ).columns(next_attempt=UtcTime())
        )

        self.earliest = Statement(
            sa.text(
                f"SELECT id, {key} FROM {by_time} WHERE {ready} AND next_attempt <= :now"  # noqa: S608
                " ORDER BY next_attempt, id LIMIT :limit"
            )
            .bindparams(now)
            .columns(id=sa.BigInteger(), key=sa.String())
        )

        self.of_key = Statement(
            sa.text(
                f"SELECT id FROM {by_key} WHERE {ready} AND {key} = :key AND next_attempt <= :now"  # noqa: S608
                " ORDER BY next_attempt, id LIMIT :limit"
            )
            .bindparams(now)
            .columns(id=sa.BigInteger())
        )

        self.of_others = Statement(
            sa.text(
                f"SELECT {key}, count(DISTINCT {one}) FROM {leased}"  # noqa: S608
                f" WHERE lease_owner IS NOT NULL AND lease_owner <> :owner GROUP BY {key}"
            ).columns(key=sa.String(), number=sa.Integer())
        )

        self.first_of = Statement(
            sa.text(
                # Materialized, or the inner one would be run again for the condition.
                "WITH first (name, id) AS MATERIALIZED (SELECT value,"  # noqa: S608
                f" (SELECT id FROM {by_key} WHERE {ready} AND {key} = value AND next_attempt <= :now"
                f" ORDER BY next_attempt, id LIMIT 1) FROM {names})"
                " SELECT name, id FROM first WHERE id IS NOT NULL"
            )
            .bindparams(now)
            .columns(name=sa.String(), id=sa.BigInteger())
        )

        self.keys = Statement(
            sa.text(
                f"""
            WITH RECURSIVE head (name, step) AS (
                SELECT (SELECT min({key}) FROM {by_key} WHERE {ready} AND {key} > :position), 1
                UNION ALL
                SELECT (SELECT min({key}) FROM {by_key} WHERE {ready} AND {key} > head.name), step + 1
                FROM head WHERE head.name IS NOT NULL AND step < :steps
            )
            SELECT name, (SELECT min(next_attempt) FROM {by_key} WHERE {ready} AND {key} = head.name) AS due
            FROM head WHERE name IS NOT NULL
            """  # noqa: S608
            ).columns(name=sa.String(), due=UtcTime())
        )
