"""How transactions and sessions are shown, by several pages of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marketplace.cli import config as configs
from marketplace.cli import screen

if TYPE_CHECKING:
    from marketplace.client.journal import Session
    from marketplace.client.sync import Wattline
    from marketplace.protocol.transactions import TxRecord


def session_row(session: Session, client: Wattline) -> dict[str, Any]:
    """A session of the journal, as JSON."""
    from marketplace.protocol.hexes import to_hex

    left = client.core.desk.journal.left_atoms(session.session_id)
    return {
        "session_id": to_hex(session.session_id),
        "node_id": session.node_id,
        "key": session.key,
        "deposited_atoms": str(session.deposited_atoms),
        "left_atoms": str(left),
        "expires_at": session.expires_at,
    }


def session(row: dict[str, Any], config: configs.Config, *, json: bool) -> None:
    """A session of the journal, for people or as JSON."""
    if json:
        screen.emit(row)
        return
    money = config.currency
    screen.facts(
        [
            ("session", row["session_id"]),
            ("node", str(row["node_id"])),
            ("key", row["key"]),
            ("deposited", money.show(row["deposited_atoms"])),
            ("expires", screen.when(row["expires_at"])),
        ]
    )


def moved(what: str, amount: str, record: TxRecord, config: configs.Config, *, json: bool) -> None:
    """Money that moved, and the transaction that moved it."""
    from marketplace.protocol.hexes import to_hex
    from marketplace.protocol.money import parse_atoms

    money = config.currency
    atoms = parse_atoms(amount, money.decimals)
    if json:
        shown = {what: money.bare(atoms), "atoms": str(atoms), "currency": money.symbol}
        screen.emit(shown | {"tx_hash": to_hex(record.tx_hash), "block": record.block_number})
        return
    screen.done(f"{what} {money.show(atoms)} in block {record.block_number}, {to_hex(record.tx_hash)}")


def sent(what: str, record: TxRecord, facts: dict[str, Any], *, json: bool) -> None:
    """A transaction in a block, and what it was about."""
    from marketplace.protocol.hexes import to_hex

    if json:
        screen.emit({**facts, "tx_hash": to_hex(record.tx_hash), "block": record.block_number})
        return
    screen.done(f"{what} in block {record.block_number}, {to_hex(record.tx_hash)}")
