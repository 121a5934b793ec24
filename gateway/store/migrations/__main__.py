"""For developers: writes a new migration, from what the scripts make to what `tables.py` says.

    python -m gateway.store.migrations "purpose of the change"

Read what it wrote before you commit it: it must only expand.
"""

from __future__ import annotations

import sys

import sqlalchemy as sa
from alembic import command

from gateway.store import migrations


def main(purpose: str) -> None:
    with sa.create_engine("sqlite://").connect() as conn:
        done = migrations.versions()
        if done:
            migrations.upgrade(conn)
        command.revision(
            migrations.alembic_config(conn), purpose, autogenerate=True, rev_id=f"{len(done) + 1:04}"
        )


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or sys.exit(__doc__))
