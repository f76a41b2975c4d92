"""What an audit found, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from worker.proofs.calibration import Calibration
from worker.proofs.sampling import Floats


class Tier(StrEnum):
    """How closely work was compared."""

    EXACT = "exact"
    TOLERANCE = "tolerance"


class Outcome(StrEnum):
    """What an audit comes to. `unclear`: it could not be judged, which proves nothing."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNCLEAR = "unclear"


class Code(StrEnum):
    """Why work was rejected, or could not be judged."""

    UNITS = "units"
    TEXT = "text"
    SAMPLING = "sampling"
    FINISH = "finish"
    NO_TRACE = "no_trace"
    OPENING = "opening"
    HIDDEN = "hidden"
    CHOICE = "choice"
    LOGPROBS = "logprobs"
    HIGHEST_MARGIN = "highest_margin"
    MEAN_MARGIN = "mean_margin"
    FINGERPRINT = "fingerprint"
    NO_CALIBRATION = "no_calibration"
    NO_FINGERPRINT = "no_fingerprint"
    NOT_COMPUTABLE = "not_computable"


# With these, nothing is proven for or against the node.
_OPEN = frozenset({Code.NO_CALIBRATION, Code.NO_FINGERPRINT, Code.NOT_COMPUTABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One finding, for programs and for people."""

    code: Code
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What the tolerance tier measured on one job.

    Attributes:
        margins: of each token, `(tokens,)`.
        distances: of each opened fingerprint, `(fingerprints,)`; empty when no block was opened.
    """

    margins: Floats
    distances: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """The end of an audit of one job, or of several of one node.

    Attributes:
        jobs: how many it covers.
        tokens: how many of their tokens were checked.
        figures: numbers behind it, by name; limits beside what they limit.
    """

    tier: Tier
    outcome: Outcome
    reasons: tuple[Reason, ...]
    jobs: int
    tokens: int
    figures: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON prints it."""
        return asdict(self)


def verdict(
    tier: Tier, reasons: Sequence[Reason], figures: dict[str, float], *, jobs: int, tokens: int
) -> Verdict:
    """Rejected for any finding against the node, unclear when something could not be judged."""
    outcome = Outcome.ACCEPTED
    if reasons:
        only_open = all(reason.code in _OPEN for reason in reasons)
        outcome = Outcome.UNCLEAR if only_open else Outcome.REJECTED
    return Verdict(
        tier=tier, outcome=outcome, reasons=tuple(reasons), jobs=jobs, tokens=tokens, figures=figures
    )


def pool_verdict(measured: Sequence[Measured], limits: Calibration | None) -> Verdict:
    """Verdict on several jobs of one node and profile together; sees what no single job shows."""
    reasons, figures = weigh(measured, limits)
    if not figures:
        reasons = [_reason(Code.NOT_COMPUTABLE, "there is no token to check")]
    tokens = sum(len(job.margins) for job in measured)
    return verdict(Tier.TOLERANCE, reasons, figures, jobs=len(measured), tokens=tokens)


def weigh(jobs: Sequence[Measured], limits: Calibration | None) -> tuple[list[Reason], dict[str, float]]:
    """Findings and figures of measurements against limits: of one job, or of a node's jobs pooled."""
    margins = np.concatenate([np.empty(0), *(job.margins for job in jobs)])
    if not len(margins):
        return [], {}
    opened = [job.distances for job in jobs if len(job.distances)]
    figures = {
        "token_match": float(np.mean(margins == 0)),
        "mean_margin": float(margins.mean()),
        "highest_margin": float(margins.max()),
    }
    if opened:
        figures["mean_distance"] = float(np.concatenate(opened).mean())
    if limits is None:
        return [_reason(Code.NO_CALIBRATION, "there are no limits for this model and profile")], figures
    found: list[Reason] = []
    figures["highest_margin_limit"] = limits.token_margin
    figures["mean_margin_limit"] = limits.margins.limit(jobs=len(jobs), count=len(margins), z=limits.z)
    _compare(found, figures, "highest_margin", Code.HIGHEST_MARGIN)
    _compare(found, figures, "mean_margin", Code.MEAN_MARGIN)
    if opened:
        count = sum(len(job) for job in opened)
        figures["mean_distance_limit"] = limits.distances.limit(jobs=len(opened), count=count, z=limits.z)
        _compare(found, figures, "mean_distance", Code.FINGERPRINT)
    else:
        detail = "no block was opened: who wrote the text is checked, which model computed it is not"
        found.append(_reason(Code.NO_FINGERPRINT, detail))
    return found, figures


def _compare(found: list[Reason], figures: dict[str, float], name: str, code: Code) -> None:
    value, most = figures[name], figures[f"{name}_limit"]
    if value > most:
        found.append(_reason(code, f"{name.replace('_', ' ')} {value:.4g} > {most:.4g}"))


def _reason(code: Code, detail: str) -> Reason:
    return Reason(code=code, detail=detail)
