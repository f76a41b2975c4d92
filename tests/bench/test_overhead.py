"""How the serving bench reads its clocks."""

from __future__ import annotations

from tests.bench.overhead import Pieces


def test_waits_are_medians_over_answers_and_over_gaps() -> None:
    pieces = Pieces()
    for answer, times in {"a": (11.0, 11.5, 11.6), "b": (10.5, 10.7), "c": (13.0,)}.items():
        for at in times:
            pieces.add(answer, at)
    assert pieces.told(10.0) == {"first_ms": 1_000.0, "gap_ms": 200.0}
