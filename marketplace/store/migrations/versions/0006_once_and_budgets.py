"""Once and budgets"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_NAMED = sa.text("idempotency IS NOT NULL")


def upgrade() -> None:
    """Adds what a retry has been answered with, and what bearer keys and granted keys may buy."""
    op.create_table(
        "key_grant",
        sa.Column("buyer", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("models", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("buyer", "key"),
    )
    with op.batch_alter_table("job") as batch_op:
        batch_op.add_column(sa.Column("retries", sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("job") as batch_op:
        batch_op.alter_column("retries", server_default=None)
    op.create_index("job_named", "job", ["created_at_ms"], sqlite_where=_NAMED, postgresql_where=_NAMED)
    with op.batch_alter_table("delegate_key") as batch_op:
        batch_op.add_column(sa.Column("models", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("budget_atoms", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("expires_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("revoked_at_ms", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("delegate_key") as batch_op:
        batch_op.alter_column("models", server_default=None)


def downgrade() -> None:
    """Forgets all of it."""
    with op.batch_alter_table("delegate_key") as batch_op:
        for column in ("revoked_at_ms", "expires_at", "budget_atoms", "models"):
            batch_op.drop_column(column)
    op.drop_index("job_named", "job")
    with op.batch_alter_table("job") as batch_op:
        batch_op.drop_column("retries")
    op.drop_table("key_grant")
