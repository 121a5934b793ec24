"""What became of TLS, for TLS reports."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "tls_result",
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("recipient_domain", sa.String(), nullable=False),
        sa.Column("policy_type", sa.String(), nullable=False),
        sa.Column("policy_domain", sa.String(), nullable=False),
        sa.Column("mx_host", sa.String(), nullable=False),
        sa.Column("remote_ip", sa.String(), nullable=False),
        sa.Column("local_ip", sa.String(), nullable=False),
        sa.Column("result", sa.String(), nullable=False),
        sa.Column("sessions", sa.Integer(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint(
            "day",
            "recipient_domain",
            "policy_type",
            "policy_domain",
            "mx_host",
            "remote_ip",
            "local_ip",
            "result",
        ),
    )
