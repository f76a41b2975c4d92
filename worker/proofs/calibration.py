"""Limits of what honest nodes show, measured once for a model and profile, then frozen.

A limit is a mean plus what chance may add. Jobs differ (their texts do), tokens of a job differ, and margins
are skewed, so a limit for `jobs` jobs with `count` values together is

    mean + w(z, skew/√count) · √(between²/jobs + within²/count)

where `w` is the Wilson-Hilferty quantile of a skewed sum. One formula serves one job and a pool of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from marketplace.protocol.annex import Profile
from marketplace.protocol.hexes import keccak, to_hex
from worker.proofs.sampling import Floats

# Fields of a profile that do not move rounding noise; their limits are the same.
_ANY: Final = (
    "engine",
    "torch",
    "tile_rows",
    "prompt_block",
    "threads",
    "template",
    "context_tokens",
    "calibration",
)
_SHIPPED: Final = "calibrations"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spread(_Strict):
    """How one kind of value spreads over honest jobs.

    Attributes:
        mean: Of all values.
        within: Standard deviation of values inside a job.
        between: Standard deviation of jobs' means, beyond what their length explains.
        skew: Third standardised moment of the values.
        highest: Largest value seen.
    """

    mean: float = Field(ge=0)
    within: float = Field(ge=0)
    between: float = Field(ge=0)
    skew: float
    highest: float = Field(ge=0)

    @classmethod
    def of(cls, jobs: Sequence[Floats]) -> Self:
        """Spread of the values of several jobs, each `(values,)`."""
        values = np.concatenate(list(jobs))
        mean = float(values.mean())
        within = float(values.std())
        means = np.array([job.mean() for job in jobs])
        by_length = within**2 * float(np.mean([1 / len(job) for job in jobs]))
        skew = float(np.mean((values - mean) ** 3)) / within**3 if within else 0.0
        between = max(0.0, float(means.var()) - by_length) ** 0.5
        return cls(mean=mean, within=within, between=between, skew=skew, highest=float(values.max()))

    def limit(self, *, jobs: int, count: int, z: float) -> float:
        """Highest mean of `count` values of `jobs` jobs that chance explains."""
        skew = self.skew / count**0.5
        widened = z if abs(skew) < 1e-6 else 2 / skew * ((1 + skew * z / 6 - skew**2 / 36) ** 3 - 1)
        deviation = (self.between**2 / jobs + self.within**2 / count) ** 0.5
        return float(self.mean + max(widened, z) * deviation)


class Calibration(_Strict):
    """One calibration file.

    Attributes:
        model: Its id.
        profile: Of the nodes it was measured on; `calibration` in it is empty.
        margins: Of tokens.
        distances: Of fingerprints.
        token_margin: No honest token may lie further off.
        z: How improbable a mean must be, in standard deviations.
        made: How it was measured, for people.
    """

    v: Literal[1] = 1
    model: str
    profile: Profile
    margins: Spread
    distances: Spread
    token_margin: float
    z: float
    made: dict[str, str | int]

    def fits(self, model: str, profile: Profile) -> bool:
        """Whether limits for this model and profile are these."""
        same = profile.model_copy(update={name: getattr(self.profile, name) for name in _ANY})
        return model == self.model and same == self.profile

    def encode(self) -> bytes:
        """Bytes of the file."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()


def calibration_hash(data: bytes) -> str:
    """What a profile calls a calibration file by."""
    return to_hex(keccak(data))


def read(data: bytes) -> Calibration:
    """Calibration of a file's bytes. Raises `ValueError`."""
    return Calibration.model_validate_json(data)


def shipped(model: str, profile: Profile) -> Calibration | None:
    """The calibration that comes with this release, if one fits."""
    return next((found for found, _ in _all() if found.fits(model, profile)), None)


def shipped_hash(model: str, profile: Profile) -> str:
    """Its hash; empty when none fits."""
    return next((name for found, name in _all() if found.fits(model, profile)), "")


@lru_cache(maxsize=1)
def _all() -> tuple[tuple[Calibration, str], ...]:
    folder = resources.files("worker.proofs") / _SHIPPED
    files = sorted(folder.iterdir(), key=lambda file: file.name) if folder.is_dir() else []
    held = [file.read_bytes() for file in files if file.name.endswith(".json")]
    return tuple((read(data), calibration_hash(data)) for data in held)
