"""Accepted orders, and the worker lease that says which process may finish one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import UniqueConstraint, func, update
from sqlmodel import Field, col, select

from worker.ledger.base import Database, Table, big, blob, places


class OrderState(StrEnum):
    """How far an accepted order is."""

    QUEUED = "queued"
    RUNNING = "running"
    RECEIPTED = "receipted"
    DELIVERED = "delivered"


UNFINISHED = (OrderState.QUEUED.value, OrderState.RUNNING.value)


class OrderRow(Table, table=True):
    """One accepted order, its payload and its leases."""

    __tablename__ = "job_order"
    __table_args__ = (UniqueConstraint("session_id", "seq"),)
    order_hash: bytes = Field(sa_column=blob(primary_key=True))
    session_id: bytes = Field(sa_column=blob(index=True))
    seq: int = Field(sa_column=big())
    key: str
    offer_hash: bytes = Field(sa_column=blob())
    message: bytes = Field(sa_column=blob())
    signature: bytes = Field(sa_column=blob())
    salt: bytes = Field(sa_column=blob())
    payload: bytes = Field(sa_column=blob())
    job_id: str
    trace_id: str
    gateway: str
    max_amount_atoms: int = Field(sa_column=big())
    deadline_ms: int = Field(sa_column=big())
    gateway_lease_until_ms: int = Field(sa_column=big())
    accepted_at_ms: int = Field(sa_column=big())
    state: str = Field(default=OrderState.QUEUED.value, index=True)
    worker: str = ""
    worker_lease_until_ms: int = Field(default=0, sa_column=big())
    attempts: int = 0
    task_sent_at_ms: int = Field(default=0, sa_column=big())


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOrder:
    """A stored order. `message` decodes to `Order`; `gateway` is the link it came by.

    Attributes:
        gateway_lease_until_ms: until when the gateway keeps the job ours.
        worker: process that holds the worker lease until `worker_lease_until_ms`.
        attempts: claims so far.
    """

    order_hash: bytes
    session_id: bytes
    seq: int
    key: str
    offer_hash: bytes
    message: bytes
    signature: bytes
    salt: bytes
    payload: bytes
    job_id: str
    trace_id: str
    gateway: str
    max_amount_atoms: int
    deadline_ms: int
    gateway_lease_until_ms: int
    accepted_at_ms: int
    state: str = OrderState.QUEUED.value
    worker: str = ""
    worker_lease_until_ms: int = 0
    attempts: int = 0
    task_sent_at_ms: int = 0


_RENEW: Final = (
    "UPDATE job_order SET worker_lease_until_ms = ? WHERE worker = ? AND state = ? AND order_hash IN"
)
_LEASES: Final = "RETURNING order_hash, gateway_lease_until_ms"
ORDER: Final = "SELECT * FROM job_order WHERE order_hash = ?"


class Orders:
    """Accepted orders by hash."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, order_hash: bytes) -> HeldOrder | None:
        """The order, or None."""
        with self._database.read_plain() as plain:
            row = plain.row(ORDER, (order_hash,))
            return HeldOrder(**row) if row else None

    def by_seq(self, session_id: bytes, seq: int) -> bytes | None:
        """Hash of the order at this place in the session, or None."""
        query = select(OrderRow.order_hash).where(OrderRow.session_id == session_id, OrderRow.seq == seq)
        with self._database.read() as session:
            return session.exec(query).first()

    def renew(self, worker: str, hashes: Iterable[bytes], *, until_ms: int) -> dict[bytes, int]:
        """Renews this worker's leases; gives the gateway's lease end of each it still holds."""
        wanted = tuple(hashes)
        if not wanted:
            return {}
        values = (until_ms, worker, OrderState.RUNNING.value, *wanted)
        with self._database.write_plain() as plain:
            kept = plain.rows(f"{_RENEW} ({places(len(wanted))}) {_LEASES}", values)
        return {bytes(order_hash): int(lease) for order_hash, lease in kept}

    def release(self, worker_prefix: str, order_hash: bytes | None = None) -> list[bytes]:
        """Frees leases of processes that are dead for certain, or one's own; gives the orders freed."""
        theirs = [
            col(OrderRow.worker).startswith(worker_prefix, autoescape=True),
            col(OrderRow.state) == OrderState.RUNNING.value,
        ]
        if order_hash is not None:
            theirs.append(col(OrderRow.order_hash) == order_hash)
        with self._database.write() as session:
            freed = list(session.exec(select(OrderRow.order_hash).where(*theirs)))
            if freed:
                session.exec(
                    update(OrderRow)
                    .where(*theirs)
                    .values(
                        state=OrderState.QUEUED.value, worker="", worker_lease_until_ms=0, task_sent_at_ms=0
                    )
                )
            return freed

    def give_back(self, worker: str, order_hash: bytes) -> bool:
        """Frees one's own lease of an order that was left in order; the attempt does not count."""
        change = (
            update(OrderRow)
            .where(
                col(OrderRow.order_hash) == order_hash,
                col(OrderRow.worker) == worker,
                col(OrderRow.state) == OrderState.RUNNING.value,
            )
            .values(
                state=OrderState.QUEUED.value,
                worker="",
                worker_lease_until_ms=0,
                task_sent_at_ms=0,
                attempts=OrderRow.attempts - 1,
            )
        )
        with self._database.write() as session:
            return bool(session.exec(change).rowcount)

    def forget_tasks(self) -> None:
        """Tasks of waiting orders may have been lost with their worker: they are sent again."""
        change = (
            update(OrderRow)
            .where(col(OrderRow.state) == OrderState.QUEUED.value, col(OrderRow.task_sent_at_ms) > 0)
            .values(task_sent_at_ms=0)
        )
        with self._database.write() as session:
            session.exec(change)

    def extend(self, hashes: Iterable[bytes], gateway: str, *, until_ms: int) -> None:
        """Moves the gateway's lease of unfinished or undelivered orders on; never back."""
        change = (
            update(OrderRow)
            .where(
                col(OrderRow.order_hash).in_(list(hashes)),
                col(OrderRow.gateway) == gateway,
                col(OrderRow.gateway_lease_until_ms) < until_ms,
                col(OrderRow.state) != OrderState.DELIVERED.value,
            )
            .values(gateway_lease_until_ms=until_ms)
        )
        with self._database.write() as session:
            session.exec(change)

    def undelivered(self, gateway: str | None = None) -> list[bytes]:
        """Orders whose receipt the gateway has not confirmed, oldest first."""
        query = select(OrderRow.order_hash).where(OrderRow.state != OrderState.DELIVERED.value)
        if gateway is not None:
            query = query.where(OrderRow.gateway == gateway)
        with self._database.read() as session:
            return list(session.exec(query.order_by(col(OrderRow.accepted_at_ms))))

    def unclaimed(self, *, now_ms: int, sent_before_ms: int) -> list[HeldOrder]:
        """Unfinished orders nobody works on whose task was last sent before a moment."""
        query = select(OrderRow).where(
            col(OrderRow.state).in_(UNFINISHED),
            OrderRow.worker_lease_until_ms <= now_ms,
            OrderRow.task_sent_at_ms <= sent_before_ms,
        )
        with self._database.read() as session:
            return [held_order(row) for row in session.exec(query.order_by(col(OrderRow.accepted_at_ms)))]

    def task_sent(self, hashes: Sequence[bytes], *, now_ms: int) -> None:
        """Notes that the broker took a task for these orders."""
        change = update(OrderRow).where(col(OrderRow.order_hash).in_(hashes)).values(task_sent_at_ms=now_ms)
        with self._database.write() as session:
            session.exec(change)

    def counts(self, states: Iterable[OrderState] = tuple(OrderState)) -> dict[OrderState, int]:
        """Number of orders in each of these states."""
        wanted = [state.value for state in states]
        query = (
            select(OrderRow.state, func.count())
            .where(col(OrderRow.state).in_(wanted))
            .group_by(OrderRow.state)
        )
        with self._database.read() as session:
            found = {OrderState(state): int(number) for state, number in session.exec(query)}
        return {state: found.get(state, 0) for state in states}


def held_order(row: OrderRow) -> HeldOrder:
    """View of a row."""
    return HeldOrder(**row.model_dump())
