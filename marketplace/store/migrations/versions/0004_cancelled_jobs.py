"""Cancelled jobs"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds when a job's buyer wanted no more of it."""
    with op.batch_alter_table("job") as batch_op:
        batch_op.add_column(sa.Column("cancel_asked_ms", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Forgets it."""
    with op.batch_alter_table("job") as batch_op:
        batch_op.drop_column("cancel_asked_ms")
