"""Payments without an account"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the quotes that somebody without an account paid."""
    op.create_table(
        "payment",
        sa.Column("receiver", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("quote", sa.LargeBinary(), nullable=False),
        sa.Column("payer", sa.String(), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("identifier", sa.String(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("asked_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("refunds", sa.Integer(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("receiver"),
        sa.UniqueConstraint("session_id"),
        sa.UniqueConstraint("identifier"),
    )
    with op.batch_alter_table("payment") as batch_op:
        batch_op.create_index(batch_op.f("ix_payment_key"), ["key"], unique=False)
        batch_op.create_index(batch_op.f("ix_payment_payer"), ["payer"], unique=False)
        batch_op.create_index(batch_op.f("ix_payment_done"), ["done"], unique=False)


def downgrade() -> None:
    """Forgets them; the money comes back by the till alone."""
    op.drop_table("payment")
