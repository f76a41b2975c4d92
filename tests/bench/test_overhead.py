"""How the serving bench reads its clocks."""

from __future__ import annotations

from tests.bench.overhead import Pieces, ratio


def test_waits_are_medians_over_answers_and_over_gaps() -> None:
    pieces = Pieces()
    for answer, times in {"a": (11.0, 11.5, 11.6), "b": (10.5, 10.7), "c": (13.0,)}.items():
        for at in times:
            pieces.add(answer, at)
    assert pieces.told(10.0) == {"first_ms": 1_000.0, "gap_ms": 200.0}


def test_ratio_is_to_what_was_around_it() -> None:
    # A host that gets slower by half all along: both sides lose alike.
    assert ratio([90.0, 45.0], [120.0, 60.0, 30.0]) == 1.0
    assert ratio([80.0, 90.0, 10.0], [100.0] * 4) == 0.8
