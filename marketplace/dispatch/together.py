"""Jobs of one call: what they may cost together."""

from __future__ import annotations

from collections.abc import Sequence

from marketplace.dispatch.step import Issued
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode
from marketplace.store import jobs
from marketplace.store.tables import JobRow, Tx


def bound(tx: Tx, placed: Sequence[Issued | str], limit_atoms: int | None) -> None:
    """Bounds the sum of these jobs' prices, also at nodes that take over: what is left is shared out.

    Raises:
        BadRequest: together they may cost more; the transaction must not commit.
    """
    if limit_atoms is None or len(placed) == 1:
        return
    rows = [_job(tx, issued if isinstance(issued, str) else issued.job_id) for issued in placed]
    ceilings = [_ceiling(tx, row) for row in rows]
    left = limit_atoms - sum(ceilings)
    if left < 0:
        raise BadRequest(
            ErrorCode.PRICE_ABOVE_MAX,
            f"all {len(rows)} choices may cost {sum(ceilings)} atoms, max_cost allows {limit_atoms}",
        )
    for row, ceiling in zip(rows, ceilings, strict=True):
        row.max_cost_atoms = ceiling + left // len(rows)


def _job(tx: Tx, job_id: str) -> JobRow:
    job = jobs.find(tx, job_id)
    if job is None:
        raise Broken(ErrorCode.INTERNAL, f"job {job_id} was placed and is gone")
    return job


def _ceiling(tx: Tx, job: JobRow) -> int:
    order = jobs.order(tx, job.order_hash or "")
    return order.max_amount_atoms if order else 0
