"""Taking an order: what is already promised is counted and the order stored in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from threading import Lock
from typing import Any, Final

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.sealed import Responses
from worker.ledger.base import Database, Plain
from worker.ledger.orders import UNFINISHED, HeldOrder

# In the order of `_ADD`.
_FIELDS: Final = tuple(field.name for field in fields(HeldOrder))
_ADD: Final = (
    "INSERT INTO job_order (order_hash, session_id, seq, key, offer_hash, message, signature, salt, payload,"
    " job_id, trace_id, gateway, max_amount_atoms, deadline_ms, gateway_lease_until_ms, accepted_at_ms,"
    " state, worker, worker_lease_until_ms, attempts, task_sent_at_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_SEAL: Final = "INSERT INTO seal (order_hash, secret) VALUES (?, ?)"
_TAKEN: Final = "SELECT 1 FROM job_order WHERE session_id = ? AND seq = ?"
_VOUCHER: Final = "SELECT through_seq, amount_atoms FROM voucher WHERE session_id = ?"
_OWED: Final = (
    "SELECT COALESCE(SUM(amount_atoms), 0) FROM receipt WHERE session_id = ? AND seq > ? AND waived = ?"
)
_EXPOSED: Final = (
    "SELECT COALESCE(SUM(receipt.amount_atoms), 0) FROM receipt"
    " LEFT JOIN session ON session.session_id = receipt.session_id"
    ' WHERE receipt."open" = ? AND (session.expires_at IS NULL OR session.expires_at > ?)'
)
_UNFINISHED: Final = (
    "SELECT COUNT(*), COALESCE(SUM(max_amount_atoms), 0) FROM job_order WHERE state IN (?, ?)"
)
_IN_FLIGHT: Final = (
    "SELECT COALESCE(SUM(max_amount_atoms), 0) FROM job_order WHERE session_id = ? AND state IN (?, ?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What is promised out of one session, and by the whole node.

    Attributes:
        vouchered_atoms: the session's newest voucher, through `vouchered_seq`.
        owed_atoms: its receipts after that voucher, without waived ones.
        in_flight_atoms: maximum amounts of its unfinished orders.
        node_exposed_atoms: owed and in flight over all sessions that can still pay.
        unfinished: orders of the node without a receipt.
    """

    vouchered_seq: int = 0
    vouchered_atoms: int = 0
    owed_atoms: int = 0
    in_flight_atoms: int = 0
    node_exposed_atoms: int = 0
    unfinished: int = 0


class Acceptance:
    """The only way an order enters the ledger."""

    def __init__(self, database: Database, turn: Lock) -> None:
        """`turn` is shared with the vouchers: what is promised and what has ended change one at a time."""
        self._database = database
        self._turn = turn

    def take(
        self,
        order: HeldOrder,
        judge: Callable[[Usage], None],
        *,
        pays_after: int,
        seal: Responses | None = None,
    ) -> None:
        """Stores an order when `judge` finds that all that is promised still fits.

        Args:
            order: the order, every other check passed.
            judge: raises `BadRequest` to refuse.
            pays_after: sessions that expired before this (Unix seconds) no longer count as exposure.
            seal: what its answer is sealed with; None for a plain one.

        Raises:
            BadRequest: judged too much, or the place in the session is taken.
        """
        # SQLite's write lock would do; PostgreSQL would let two orders each find room for one.
        with self._turn, self._database.write_plain() as plain:
            if plain.rows(_TAKEN, (order.session_id, order.seq)):
                raise BadRequest(ErrorCode.ORDER_REPLAYED, f"seq {order.seq} of this session was used")
            judge(_usage(plain, order.session_id, pays_after))
            held = asdict(order)
            plain.run(_ADD, tuple(held[name] for name in _FIELDS))
            if seal is not None:
                plain.run(_ADD_SEAL, (order.order_hash, seal.secret))

    def usage(self, session_id: bytes, *, pays_after: int) -> Usage:
        """What is promised out of a session now."""
        with self._database.read_plain() as plain:
            return _usage(plain, session_id, pays_after)


def _usage(plain: Plain, session_id: bytes, pays_after: int) -> Usage:
    voucher = plain.row(_VOUCHER, (session_id,)) or {"through_seq": 0, "amount_atoms": 0}
    after = int(voucher["through_seq"])
    owed = _number(plain, _OWED, (session_id, after, False))
    exposed = _number(plain, _EXPOSED, (True, pays_after))
    (unfinished, in_flight), here = plain.rows(_UNFINISHED, UNFINISHED)[0], (session_id, *UNFINISHED)
    return Usage(
        vouchered_seq=after,
        vouchered_atoms=int(voucher["amount_atoms"]),
        owed_atoms=owed,
        in_flight_atoms=_number(plain, _IN_FLIGHT, here),
        node_exposed_atoms=exposed + int(in_flight),
        unfinished=int(unfinished),
    )


def _number(plain: Plain, statement: str, values: tuple[Any, ...]) -> int:
    return int(plain.rows(statement, values)[0][0])
