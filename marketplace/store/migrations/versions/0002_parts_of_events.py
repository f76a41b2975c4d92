"""Parts of events"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A log's place and its part were one number before.
_FACTOR = 4096
_TEXTS = ("block_hash", "tx_hash", "contract", "name", "subject", "args")
_INDEXED = ("name", "subject", "tx_hash")


def upgrade() -> None:
    """Gives the part of an event a column of its own, and a place in the key."""
    before = _moved("block_number", "log_index")
    log_index, part = before.c.log_index // _FACTOR, before.c.log_index % _FACTOR
    _replace(before, {"block_number": before.c.block_number, "log_index": log_index, "part": part})


def downgrade() -> None:
    """Makes one number of both again."""
    before = _moved("block_number", "log_index", "part")
    place = before.c.log_index * _FACTOR + before.c.part
    _replace(before, {"block_number": before.c.block_number, "log_index": place})


def _moved(*key: str) -> sa.TableClause:
    # A new table takes its place, because SQLite cannot change a primary key.
    for name in _INDEXED:
        op.drop_index(f"ix_chain_event_{name}", table_name="chain_event")
    op.rename_table("chain_event", "chain_event_before")
    numbers = [sa.column(name, sa.Integer()) for name in key]
    return sa.table("chain_event_before", *numbers, *(sa.column(name, sa.String()) for name in _TEXTS))


def _replace(before: sa.TableClause, key: dict[str, sa.ColumnElement[int]]) -> None:
    fresh = op.create_table(
        "chain_event",
        *(sa.Column(name, sa.Integer(), nullable=False) for name in key),
        *(sa.Column(name, sa.String(), nullable=False) for name in _TEXTS),
        sa.PrimaryKeyConstraint(*key),
    )
    rows = sa.select(*key.values(), *(before.c[name] for name in _TEXTS))
    op.execute(fresh.insert().from_select([*key, *_TEXTS], rows))
    op.drop_table("chain_event_before")
    for name in _INDEXED:
        op.create_index(f"ix_chain_event_{name}", "chain_event", [name])
