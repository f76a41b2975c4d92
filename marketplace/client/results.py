"""What the SDK gives back for a job: the answer, its price, and the proof."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from marketplace.client.bundle import Bundle
from marketplace.client.verify import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """What every finished job tells.

    Attributes:
        model: as it was asked for; `model_id` is what the offer and the receipt commit to.
        cost: decimal amount of token units, exact; `cost_atoms` in atoms.
        bundle: the evidence; `bundle.to_json()` is what `watt receipt verify` reads.
        checks: every check the receipt passed before it was accepted.
        acknowledged: whether the voucher that pays it reached the gateway; else the next one does.
        attempts: nodes asked.
        faults: bundles, as JSON, of receipts on the way that did not hold; their nodes may claim for them.
    """

    job_id: str
    node_id: int
    model: str
    model_id: str
    trace_id: str
    receipt_id: str
    cost_atoms: int
    ceiling_atoms: int
    cost: str
    currency: str
    units_in: int
    units_out: int
    energy_millijoules: int
    bundle: Bundle
    checks: tuple[Check, ...]
    acknowledged: bool
    attempts: int
    faults: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatResult(Paid):
    """Generated text; `finish` is `stop`, `length`, `deadline` or `cancelled`.

    `logprobs` has a row a token where they were asked for: id, token, logprob_micro (millionths of the
    natural logarithm), and in `top` the likeliest in its place.
    """

    text: str
    finish: str
    logprobs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult(Paid):
    """The answer of any task as its JSON, and its signed rows in the order of the inputs."""

    answer: dict[str, Any]
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedResult(Paid):
    """Vectors in the order of the texts."""

    vectors: list[list[float]]
