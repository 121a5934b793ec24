"""Migrations make exactly the schema of tables.py, and cost nothing when there is nothing to do."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from gateway.store import migrations
from gateway.store.store import FILE, make_engine
from gateway.store.tables import metadata


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as conn:
        yield conn
    engine.dispose()


def schema(conn: sa.Connection) -> dict[str, str]:
    """Every table and index as SQL: columns, constraints, partial conditions, AUTOINCREMENT and all."""
    rows = conn.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: re.sub(r" ?([,()]) ?", r"\1", " ".join(sql.split())) for name, sql in rows}


def test_a_new_database_is_as_a_migrated_one(conn: sa.Connection) -> None:
    command.upgrade(migrations.alembic_config(conn), "head")
    engine = sa.create_engine("sqlite://")
    with engine.connect() as new:
        migrations.upgrade(new)
        assert migrations.stored_version(new) == migrations.stored_version(conn) == migrations.head()
        made = schema(new)
    engine.dispose()
    assert schema(conn) == made
    assert any("WHERE " in sql for sql in made.values())  # partial indexes are compared


@pytest.mark.parametrize("version", migrations.versions())
def test_an_older_database_is_migrated(conn: sa.Connection, version: str) -> None:
    command.upgrade(migrations.alembic_config(conn), version)
    assert migrations.stored_version(conn) == version
    migrations.upgrade(conn)
    migrated = schema(conn)
    metadata.drop_all(conn)
    conn.exec_driver_sql("DROP TABLE alembic_version")
    migrations.upgrade(conn)
    assert migrated == schema(conn)


def test_upgrade_is_one_transaction_of_the_caller(conn: sa.Connection) -> None:
    conn.exec_driver_sql("BEGIN")
    migrations.upgrade(conn)
    assert migrations.stored_version(conn) == migrations.head()
    conn.rollback()
    assert migrations.stored_version(conn) is None


def test_upgrade_twice_does_nothing(conn: sa.Connection) -> None:
    migrations.upgrade(conn)
    before = schema(conn)
    migrations.upgrade(conn)
    assert schema(conn) == before


def test_file_names_say_what_the_scripts_say() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    revisions = list(scripts.walk_revisions())
    assert scripts.get_heads() == [migrations.head()]
    assert sorted(script.revision for script in revisions) == migrations.versions()


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["CREATE TABLE photos (id)"], "another program's database"),
        (
            ["CREATE TABLE alembic_version (version_num)", "INSERT INTO alembic_version VALUES ('9000')"],
            r"newer version of the gateway \(schema 9000, this one knows \d{4}\)",
        ),
    ],
)
def test_refuses_what_is_not_ours(conn: sa.Connection, statements: list[str], said: str) -> None:
    for statement in statements:
        conn.exec_driver_sql(statement)
    with pytest.raises(migrations.NotOurs, match=said):
        migrations.upgrade(conn)


def test_alembic_is_imported_only_for_an_older_database(tmp_path: Path) -> None:
    program = """
import sys, trio
from pathlib import Path
from gateway.clock import Clock
from gateway.store.store import Store

async def main():
    async with Store.open(Path(sys.argv[1]), Clock()):
        print("alembic" in sys.modules)

trio.run(main)
"""

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    assert [run(), run()] == ["False", "False"]
    (tmp_path / FILE).unlink()
    engine = make_engine(tmp_path / FILE)
    with engine.connect() as conn:
        command.upgrade(migrations.alembic_config(conn), migrations.versions()[0])
    assert [run(), run()] == ["True", "False"]
