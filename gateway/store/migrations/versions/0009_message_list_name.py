"""The mailing list of a message."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("message", sa.Column("list_name", sa.String(), server_default="", nullable=False))
