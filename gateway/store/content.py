"""The rows of messages' bytes: small ones are in their row, large ones in a content store that it names.

A content belongs to its row. Its store has it durably before the row is written; the row goes in the
transaction that removes its last reference, the content after that commit. So a crash leaves no row without
its content; contents that no row names are swept (gateway.store.contents).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Protocol

import sqlalchemy as sa

from gateway.store import tables
from gateway.store.statements import Statement

SMALL = 128 * 1024  # bytes: from here on in a store (row and file cost the same near twice that)
BATCH = 500  # names or IDs at a time


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """Bytes that may get a row: in `data`, or durable in a content store (`file`: see `tables.content`)."""

    size: int
    data: bytes | None = None
    file: str | None = None


class Located(Protocol):
    """Where stored bytes are: a StoredBytes, or what was read from a row."""

    @property
    def size(self) -> int: ...
    @property
    def data(self) -> bytes | None: ...
    @property
    def file(self) -> str | None: ...


_INSERT = Statement(sa.insert(tables.content))
_UNUSED = (
    tables.content.c.id.in_(sa.bindparam("ids", expanding=True)),
    ~sa.exists().where(tables.message.c.content_id == tables.content.c.id),
    ~sa.exists().where(tables.received.c.content_id == tables.content.c.id),
)
_UNUSED_FILES = Statement(
    sa.select(tables.content.c.file).where(*_UNUSED, tables.content.c.file.is_not(None))
)
_DELETE_UNUSED = Statement(sa.delete(tables.content).where(*_UNUSED))


def insert_content(conn: sa.Connection, stored: StoredBytes, now: datetime) -> int:
    """Writes the row of stored bytes; answers its ID. Store.write is told `size=stored.size` for it."""
    return insert_contents(conn, [(stored, now)])[0]


def insert_contents(conn: sa.Connection, new: Sequence[tuple[StoredBytes, datetime]]) -> list[int]:
    """`insert_content` for each."""
    return _INSERT.insert_each(
        conn,
        [
            {"size": stored.size, "data": stored.data, "file": stored.file, "created": now}
            for stored, now in new
        ],
    )


def release_content(conn: sa.Connection, content_ids: Iterable[int]) -> list[str]:
    """Deletes those of the rows that nothing refers to any more.

    Answers the files to hand to Contents.unlink after the commit.
    """
    files: list[str] = []
    ids = iter(sorted(set(content_ids)))
    while some := list(islice(ids, BATCH)):
        files += [row.file for row in _UNUSED_FILES.all(conn, {"ids": some})]
        _DELETE_UNUSED.run(conn, {"ids": some})
    return files


def files_with_row(conn: sa.Connection, names: list[str]) -> set[str]:
    """Those of at most a few hundred file names that a row has."""
    return set(conn.scalars(sa.select(tables.content.c.file).where(tables.content.c.file.in_(names))))
