"""Expiry of files"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds when files end, how long a batch's results are kept, and how a job's line is found.

    What is there already is kept for 30 days, as where nothing is said.
    """
    with op.batch_alter_table("file") as batch_op:
        batch_op.add_column(sa.Column("expires_at_ms", sa.BigInteger(), nullable=True))
    op.execute(sa.text("UPDATE file SET expires_at_ms = created_at_ms + 2592000000"))
    with op.batch_alter_table("file") as batch_op:
        batch_op.alter_column("expires_at_ms", existing_type=sa.BigInteger(), nullable=False)
        batch_op.create_index("ix_file_expires_at_ms", ["expires_at_ms"])
    with op.batch_alter_table("batch") as batch_op:
        batch_op.add_column(sa.Column("keep_ms", sa.BigInteger(), nullable=True))
    op.execute(sa.text("UPDATE batch SET keep_ms = 2592000000"))
    with op.batch_alter_table("batch") as batch_op:
        batch_op.alter_column("keep_ms", existing_type=sa.BigInteger(), nullable=False)
    op.create_index("ix_batch_line_job_id", "batch_line", ["job_id"])


def downgrade() -> None:
    """Forgets them."""
    op.drop_index("ix_batch_line_job_id", "batch_line")
    with op.batch_alter_table("batch") as batch_op:
        batch_op.drop_column("keep_ms")
    with op.batch_alter_table("file") as batch_op:
        batch_op.drop_index("ix_file_expires_at_ms")
        batch_op.drop_column("expires_at_ms")
