"""Schema versions: the scripts in `versions/`, run by Alembic when a database is older than the newest.

Migrations only expand (new tables, new columns with defaults, new indexes), so that an older process goes on
working while a newer one starts. A new database is made from `tables` at once, which is the same. So Alembic
is imported only where there is an older one: that costs a quarter of a second, and 10 MB for good.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from gateway.store import tables

if TYPE_CHECKING:
    from alembic.config import Config

_HERE = Path(__file__).parent
_VERSION = sa.Table(  # as Alembic has it
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


class NotOurs(Exception):
    """The database has a schema that this program does not know. The text is one line for people."""


def versions() -> list[str]:
    """All versions, oldest first: scripts are named by number, then purpose, as "0001_initial.py"."""
    return sorted(path.name[:4] for path in (_HERE / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))


def head() -> str:
    return versions()[-1]


def stored_version(conn: sa.Connection) -> str | None:
    """The database's version; None for an empty database.

    Raises NotOurs.
    """
    there = sa.inspect(conn).get_table_names()
    if not there:
        return None
    if "alembic_version" not in there:
        raise NotOurs("another program's database; choose another data directory")
    stored = conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if stored is not None and stored not in versions():
        raise NotOurs(
            f"made by a newer version of the gateway (schema {stored}, this one knows {head()}); "
            "install that version, or restore a backup"
        )
    return str(stored) if stored is not None else None


def upgrade(conn: sa.Connection) -> None:
    """Brings the database to the newest version, in the transaction that is open.

    Raises NotOurs.
    """
    if stored_version(conn) == head():
        return
    if not sa.inspect(conn).get_table_names():
        tables.metadata.create_all(conn)
        _VERSION.create(conn)
        conn.execute(sa.insert(_VERSION).values(version_num=head()))
        return
    from alembic import command

    command.upgrade(alembic_config(conn), "head")


def alembic_config(conn: sa.Connection) -> Config:
    """Alembic's settings for work on a connection whose transaction is the caller's."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = conn
    return config
