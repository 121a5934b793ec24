"""MTA-STS policies."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "mta_sts_policy",
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("record_id", sa.String(), nullable=False),
        sa.Column("text", sa.LargeBinary(), nullable=False),
        sa.Column("fetched", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("domain"),
    )
    op.create_index("mta_sts_policy_expires", "mta_sts_policy", ["expires"], unique=False)
    op.create_index("mta_sts_policy_fetched", "mta_sts_policy", ["fetched"], unique=False)
