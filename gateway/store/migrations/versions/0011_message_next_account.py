"""Lists of one account by next attempt: those of others are passed over within the index."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.drop_index("message_next", table_name="message")
    op.create_index("message_next", "message", ["state", "next_attempt", "id", "account"])
