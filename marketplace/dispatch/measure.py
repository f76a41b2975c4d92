"""How long a job took in each stage, and what it used; measured where the fact is known, once."""

from __future__ import annotations

from marketplace.protocol.messages import Receipt
from marketplace.protocol.phases import HAS_RESULT, JobPhase
from marketplace.store.tables import JobRow
from marketplace.telemetry.metrics import Metrics
from marketplace.telemetry.names import Span


def stage(metrics: Metrics, span: Span, from_ms: int, to_ms: int) -> None:
    """A job left a stage. Clocks of two machines may differ; time never counts below zero."""
    metrics.observe("job_stage_seconds", max(0, to_ms - from_ms) / 1000, stage=span.value)


def ended(metrics: Metrics, job: JobRow, receipt: Receipt, first_ms: int | None, now_ms: int) -> None:
    """A receipt ended its job; free ones have no stages worth counting and no tokens billed.

    `first_ms` is when the first piece of its answer came; None when this gateway was not there.
    """
    if JobPhase(job.phase) not in HAS_RESULT:
        return
    stage(metrics, Span.QUEUE, job.created_at_ms, receipt.started_at_ms)
    stage(metrics, Span.INFERENCE, receipt.started_at_ms, receipt.finished_at_ms)
    stage(metrics, Span.DELIVER, receipt.finished_at_ms, now_ms)
    if first_ms is not None:
        seconds = max(0, first_ms - job.created_at_ms) / 1000
        metrics.observe("time_to_first_token_seconds", seconds, task=job.task)
    metrics.count("tokens_total", receipt.units_in, task=job.task, direction="in")
    metrics.count("tokens_total", receipt.units_out, task=job.task, direction="out")
