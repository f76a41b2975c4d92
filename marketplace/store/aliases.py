"""What the names of models mean, as the register on the chain has it; an alias is `name@label`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from marketplace.store.events import batches
from marketplace.store.tables import ModelAliasRow, NodeModelRow

CHANNEL: Final = "latest"
_SHOWN: Final = 8


def meaning(tx: Session, model: str) -> str:
    """The model id an alias means; any other text, ids and nodes' own names among them, as it is.

    A name alone is what nodes call a model; only where none does, its channel `latest` is meant.
    """
    alias = model if "@" in model else f"{model}@{CHANNEL}"
    row = tx.get(ModelAliasRow, alias)
    if row is None or ("@" not in model and _is_called(tx, model)):
        return model
    return row.model_id


def of_models(tx: Session, model_ids: Collection[str]) -> dict[str, list[ModelAliasRow]]:
    """Aliases of models, by model id, each model's oldest first; a few, for anyone may add more."""
    found: dict[str, list[ModelAliasRow]] = {}
    for model_id in sorted(model_ids):
        rows = select(ModelAliasRow).where(ModelAliasRow.model_id == model_id)
        order = (col(ModelAliasRow.block_number), col(ModelAliasRow.alias))
        found[model_id] = list(tx.exec(rows.order_by(*order).limit(_SHOWN)))
    return found


def known(tx: Session) -> set[str]:
    """Every alias there is."""
    return set(tx.exec(select(ModelAliasRow.alias)))


def put(tx: Session, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Sets aliases to the columns given."""
    there: set[str] = set()
    for part in batches(sorted(wanted)):
        there |= set(tx.exec(select(ModelAliasRow.alias).where(col(ModelAliasRow.alias).in_(part))))
    tx.add_all([ModelAliasRow(**columns) for alias, columns in wanted.items() if alias not in there])
    changed = [dict(wanted[alias]) for alias in sorted(there)]
    if changed:
        tx.execute(update(ModelAliasRow), changed)


def forget(tx: Session, names: Collection[str]) -> None:
    """Removes aliases the chain no longer knows of."""
    for part in batches(sorted(names)):
        tx.execute(delete(ModelAliasRow).where(col(ModelAliasRow.alias).in_(part)))


def _is_called(tx: Session, name: str) -> bool:
    return tx.exec(select(NodeModelRow.node_id).where(NodeModelRow.name == name)).first() is not None
