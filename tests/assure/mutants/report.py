"""The result as it is committed: the score, and every survivor with the reason why it may live."""

from __future__ import annotations

import platform
import subprocess
import tomllib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.assure.mutants.bench import OVERTIME, Verdict
from tests.assure.mutants.mutant import Mutant, proportions
from tests.assure.mutants.selection import Selection

GOAL_COUNT = 300
# Of single files: all there are, which must not be next to none.
GOAL_COUNT_OF_FILES = 100
GOAL_PERCENT = 95.0


def reasons(path: Path) -> dict[str, str]:
    """Why a mutant may survive, by its id."""
    entries = tomllib.loads(path.read_text()).get("survivor", [])
    return {entry["id"]: entry["reason"] for entry in entries}


def faults(alive: list[Mutant], sampled: set[str], known: set[str], explained: dict[str, str]) -> list[str]:
    """What is wrong with the explanations; must be none.

    `sampled` were tried, `known` are all mutants there are. An explanation of one that was not drawn this
    time stands, as long as its code is still there.
    """
    open_ = [m for m in alive if not explained.get(m.id)]
    killed = sampled - {m.id for m in alive}
    found = [f"unexplained: {m.id} {m.file}:{m.line} {m.operator}: {m.before} → {m.after}" for m in open_]
    found += [f"explained, but killed: {key}" for key in sorted(set(explained) & killed)]
    return found + [f"explained, but gone: {key}" for key in sorted(set(explained) - known)]


def report(
    root: Path,
    seed: int,
    selection: Selection,
    verdicts: dict[str, Verdict],
    explained: dict[str, str],
    of: list[str],
) -> dict[str, Any]:
    """What goes into docs/results; `of` are the files that were changed, none: all of them."""
    taken = selection.taken
    alive = [m for m in taken if not verdicts[m.id].killed_by]
    killed = len(taken) - len(alive)
    score = round(100 * killed / len(taken), 2)
    wanted = GOAL_COUNT_OF_FILES if of else GOAL_COUNT
    return {
        "commit": _commit(root),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "seed": seed,
        "of": of,
        "sampled": selection.drawn,
        "not_compiling": selection.broken,
        "equal_to_original": selection.equal,
        "repeated": selection.repeated,
        "distinct": len(taken),
        "killed": killed,
        "survived": len(alive),
        "score": score,
        "by_file": _by_file(taken, alive),
        "by_operator": proportions(taken),
        "timed_out": sum(verdicts[m.id].killed_by.startswith(OVERTIME) for m in taken),
        "killed_in": dict(Counter(verdicts[m.id].stage for m in taken if verdicts[m.id].killed_by)),
        "survivors": [
            {
                "id": m.id,
                "file": m.file,
                "line": m.line,
                "function": m.function,
                "operator": m.operator,
                "before": m.before,
                "after": m.after,
                "reason": explained.get(m.id, ""),
            }
            for m in alive
        ],
        "figures": [
            _figure("mutants distinct in bytecode", len(taken), "mutants", wanted),
            _figure("mutation score", score, "%", GOAL_PERCENT),
            _figure("survivors explained", sum(m.id in explained for m in alive), "mutants", len(alive)),
        ],
    }


def _figure(name: str, value: float, unit: str, goal: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "goal": goal, "met": value >= goal}


def _by_file(taken: list[Mutant], alive: list[Mutant]) -> dict[str, dict[str, int]]:
    distinct, survived = Counter(m.file for m in taken), Counter(m.file for m in alive)
    return {name: {"distinct": distinct[name], "survived": survived[name]} for name in sorted(distinct)}


def _commit(root: Path) -> str:
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
