"""What follows from the events: accounts, sessions and nodes as the chain has them.

Only chain columns are read and written here, as plain values. What the market promised out of a session or
heard from a node lives in the same rows and survives every fold, also one after which the chain no longer
has the session or node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import delete, func, update
from sqlmodel import Session, col, select

from marketplace.protocol.batches import SHORT_ID_BYTES
from marketplace.protocol.hexes import ZERO32, ZERO_ADDRESS, to_hex
from marketplace.protocol.phases import JobPhase
from marketplace.store.events import batches
from marketplace.store.tables import AccountRow, JobRow, NodeRow, OrderRow, SessionRow

Columns = dict[str, Any]

MAX_ATOMS: Final = 2**63 - 1  # of a column; the chain's own amounts may be larger
MAX_URI: Final = 2048
SESSION_COLUMNS: Final = (
    "session_id",
    "buyer",
    "key",
    "node_id",
    "key_epoch",
    "deposited_atoms",
    "paid_atoms",
    "claimed_atoms",
    "through_seq",
    "expires_at",
    "closed",
    "opened_block",  # 0: the chain no longer has it
)
NODE_COLUMNS: Final = (
    "node_id",
    "owner",
    "epoch",  # 0: the chain no longer has it
    "signer",
    "encryption_key",
    "settler",
    "uri",
    "stake_atoms",
    "earnings_atoms",
)


def accounts(db: Session, buyers: Collection[str]) -> dict[str, int]:
    """Balances of the buyers that have an account here, in atoms."""
    found: dict[str, int] = {}
    for part in batches(sorted(buyers)):
        rows = db.exec(select(AccountRow).where(col(AccountRow.buyer).in_(part)))
        found |= {row.buyer: row.balance_atoms for row in rows}
    return found


def sessions(db: Session, session_ids: Collection[str]) -> dict[str, Columns]:
    """Chain columns of the sessions known here, also of those the chain no longer has."""
    found: dict[str, Columns] = {}
    for part in batches(sorted(session_ids)):
        rows = db.exec(select(SessionRow).where(col(SessionRow.session_id).in_(part)))
        found |= {row.session_id: _columns(row, SESSION_COLUMNS) for row in rows}
    return found


def nodes(db: Session, node_ids: Collection[int]) -> dict[int, Columns]:
    """Chain columns of the nodes known here, also of those the chain no longer has."""
    rows = db.exec(select(NodeRow).where(col(NodeRow.node_id).in_(sorted(node_ids))))
    return {row.node_id: _columns(row, NODE_COLUMNS) for row in rows}


def nodes_of(db: Session, owners: Collection[str]) -> set[int]:
    """Ids of the nodes that owners have."""
    return set(db.exec(select(NodeRow.node_id).where(col(NodeRow.owner).in_(sorted(owners)))))


def sessions_of(db: Session, buyers: Collection[str], node_ids: Collection[int]) -> set[str]:
    """Ids of every session of these buyers or with these nodes."""
    theirs = col(SessionRow.buyer).in_(sorted(buyers)) | col(SessionRow.node_id).in_(sorted(node_ids))
    return set(db.exec(select(SessionRow.session_id).where(theirs)))


def full_ids(db: Session, short_ids: Collection[str]) -> dict[str, str]:
    """Session ids by names of which only the first 24 bytes are right; without those nobody knows."""
    found: dict[str, str] = {}
    for short_id in short_ids:
        prefix = short_id[: 2 + 2 * SHORT_ID_BYTES]
        ids = col(SessionRow.session_id)
        full = db.exec(select(ids).where(ids.between(prefix, prefix + "g"))).first()
        found |= {short_id: full} if full else {}
    return found


def known_keys(db: Session) -> tuple[set[str], set[str], set[int]]:
    """Every buyer, session id and node id that has a row."""
    return (
        set(db.exec(select(AccountRow.buyer))),
        set(db.exec(select(SessionRow.session_id))),
        set(db.exec(select(NodeRow.node_id))),
    )


def accounts_from(db: Session, after: str, limit: int) -> dict[str, int]:
    """The next accounts in order of buyer; all, piece by piece."""
    these = select(AccountRow).where(col(AccountRow.buyer) > after).order_by(col(AccountRow.buyer))
    return {row.buyer: row.balance_atoms for row in db.exec(these.limit(limit))}


def sessions_from(db: Session, after: str, limit: int) -> dict[str, Columns]:
    """The next sessions in order of id, also those the chain no longer has."""
    these = select(SessionRow).where(col(SessionRow.session_id) > after)
    rows = db.exec(these.order_by(col(SessionRow.session_id)).limit(limit))
    return {row.session_id: _columns(row, SESSION_COLUMNS) for row in rows}


def nodes_from(db: Session, after: int, limit: int) -> dict[int, Columns]:
    """The next nodes in order of id, also those the chain no longer has."""
    these = select(NodeRow).where(col(NodeRow.node_id) > after)
    rows = db.exec(these.order_by(col(NodeRow.node_id)).limit(limit))
    return {row.node_id: _columns(row, NODE_COLUMNS) for row in rows}


def owed_atoms(db: Session) -> int:
    """All that the escrow must hold for accounts, sessions and earnings; fees come on top.

    A closed session holds what is claimed of it and not decided.
    """
    rest = func.sum(SessionRow.deposited_atoms - SessionRow.paid_atoms)
    claimed = func.sum(SessionRow.claimed_atoms)
    parts = (
        db.exec(select(func.sum(AccountRow.balance_atoms))).one(),
        db.exec(select(rest).where(col(SessionRow.closed).is_(False))).one(),
        db.exec(select(claimed).where(col(SessionRow.closed).is_(True))).one(),
        db.exec(select(func.sum(NodeRow.earnings_atoms))).one(),
    )
    return sum(int(part or 0) for part in parts)


def put_accounts(db: Session, balances: Mapping[str, int]) -> None:
    """Sets balances; what a column cannot hold becomes `MAX_ATOMS`."""
    wanted = {buyer: _fit(atoms) for buyer, atoms in balances.items()}
    known = accounts(db, wanted)
    db.add_all([AccountRow(buyer=b, balance_atoms=atoms) for b, atoms in wanted.items() if b not in known])
    changed = [b for b in wanted if b in known and known[b] != wanted[b]]
    if changed:
        db.execute(update(AccountRow), [{"buyer": b, "balance_atoms": wanted[b]} for b in changed])


def put_sessions(db: Session, wanted: Mapping[str, Columns]) -> None:
    """Sets the chain columns of sessions; fresh ones have promised nothing yet."""
    values = {key: _fitting(given, SESSION_COLUMNS) for key, given in wanted.items()}
    known = sessions(db, values)
    db.add_all([SessionRow(**values[key]) for key in values if key not in known])
    changed = [values[key] for key in values if key in known and known[key] != values[key]]
    if changed:
        db.execute(update(SessionRow), changed)


def put_nodes(db: Session, wanted: Mapping[int, Columns]) -> None:
    """Sets the chain columns of nodes; fresh ones have not been heard yet."""
    values = {key: _fitting(given, NODE_COLUMNS) for key, given in wanted.items()}
    known = nodes(db, values)
    db.add_all([NodeRow(**values[key]) for key in values if key not in known])
    changed = [values[key] for key in values if key in known and known[key] != values[key]]
    if changed:
        db.execute(update(NodeRow), changed)


def forget_accounts(db: Session, buyers: Collection[str]) -> None:
    """Removes accounts the chain no longer knows of."""
    for part in batches(sorted(buyers)):
        db.execute(delete(AccountRow).where(col(AccountRow.buyer).in_(part)))


def void_sessions(db: Session, session_ids: Collection[str]) -> None:
    """Takes the money out of sessions the chain no longer has; promises made from them stay.

    Nothing deposited, so that nobody promises more; not closed, so that nobody refunds what the chain may
    have again in a moment.
    """
    gone: Columns = {
        "deposited_atoms": 0,
        "paid_atoms": 0,
        "claimed_atoms": 0,
        "through_seq": 0,
        "closed": False,
        "opened_block": 0,
    }
    for part in batches(sorted(session_ids)):
        db.execute(update(SessionRow).where(col(SessionRow.session_id).in_(part)).values(**gone))


def void_nodes(db: Session, node_ids: Collection[int]) -> None:
    """Takes key, stake and earnings from nodes the chain no longer has."""
    gone: Columns = {
        "owner": ZERO_ADDRESS,
        "epoch": 0,
        "signer": ZERO_ADDRESS,
        "encryption_key": to_hex(ZERO32),
        "settler": ZERO_ADDRESS,
        "stake_atoms": 0,
        "earnings_atoms": 0,
    }
    db.execute(update(NodeRow).where(col(NodeRow.node_id).in_(sorted(node_ids))).values(**gone))


def sessions_paid_unseen(db: Session) -> dict[str, int]:
    """Sessions with jobs that are delivered or acknowledged though the chain has settled through their seq.

    With the lowest such seq of each. A job that the court holds is among them until it is decided.
    """
    found = (
        select(OrderRow.session_id, func.min(OrderRow.seq))
        .join(JobRow, col(JobRow.order_hash) == col(OrderRow.order_hash))
        .join(SessionRow, col(SessionRow.session_id) == col(OrderRow.session_id))
        .where(col(JobRow.phase).in_([JobPhase.DELIVERED.value, JobPhase.ACKNOWLEDGED.value]))
        .where(col(OrderRow.seq) <= col(SessionRow.through_seq))
        .group_by(col(OrderRow.session_id))
    )
    return {session_id: int(seq) for session_id, seq in db.exec(found)}


def _columns(row: SessionRow | NodeRow, names: tuple[str, ...]) -> Columns:
    return {name: getattr(row, name) for name in names}


def _fitting(given: Columns, names: tuple[str, ...]) -> Columns:
    values: Columns = {n: _fit(given[n]) if n.endswith("_atoms") else given[n] for n in names}
    if "uri" in values:
        # The owner writes this text: PostgreSQL holds no NUL, and nobody lists a novel.
        values["uri"] = values["uri"].replace("\0", "\ufffd")[:MAX_URI]
    return values


def _fit(atoms: int) -> int:
    # Nobody may stop the follower by depositing more than a column holds; `MAX_ATOMS` marks such a row.
    return max(-MAX_ATOMS, min(atoms, MAX_ATOMS))
