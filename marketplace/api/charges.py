"""Whether a call has cost its caller anything; every job and every error says so."""

from __future__ import annotations

from marketplace.flow import Market
from marketplace.openai.problems import Charged as Charged
from marketplace.protocol.phases import ENDINGS, EndReason
from marketplace.store import jobs, receipts
from marketplace.store.tables import JobRow, ReceiptRow, Tx


def charge_of(job: JobRow, receipt: ReceiptRow | None) -> Charged:
    """What stands of a job's charge now; `receipt` is the one of its last order."""
    if receipt is None or not receipt.amount_atoms or job.end_reason is None:
        return False
    reason = EndReason(job.end_reason)
    return "refunded" if reason is EndReason.COURT_REFUNDED else ENDINGS[reason].charged


async def charge_now(market: Market, job_id: str) -> Charged:
    """The same of a job by its id; an unknown one cost nothing."""

    def load(tx: Tx) -> Charged:
        job = jobs.find(tx, job_id)
        return job is not None and charge_of(job, receipts.find(tx, job.order_hash or ""))

    return await market.read(load)
