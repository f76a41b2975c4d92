"""Everything a key was billed and paid, as CSV or JSON, piece by piece: memory does not grow with it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final

from marketplace.chain.deployment import Deployment
from marketplace.flow import Market
from marketplace.protocol.messages import Receipt
from marketplace.protocol.money import format_atoms
from marketplace.store import statements
from marketplace.store.statements import Billed, Payment, PaymentKind
from marketplace.store.tables import SessionRow, Tx

Row = dict[str, Any]

_PIECE: Final = 500
RECEIPT_COLUMNS: Final = (
    *("receipt_id", "job_id", "session_id", "seq", "node_id", "task", "model", "trace_id"),
    *("status", "superseded", "phase", "end_reason", "units_in", "units_out", "energy_millijoules"),
    *("started_at_ms", "finished_at_ms", "received_at_ms"),
    *("amount_atoms", "amount", "charged_atoms", "charged", "currency", "settled_tx"),
)
PAYMENT_COLUMNS: Final = (
    *("payment_id", "kind", "session_id", "buyer", "node_id", "amount_atoms", "amount", "currency"),
    *("tx_hash", "block_number", "log_index", "part"),
)


class Kind(StrEnum):
    """What is exported."""

    RECEIPTS = "receipts"
    PAYMENTS = "payments"


class Format(StrEnum):
    """How it is written."""

    CSV = "csv"
    JSON = "json"


COLUMNS: Final = {Kind.RECEIPTS: RECEIPT_COLUMNS, Kind.PAYMENTS: PAYMENT_COLUMNS}
_TOTALS: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.RECEIPTS: ("charged_atoms",),
    Kind.PAYMENTS: tuple(kind.value for kind in PaymentKind),
}
MEDIA_TYPES: Final = {Format.CSV: "text/csv; charset=utf-8", Format.JSON: "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a caller wants exported; `since_ms` bounds receipts, `since_block` payments."""

    key: str
    kind: Kind
    format: Format
    since_ms: int = 0
    since_block: int = 0


def receipt_row(billed: Billed, deployment: Deployment) -> Row:
    """A receipt as one flat row; amounts in atoms and in units of the token."""
    row, job = billed.receipt, billed.job
    signed = Receipt.decode(row.message)
    return {
        "receipt_id": row.receipt_id,
        "job_id": row.job_id,
        "session_id": row.session_id,
        "seq": row.seq,
        "node_id": billed.order.node_id,
        "task": job.task,
        "model": job.model_name,
        "trace_id": job.trace_id,
        "status": row.status,
        "superseded": row.superseded,
        "phase": job.phase if billed.is_the_jobs else None,
        "end_reason": job.end_reason if billed.is_the_jobs else None,
        "units_in": signed.units_in,
        "units_out": signed.units_out,
        "energy_millijoules": signed.energy_millijoules,
        "started_at_ms": signed.started_at_ms,
        "finished_at_ms": signed.finished_at_ms,
        "received_at_ms": row.received_at_ms,
        **_amount("amount", row.amount_atoms, deployment),
        **_amount("charged", billed.charged_atoms, deployment),
        "currency": deployment.token_symbol,
        "settled_tx": job.settled_tx if billed.is_the_jobs else None,
    }


def payment_row(payment: Payment, deployment: Deployment) -> Row:
    """A payment as one flat row. `paid` went to the node, `returned` back to the account."""
    block, log, part = payment.place
    return {
        "payment_id": payment.payment_id,
        "kind": payment.kind.value,
        "session_id": payment.session.session_id,
        "buyer": payment.session.buyer,
        "node_id": payment.session.node_id,
        **_amount("amount", payment.amount_atoms, deployment),
        "currency": deployment.token_symbol,
        "tx_hash": payment.tx_hash,
        "block_number": block,
        "log_index": log,
        "part": part,
    }


async def written(market: Market, wish: Wish) -> AsyncIterator[str]:
    """The export as text, in pieces: a head, rows, and for JSON the sum of them."""
    writer: _Csv | _Json = _Csv(wish) if wish.format is Format.CSV else _Json(wish, market.deployment)
    yield writer.head()
    async for rows in _pieces(market, wish):
        if rows:
            yield writer.rows(rows)
    yield writer.end()


class _Csv:
    """RFC 4180; every export of a kind has the same columns, also an empty one."""

    def __init__(self, wish: Wish) -> None:
        self._columns = COLUMNS[wish.kind]

    def head(self) -> str:
        return self._lines([dict(zip(self._columns, self._columns, strict=True))])

    def rows(self, rows: Sequence[Row]) -> str:
        return self._lines([{name: _cell(value) for name, value in row.items()} for row in rows])

    def end(self) -> str:
        return ""

    def _lines(self, rows: Sequence[Row]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns).writerows(rows)
        return text.getvalue()


class _Json:
    """One object; `totals` come last, when all rows have been seen."""

    def __init__(self, wish: Wish, deployment: Deployment) -> None:
        self._kind, self._deployment = wish.kind, deployment
        self._count, self._totals = 0, dict.fromkeys(_TOTALS[wish.kind], 0)

    def head(self) -> str:
        return json.dumps({"object": "export", "kind": self._kind.value})[:-1] + ', "data": ['

    def rows(self, rows: Sequence[Row]) -> str:
        text = "," if self._count else ""
        self._count += len(rows)
        for row in rows:
            name = "charged_atoms" if self._kind is Kind.RECEIPTS else row["kind"]
            self._totals[name] += int(row["charged_atoms" if self._kind is Kind.RECEIPTS else "amount_atoms"])
        return text + ",".join(json.dumps(row, ensure_ascii=False) for row in rows)

    def end(self) -> str:
        decimals = self._deployment.token_decimals
        totals = {
            name.removesuffix("_atoms"): {"atoms": str(atoms), "amount": format_atoms(atoms, decimals)}
            for name, atoms in self._totals.items()
        }
        tail = {"count": self._count, "totals": totals, "currency": self._deployment.token_symbol}
        return "], " + json.dumps(tail)[1:] + "\n"


async def _pieces(market: Market, wish: Wish) -> AsyncIterator[list[Row]]:
    load = _receipts if wish.kind is Kind.RECEIPTS else _payments
    last = ""
    while sessions := await market.read(
        partial(statements.sessions_after, key=wish.key, after_id=last, limit=_PIECE)
    ):
        for session in sessions:
            async for rows in load(market, session, wish):
                yield rows
        last = sessions[-1].session_id


async def _receipts(market: Market, session: SessionRow, wish: Wish) -> AsyncIterator[list[Row]]:
    seq = 0
    while True:
        found = await market.read(
            partial(
                statements.receipts_of_session,
                session_id=session.session_id,
                after_seq=seq,
                limit=_PIECE,
                since_ms=wish.since_ms,
            )
        )
        if not found:
            return
        yield [receipt_row(billed, market.deployment) for billed in found]
        seq = found[-1].receipt.seq


async def _payments(market: Market, session: SessionRow, wish: Wish) -> AsyncIterator[list[Row]]:
    def load(tx: Tx) -> list[Payment]:
        return statements.payments_of_session(tx, session)

    found = await market.read(load)
    fresh = [payment for payment in found if payment.place[0] >= wish.since_block]
    yield [payment_row(payment, market.deployment) for payment in fresh]


def _amount(name: str, atoms: int, deployment: Deployment) -> Row:
    return {f"{name}_atoms": str(atoms), name: format_atoms(atoms, deployment.token_decimals)}


def _cell(value: Any) -> Any:
    """A value as a spreadsheet shall see it: names are strangers' words, and none may be a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return str(value).lower() if isinstance(value, bool) else value
