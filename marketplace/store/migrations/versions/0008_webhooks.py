"""Webhooks, and for how long content is kept"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds where keys want to be told, what they are told, and until when a job's content is kept."""
    with op.batch_alter_table("job") as batch_op:
        batch_op.add_column(sa.Column("keep_until_ms", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("deleted_at_ms", sa.BigInteger(), nullable=True))
        batch_op.create_index(batch_op.f("ix_job_keep_until_ms"), ["keep_until_ms"], unique=False)
    op.execute("UPDATE job SET keep_until_ms = created_at_ms + 86400000")
    op.create_table(
        "deletion",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("signer", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_table(
        "webhook",
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("events", sa.String(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("asked_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("failing_since_ms", sa.BigInteger(), nullable=True),
        sa.Column("disabled_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("disabled_reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("webhook_id"),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("tx_hash", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("answered", sa.Integer(), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("number"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("webhook") as batch_op:
        batch_op.create_index(batch_op.f("ix_webhook_key"), ["key"], unique=False)
    with op.batch_alter_table("webhook_delivery", table_kwargs={"sqlite_autoincrement": True}) as batch_op:
        batch_op.create_index("delivery_due", ["state", "next_at_ms"], unique=False)
        batch_op.create_index("delivery_subject", ["webhook_id", "subject"], unique=False)
        batch_op.create_index(batch_op.f("ix_webhook_delivery_webhook_id"), ["webhook_id"], unique=False)


def downgrade() -> None:
    """Forgets all of it."""
    op.drop_table("deletion")
    with op.batch_alter_table("job") as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_keep_until_ms"))
        batch_op.drop_column("deleted_at_ms")
        batch_op.drop_column("keep_until_ms")
    op.drop_table("webhook_delivery")
    op.drop_table("webhook")
