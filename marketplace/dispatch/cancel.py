"""A buyer wants no more of a job: its node is told to stop, and no other one is asked."""

from __future__ import annotations

from dataclasses import dataclass

from marketplace.dispatch import returns
from marketplace.protocol.errors import BadRequest, ErrorCode, LostRace
from marketplace.protocol.hexes import from_hex
from marketplace.protocol.phases import EndReason, JobPhase
from marketplace.protocol.wire import Cancel
from marketplace.store import jobs
from marketplace.store.jobs import OrderState
from marketplace.store.tables import JobRow, Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A job as it stands after the wish was stored, and what its node is to be told.

    Attributes:
        ended: nobody worked on it, so it ended here and now.
    """

    job: JobRow
    node_id: int | None = None
    frame: Cancel | None = None
    ended: bool = False


def ask(tx: Tx, job_id: str, now_ms: int) -> Asked:
    """Stores the wish. Idempotent; a job that has ended stays as it is.

    Raises:
        BadRequest: unknown job.
        LostRace: the job moved on meanwhile.
    """
    job = jobs.find(tx, job_id)
    if job is None:
        raise BadRequest(ErrorCode.UNKNOWN_JOB)
    if job.ended_at_ms is not None:
        return Asked(job=job)
    if job.cancel_asked_ms is None:
        jobs.ask_cancel(tx, job, now_ms)
    running = [order for order in jobs.orders_of(tx, job_id) if order.state == OrderState.OPEN]
    if running:
        return Asked(job=job, node_id=running[-1].node_id, frame=frame_for(running[-1].order_hash))
    if JobPhase(job.phase) is not JobPhase.ORDERED:
        raise LostRace(ErrorCode.LEASE_LOST, "the job's order ended meanwhile")
    returns.give_up(tx, job, EndReason.CANCELLED, "", now_ms)
    return Asked(job=job, ended=True)


def again(tx: Tx, node_id: int) -> list[Cancel]:
    """What a node that is back must hear once more."""
    found = jobs.open_of_node(tx, node_id)
    return [frame_for(order.order_hash) for order, job in found if job.cancel_asked_ms is not None]


def frame_for(order_hash: str) -> Cancel:
    """Tells a node to end an order with what it has."""
    return Cancel(order_hash=from_hex(order_hash, 32))
