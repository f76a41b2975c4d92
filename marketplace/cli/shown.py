"""How transactions and sessions are shown, by several pages of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marketplace.cli import config as configs
from marketplace.cli import screen

if TYPE_CHECKING:
    from marketplace.client.journal import Session
    from marketplace.client.keys import KeyUse
    from marketplace.client.payer import Grant
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


def use_of(use: KeyUse, grant: Grant | None) -> dict[str, Any]:
    """What a key did with its grant, as JSON; `grant` is what is kept of it here."""
    from marketplace.protocol.hexes import to_hex

    rows = [
        {
            "session_id": to_hex(session_id),
            "node_id": state.node_id,
            "deposited_atoms": str(state.deposited_atoms),
            "left_atoms": str(state.deposited_atoms - state.paid_atoms),
            "expires_at": state.expires_at,
        }
        for session_id, state in use.sessions.items()
    ]
    return {
        "models": list(grant.models) if grant else [],
        "nodes": list(grant.node_ids) if grant else [],
        "spent_last_day_atoms": str(use.forecast.day.atoms),
        "empty_in_seconds": use.forecast.empty_in_seconds,
        "forecast": use.forecast.to_json(),
        "sessions": rows,
    }


def key(row: dict[str, Any], config: configs.Config, *, json: bool) -> None:
    """A key, what it may still spend, how fast it does."""
    if json:
        screen.emit(row)
        return
    money = config.currency
    held = sum(int(session["left_atoms"]) for session in row["sessions"])
    screen.facts(
        [
            ("key", f"{row['name']} {row['key']}".strip()),
            ("left", money.show(row["left_atoms"])),
            ("left today", money.show(row["left_today_atoms"])),
            ("per session", money.show(row["per_session_atoms"])),
            ("models", ", ".join(row["models"]) or "any"),
            ("nodes", ", ".join(map(str, row["nodes"])) or "any"),
            ("open", f"{len(row['sessions'])} sessions with {money.show(held)}"),
            ("last day", money.show(row["spent_last_day_atoms"])),
            ("empty in", lasting(row["forecast"])),
            ("expires", screen.when(row["expires_at"]) if row["live"] else "over"),
        ]
    )


def lasting(forecast: dict[str, Any]) -> str:
    """How long money lasts by a forecast, and whether its time ends before."""
    seconds = forecast["empty_in_seconds"]
    if seconds is None:
        few = forecast["purchases_last_day"]
        return "too little was bought to tell" if few else "nothing was spent in the last day"
    days, rest = divmod(seconds, 86_400)
    lasts = f"{days} d {rest // 3600} h" if days else f"{rest // 3600} h {rest % 3600 // 60} min"
    first = ", its time ends first" if forecast["ends_by"] == "time" else ""
    return f"{lasts} at this rate{first}"


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
