"""Whether the gateway made a message's FromID: only then is a report that knows it trusted."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column(
        "message", sa.Column("from_id_secret", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    # Who made those of before is not known; the gateway's have 22 characters.
    op.execute("UPDATE message SET from_id_secret = true WHERE from_id <> '' AND length(from_id) = 22")
