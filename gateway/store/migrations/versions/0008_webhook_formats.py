"""The format of a webhook's body."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("webhook_call", sa.Column("format", sa.String(), server_default="mox", nullable=False))
