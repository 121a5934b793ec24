"""How much is in each account's mailboxes."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "mailbox_usage",
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account"),
    )
    op.execute(
        "INSERT INTO mailbox_usage (account, messages, bytes)"
        " SELECT account, count(*), sum(size) FROM received GROUP BY account"
    )
