"""Delegate keys this gateway holds, sealed; found by the hash of a bearer secret."""

from __future__ import annotations

from sqlmodel import Session, select

from marketplace.store.tables import KeyRow


def add(tx: Session, row: KeyRow) -> None:
    """Keeps a fresh key."""
    tx.add(row)


def find(tx: Session, address: str) -> KeyRow | None:
    """The held key with this address."""
    return tx.get(KeyRow, address)


def find_by_secret(tx: Session, secret_hash: str) -> KeyRow | None:
    """The held key behind a bearer secret, by `ids.api_key_hash` in hex."""
    return tx.exec(select(KeyRow).where(KeyRow.secret_hash == secret_hash)).first()
