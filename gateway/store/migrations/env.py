"""What Alembic runs: migrations on the connection, and in the transaction, that the caller gives."""

from typing import Literal

import sqlmodel
from alembic import context
from alembic.autogenerate.api import AutogenContext

from gateway.store.tables import UtcTime, metadata


def render_item(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """In scripts, our column types are written as what they are in the database: that never changes."""
    if kind == "type" and isinstance(item, UtcTime):
        return "sa.BigInteger()"
    if kind == "type" and isinstance(item, sqlmodel.AutoString):
        return "sa.String()"
    return False


connection = context.config.attributes["connection"]
if not connection.in_transaction():
    # SQLAlchemy's side of a transaction that is open already; Alembic leaves its end to the caller.
    connection.begin()
context.configure(connection=connection, target_metadata=metadata, render_item=render_item)
context.run_migrations()
