"""Model names"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds what the register on the chain calls models, and the share of orders a canary asks for."""
    op.create_table(
        "model_alias",
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("publisher", sa.String(), nullable=False),
        sa.Column("fixed", sa.Boolean(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("alias"),
    )
    with op.batch_alter_table("model_alias") as batch_op:
        batch_op.create_index(batch_op.f("ix_model_alias_model_id"), ["model_id"], unique=False)
    with op.batch_alter_table("node_model") as batch_op:
        batch_op.add_column(sa.Column("canary_bps", sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("node_model") as batch_op:
        batch_op.alter_column("canary_bps", server_default=None)


def downgrade() -> None:
    """Forgets both."""
    with op.batch_alter_table("node_model") as batch_op:
        batch_op.drop_column("canary_bps")
    op.drop_table("model_alias")
