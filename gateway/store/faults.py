"""Errors of the disk and the database, as callers are told of them."""

from __future__ import annotations

import errno
import os
import sqlite3

import sqlalchemy as sa

from gateway.errors import StoreUnavailable

_REASONS = {
    sqlite3.SQLITE_FULL: "disk full",
    sqlite3.SQLITE_IOERR: "I/O error",
    sqlite3.SQLITE_BUSY: "database in use by another program",
    sqlite3.SQLITE_LOCKED: "database in use by another program",
    sqlite3.SQLITE_READONLY: "database not writable",
    sqlite3.SQLITE_PERM: "database not accessible",
    sqlite3.SQLITE_AUTH: "database not accessible",
    sqlite3.SQLITE_CANTOPEN: "database not accessible",
    sqlite3.SQLITE_CORRUPT: "database damaged",
    sqlite3.SQLITE_NOTADB: "not a database",
    sqlite3.SQLITE_PROTOCOL: "database locking failed",
    sqlite3.SQLITE_NOLFS: "file too large",
}


def unavailable(exc: BaseException) -> StoreUnavailable | None:
    """What callers are told about an error of the disk or the database; None for any other error."""
    error = exc.orig if isinstance(exc, sa.exc.DBAPIError) else exc
    if isinstance(error, sqlite3.Error):
        # The low byte is the kind, the rest says where (SQLITE_IOERR_WRITE, ...).
        reason = _REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        detail = str(error)
    elif isinstance(error, OSError):
        reason = "disk full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "I/O error"
        detail = error.strerror or str(error)
        if isinstance(error.filename, str):  # its name only: accounts see this in events
            detail += f" ({os.path.basename(error.filename)})"  # noqa: PTH119
    else:
        return None
    if reason is None:
        return None
    told = StoreUnavailable(f"{reason}: {detail}")
    told.__cause__ = exc
    return told
