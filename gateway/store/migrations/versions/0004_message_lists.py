"""Lists of an account's messages, by time."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_index("received_account", "received")
    op.create_index("received_mailbox", "received", ["account", "mailbox_id", "received", "id"], unique=False)
    op.create_index("received_account", "received", ["account", "received", "id"], unique=False)
