"""Delegate keys this gateway holds, sealed; and what buyers let keys of their own buy."""

from __future__ import annotations

from sqlmodel import Session, col, select, update

from marketplace.store.tables import GrantRow, KeyRow


def add(tx: Session, row: KeyRow) -> None:
    """Keeps a fresh key."""
    tx.add(row)


def find(tx: Session, address: str) -> KeyRow | None:
    """The held key with this address; asked for several times in a transaction, it is read once."""
    row = tx.get(KeyRow, address)
    tx.info[KeyRow, address] = row
    return row


def hold(tx: Session, address: str) -> None:
    """Lets no other transaction hold this key until this one ends: sums over it stay true."""
    # SQLite has one writer at a time anyway, and leaves the clause out.
    tx.exec(select(KeyRow.address).where(KeyRow.address == address).with_for_update()).first()


def find_by_secret(tx: Session, secret_hash: str) -> KeyRow | None:
    """The held key behind a bearer secret, by `ids.api_key_hash` in hex."""
    return tx.exec(select(KeyRow).where(KeyRow.secret_hash == secret_hash)).first()


def put_grant(tx: Session, row: GrantRow) -> None:
    """What a buyer lets a key buy, in place of what it said before."""
    tx.merge(row)


def granted_models(tx: Session, buyer: str, key: str) -> tuple[str, ...]:
    """Patterns of the models a buyer lets a key buy; none: any."""
    row = tx.get(GrantRow, (buyer, key))
    return tuple(row.models.splitlines()) if row is not None else ()


def revoke(tx: Session, address: str, now_ms: int) -> None:
    """Nobody uses this key again. Idempotent."""
    live = (col(KeyRow.address) == address, col(KeyRow.revoked_at_ms).is_(None))
    query = update(KeyRow).where(*live).values(revoked_at_ms=now_ms)
    tx.exec(query, execution_options={"synchronize_session": False})
