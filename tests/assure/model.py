"""The contracts against a model written from the protocol page, over many random calls."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

from tests.assure.figures import Figure, percent
from tests.model.bench import Mismatch, Tally
from tests.model.campaign import VERBS_OF_OTHERS, checked, found_after, unseen_errors
from tests.model.planted import CONTRACT_BUGS, MODEL_BUGS, Bug, planted_code, planted_model
from tests.model.settlement import Status

CALLS: Final = 110_000
LONG_CALLS: Final = 1_100_000
# Seeds that the tests do not use.
FIRST_SEED: Final = 1_000
_PATIENCE: Final = 40_000


def measure(*, long: bool) -> list[Figure]:
    """Plants bugs too; the long form also compiles some into the contracts.

    WATTLINE_MODEL_CALLS makes it smaller, for a look that misses its goal.
    """
    calls = int(os.environ.get("WATTLINE_MODEL_CALLS", LONG_CALLS if long else CALLS))
    began = time.process_time()
    tally, found = _tallied(calls)
    seconds = time.process_time() - began
    figures = judge(tally, mismatch=found, long=long)
    figures.append(Figure(name="processor time", value=round(seconds), unit="s"))
    figures += _teeth("model", [(bug, {"maker": planted_model(bug)}) for bug in MODEL_BUGS])
    if long:
        figures += _teeth("contracts", [(bug, {"code": planted_code(bug)}) for bug in CONTRACT_BUGS])
    return figures


def judge(tally: Tally, *, mismatch: tuple[str, ...], long: bool) -> list[Figure]:
    """Figures of a run: what it called and saw, and the difference that ended it, if any."""
    print("\n".join(tally.shares()), file=sys.stderr)
    verbs = {verb for verb in tally.refused + tally.done if verb not in VERBS_OF_OTHERS}
    idle = tuple(sorted(verbs - set(tally.done)))
    errors = tuple(sorted(unseen_errors(tally)))
    statuses = tuple(status.name for status in Status if status.name not in tally.statuses)
    settled = percent(tally.statuses[Status.SETTLED.name], tally.statuses.total())
    return [
        Figure(name="calls checked", value=tally.calls, goal=f"≥ {1_000_000 if long else 100_000}"),
        Figure(name="mismatches", value=int(bool(mismatch)), goal="= 0", why=mismatch),
        Figure(name="facts compared", value=tally.views),
        Figure(
            name="calls that succeed", value=percent(tally.done.total(), tally.calls), unit="%", goal="≥ 50"
        ),
        Figure(name="vouchers that settle", value=settled, unit="%"),
        Figure(name="verbs that never succeed", value=len(idle), goal="= 0", why=idle),
        Figure(name="errors never seen", value=len(errors), goal="= 0", why=errors),
        Figure(name="settle statuses never seen", value=len(statuses), goal="= 0", why=statuses),
    ]


def _tallied(calls: int) -> tuple[Tally, tuple[str, ...]]:
    try:
        return checked(calls, FIRST_SEED), ()
    except Mismatch as mismatch:
        return Tally(), (str(mismatch), *getattr(mismatch, "__notes__", ()))


def _teeth(where: str, bugs: list[tuple[Bug, dict[str, Any]]]) -> list[Figure]:
    found = {bug.name: found_after(_PATIENCE, **planted) for bug, planted in bugs}
    missed = tuple(name for name, calls in found.items() if calls is None)
    hits = [calls for calls in found.values() if calls is not None]
    return [
        Figure(
            name=f"bugs planted in the {where}, found",
            value=len(hits),
            goal=f"= {len(bugs)}",
            why=missed,
        ),
        Figure(name=f"calls to the last found in the {where}", value=max(hits, default=0)),
    ]
