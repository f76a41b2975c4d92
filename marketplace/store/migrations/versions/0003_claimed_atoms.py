"""Claimed atoms"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds what is claimed of a session and not decided; reconciling fills it in for claims of before."""
    with op.batch_alter_table("session") as batch_op:
        batch_op.add_column(sa.Column("claimed_atoms", sa.BigInteger(), nullable=False, server_default="0"))
    with op.batch_alter_table("session") as batch_op:
        batch_op.alter_column("claimed_atoms", server_default=None)


def downgrade() -> None:
    """Forgets it."""
    with op.batch_alter_table("session") as batch_op:
        batch_op.drop_column("claimed_atoms")
