"""Limits: what chance explains, and which calibration counts for whom."""

from __future__ import annotations

import numpy as np
import pytest

from marketplace.protocol.annex import Profile
from worker.proofs.calibration import Calibration, Spread, calibration_hash, read
from worker.proofs.verdict import Code, Measured, Outcome, Tier, pool_verdict, verdict, weigh

PROFILE = Profile(engine="e", torch="t", dtype="bfloat16", sampler="gumbel1", trace="x", device="cpu/amx")


def honest(jobs: int, *, seed: int, scale: float = 1.0, tokens: int = 64) -> list[np.ndarray]:
    """Margins as honest nodes have them: mostly none, now and then a little."""
    rng = np.random.default_rng(seed)
    return [rng.exponential(0.05 * scale, tokens) * (rng.random(tokens) < 0.03 * scale) for _ in range(jobs)]


def limits(**changes: object) -> Calibration:
    rng = np.random.default_rng(5)
    values = {
        "model": "0x" + "11" * 32,
        "profile": PROFILE,
        "margins": Spread.of(honest(200, seed=1)),
        "distances": Spread.of([rng.normal(0.02, 0.004, 16).clip(0) for _ in range(200)]),
        "token_margin": 0.7,
        "z": 4.75,
        "made": {"jobs": 200},
    }
    return Calibration(**values | changes)


def measured(margins: np.ndarray, distance: float = 0.02) -> Measured:
    return Measured(margins=margins, distances=np.full(16, distance))


def test_honest_jobs_pass_alone_and_pooled() -> None:
    found = limits()
    jobs = [measured(job) for job in honest(1000, seed=2)]
    assert not any(weigh([job], found)[0] for job in jobs)
    assert not any(weigh(jobs[i : i + 8], found)[0] for i in range(0, 1000, 8))


def test_pool_sees_what_no_job_shows() -> None:
    found = limits()
    jobs = [measured(job) for job in honest(8, seed=3, scale=2.2)]
    alone = [weigh([job], found)[0] for job in jobs]
    together, figures = weigh(jobs, found)
    assert sum(map(bool, alone)) < 8
    assert [reason.code for reason in together] == [Code.MEAN_MARGIN]
    assert figures["mean_margin"] > figures["mean_margin_limit"]


def test_limit_tightens_with_more_values_and_widens_for_few() -> None:
    spread = limits().margins
    tight = [spread.limit(jobs=jobs, count=64 * jobs, z=4.75) for jobs in (1, 4, 16, 64)]
    assert tight == sorted(tight, reverse=True)
    assert spread.limit(jobs=1, count=4, z=4.75) > 2 * tight[0]
    assert tight[-1] > spread.mean


def test_one_impossible_token_is_enough() -> None:
    margins = honest(1, seed=4)[0]
    margins[-1] = 0.9
    codes = {reason.code for reason in weigh([measured(margins)], limits())[0]}
    assert Code.HIGHEST_MARGIN in codes


def test_far_fingerprints_are_seen_where_margins_are_good() -> None:
    reasons, _ = weigh([measured(honest(1, seed=6)[0], distance=0.2)], limits())
    assert [reason.code for reason in reasons] == [Code.FINGERPRINT]


def test_without_limits_or_openings_nothing_is_proven() -> None:
    job = Measured(margins=honest(1, seed=7)[0], distances=np.empty(0))
    for found, code in ((None, Code.NO_CALIBRATION), (limits(), Code.NO_FINGERPRINT)):
        reasons, figures = weigh([job], found)
        assert [reason.code for reason in reasons] == [code]
        assert verdict(Tier.TOLERANCE, reasons, figures, jobs=1, tokens=64).outcome is Outcome.UNCLEAR


def test_nothing_measured_is_nothing_found() -> None:
    assert weigh([], limits()) == ([], {})
    assert pool_verdict([], limits()).outcome is Outcome.UNCLEAR


def test_calibration_is_for_one_model_type_sampler_and_device() -> None:
    found = read(limits().encode())
    assert found == limits()
    assert calibration_hash(found.encode()).startswith("0x")
    model = found.model
    assert found.fits(model, PROFILE.model_copy(update={"tile_rows": 16, "calibration": "0x12"}))
    assert not found.fits("0x" + "12" * 32, PROFILE)
    for change in ({"dtype": "float32"}, {"device": "cpu/avx2"}, {"sampler": "gumbel2"}, {"trace": "y"}):
        assert not found.fits(model, PROFILE.model_copy(update=change))


def test_file_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="profile"):
        read(b"{}")
