"""Statements for tables instead of mapped classes: built once, for what runs with every job (decision 34)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import CursorResult, Executable, Table, inspect
from sqlmodel import Session, SQLModel


def table_of(row: type[SQLModel]) -> Table:
    """The table under a class of rows, for statements that need none of what the class adds."""
    return cast("Table", inspect(row).local_table)


def run(
    tx: Session, statement: Executable, values: Mapping[str, Any] | None = None
) -> CursorResult[*tuple[Any, ...]]:
    """Runs a statement of tables after what `tx` was given of rows so far is written."""
    tx.flush()
    return tx.connection().execute(statement, values)
