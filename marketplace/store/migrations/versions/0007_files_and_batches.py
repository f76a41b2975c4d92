"""Files and batches"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds files of requests, and the batches that run them."""
    op.create_table(
        "file",
        sa.Column("file_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("file_id"),
    )
    op.create_index("ix_file_key", "file", ["key"], unique=False)
    op.create_table(
        "file_line",
        sa.Column("file_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("file_id", "number"),
    )
    _create_batch()
    op.create_table(
        "batch_line",
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("custom_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("ceiling_atoms", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "number"),
    )
    op.create_index("batch_line_next", "batch_line", ["batch_id", "state", "number"], unique=False)


def downgrade() -> None:
    """Forgets them."""
    for table in ("batch_line", "batch", "file_line", "file"):
        op.drop_table(table)


def _create_batch() -> None:
    op.create_table(
        "batch",
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("input_file_id", sa.String(), nullable=False),
        sa.Column("output_file_id", sa.String(), nullable=False),
        sa.Column("error_file_id", sa.String(), nullable=False),
        sa.Column("labels", sa.String(), nullable=False),
        sa.Column("trace_id", sa.String(), nullable=False),
        sa.Column("idempotency", sa.String(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("ending", sa.String(), nullable=True),
        sa.Column("problem", sa.String(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("max_cost_atoms", sa.BigInteger(), nullable=True),
        sa.Column("ceiling_atoms", sa.BigInteger(), nullable=False),
        sa.Column("cost_atoms", sa.BigInteger(), nullable=False),
        sa.Column("units_in", sa.BigInteger(), nullable=False),
        sa.Column("units_out", sa.BigInteger(), nullable=False),
        sa.Column("energy_millijoules", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("began_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("cancelling_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("finalizing_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id"),
        sa.UniqueConstraint("idempotency"),
    )
    for column in ("key", "input_file_id", "status"):
        op.create_index(f"ix_batch_{column}", "batch", [column], unique=False)
