"""Which plugin a message waits for, and since when."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("message", sa.Column("waits_for", sa.String(), server_default="", nullable=False))
    op.add_column("message", sa.Column("waits_since", sa.BigInteger()))
    waiting = sa.text("waits_for <> ''")
    op.create_index(
        "message_waiting",
        "message",
        ["waits_for", "id"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
