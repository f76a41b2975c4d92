"""Echo of calls"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds what an answer says back of its call and the payload does not hold."""
    with op.batch_alter_table("job") as batch_op:
        batch_op.add_column(sa.Column("echo", sa.String(), nullable=False, server_default=""))
    with op.batch_alter_table("job") as batch_op:
        batch_op.alter_column("echo", server_default=None)


def downgrade() -> None:
    """Forgets it."""
    with op.batch_alter_table("job") as batch_op:
        batch_op.drop_column("echo")
