"""Alembic's entry: runs on the connection `upgrade` hands over."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from marketplace.store import tables

connection = context.config.attributes["connection"]
assert tables.JobRow.metadata is SQLModel.metadata  # noqa: S101 - the import fills the metadata

context.configure(connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
