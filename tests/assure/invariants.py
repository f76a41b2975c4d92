"""The invariant campaign: random calls by everybody, every invariant checked after each."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import Final

from tests.assure.figures import Figure, percent
from tests.assure.kept import Parts
from tests.assure.tools import HARDHAT, ROOT, ToolFailed, run

TALLIES: Final = ROOT / "cache" / "campaign.csv"
CAMPAIGN: Final = "tests/contracts/invariant/Campaign.t.sol"
_LANES = 2
_DEPTH = 128
_RUNS = 2_000  # of each lane
_TIMES = 10  # in the long form
_CALLS, _LONG_CALLS = 500_000, 5_000_000
_FEW = 100
_TELLING = re.compile("Error|failing|signature:|args:")


class Fallen(Exception):
    """An invariant fell; `output` says which, and the calls that did it."""

    def __init__(self, output: str) -> None:
        super().__init__("an invariant fell")
        self.output = tuple(line.strip() for line in output.splitlines() if _TELLING.search(line))


def measure(*, long: bool) -> list[Figure]:
    """Runs the campaign on Hardhat's engine, which draws anew each time; the long form ten times, each kept.

    WATTLINE_INVARIANT_RUNS and WATTLINE_INVARIANT_DEPTH make it smaller, for a look that misses its goals.
    """
    runs = int(os.environ.get("WATTLINE_INVARIANT_RUNS", _RUNS))
    depth = int(os.environ.get("WATTLINE_INVARIANT_DEPTH", _DEPTH))
    # The campaign deploys what ships, from its artifacts.
    run([*HARDHAT, "build", "--no-tests"], minutes=20)
    try:
        if not long:
            return judge(_campaign(runs, depth), depth=depth, long=False)
        parts = Parts("invariants", f"{runs}x{depth}", _TIMES)
        told = [parts.get(f"campaign {i}", partial(_campaign, runs, depth)) for i in range(_TIMES)]
    except Fallen as error:
        return judge("", depth=depth, long=long, broken=error.output)
    return judge("".join(told), depth=depth, long=True)


def _campaign(runs: int, depth: int) -> str:
    """Tallies of both lanes. Raises `Fallen`."""
    TALLIES.parent.mkdir(exist_ok=True)
    TALLIES.unlink(missing_ok=True)
    environment = {
        "WATTLINE_CAMPAIGN": "1",
        "WATTLINE_INVARIANT_RUNS": str(runs),
        "WATTLINE_INVARIANT_DEPTH": str(depth),
    }
    # 1: an invariant fell, and the output says which.
    command = [*HARDHAT, "test", "solidity", CAMPAIGN]
    output = run(command, minutes=120, environment=environment, allowed=(0, 1))
    if f" {_LANES} passing" not in output or "failing" in output:
        raise Fallen(output)
    if not TALLIES.exists():
        raise ToolFailed("the campaign left no tallies in cache/campaign.csv")
    return TALLIES.read_text()


def judge(tallies: str, *, depth: int, long: bool, broken: tuple[str, ...] = ()) -> list[Figure]:
    """Figures of a campaign from its lines "action,attempts,successes", one per action and run."""
    attempts: dict[str, int] = {}
    successes: dict[str, int] = {}
    for line in tallies.split():
        action, tried, worked = line.split(",")
        attempts[action] = attempts.get(action, 0) + int(tried)
        successes[action] = successes.get(action, 0) + int(worked)
    shares = {action: percent(successes[action], tried) for action, tried in attempts.items()}
    idle = tuple(
        f"{action}: {shares[action]} % of {attempts[action]}"
        for action in sorted(shares, key=shares.__getitem__)
    )
    rare = tuple(f"{action}: {tried} calls" for action, tried in attempts.items() if tried < _FEW)
    return [
        Figure(name="campaigns that broke an invariant", value=int(bool(broken)), goal="= 0", why=broken),
        Figure(
            name="random calls", value=sum(attempts.values()), goal=f"≥ {_LONG_CALLS if long else _CALLS}"
        ),
        Figure(name="calls in a row", value=depth, goal=f"≥ {_DEPTH}"),
        Figure(name="actions", value=len(attempts), goal="≥ 20"),
        Figure(name="actions called fewer than 100 times", value=len(rare), goal="= 0", why=rare),
        Figure(
            name="lowest share of an action's calls that worked",
            value=min(shares.values(), default=0.0),
            unit="%",
            goal="≥ 50",
            why=idle[:3],
        ),
    ]
