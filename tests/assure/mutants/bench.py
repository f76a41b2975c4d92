"""Where a mutant is built and put before the tests, cheapest first."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tests.assure.mutants.mutant import Mutant
from tests.assure.mutants.worker import Worker, WorkerGone

Code = dict[str, dict[str, Any]]

# What is no contract of ours, or is never deployed for anybody's money.
NOT_MUTATED = ("contracts/mocks/", "contracts/interfaces/", "contracts/TestDollar.sol")
# In order; each holds the suites whose path says so.
FIRST_LOOKS = ("function", "contract")
STAGES = (*FIRST_LOOKS, "vectors", "others", "rebuilt", "attacks", "campaign")
# Gas and layout are other checks' business: a mutant that only costs more is not dead.
NOT_ASKED = re.compile(r"(?i)(gas|snapshot|layout|storage)\w*\.t\.sol$")
BUILD_SECONDS = 900
TEST_SECONDS = 180
OVERTIME = "over"
# Most mutants die of the first example. Those that live see more of them, and a campaign.
FEW_FUZZ_RUNS = 16
FUZZ_RUNS = 256
CAMPAIGN = {"runs": 24, "depth": 128}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a mutant: a test that failed, if any, and the stage in which it did."""

    id: str
    killed_by: str
    stage: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Contracts and tests as they are: bytecode by `file:name`, and what each file imports, however far."""

    code: Code
    closures: dict[str, list[str]]

    def suites(self) -> list[str]:
        """Test contracts that are asked."""
        return [key for key, code in self.code.items() if _is_suite(key, code)]

    def shipped(self) -> list[str]:
        """Contracts that are deployed; a library whose functions are all inlined elsewhere is none."""
        ours = [key for key in self.code if key.startswith("contracts/") and not key.startswith(NOT_MUTATED)]
        return [key for key in ours if self.code[key]["bytecode"] != "0x" and _functions(self.code[key])]

    def stale(self, keys: list[str], file: str) -> list[str]:
        """Those that hold code of this file and must be built again when it changes."""
        return [key for key in keys if file in self.closures[key.split(":")[0]]]

    def carriers(self, file: str) -> list[str]:
        """Whose bytecode tells this file's mutants apart: contracts that ship, else the tests' copies."""
        return self.stale(self.shipped(), file) or self.stale(self.suites(), file)


class Bench:
    """One worker and the code it stands on."""

    def __init__(self, worker: Worker, base: Base, seed: int) -> None:
        self._worker = worker
        self._base = base
        self._seed = "0x" + hashlib.sha256(str(seed).encode()).hexdigest()

    def build(self, mutant: Mutant, targets: list[str]) -> Code | None:
        """Bytecode with the mutant in it; None when it does not compile."""
        changed = {mutant.file: mutant.text}
        answer = self._worker.ask("compile", targets=targets, changed=changed, timeout_seconds=BUILD_SECONDS)
        return answer.get("code")

    def judge(self, mutant: Mutant, code: Code) -> Verdict:
        """Runs the tests, stage by stage, until one fails. `code` has the mutant's carriers."""
        began = time.monotonic()
        killed_by = reached = ""
        carried = dict(code)
        for stage, suites in stages(self._base, mutant):
            stale = [key for key in self._base.stale(suites, mutant.file) if key not in carried]
            if stale:
                # Tests that take in the mutated file must live with it, as they would with the real one.
                rebuilt = self.build(mutant, stale)
                if rebuilt is None:
                    raise RuntimeError(f"{mutant.id} compiles in the contracts, but not in {stale}")
                carried |= rebuilt
            killed_by = self._run(suites, carried, FEW_FUZZ_RUNS if stage in FIRST_LOOKS else FUZZ_RUNS)
            if killed_by:
                reached = stage
                break
        return Verdict(id=mutant.id, killed_by=killed_by, stage=reached, seconds=time.monotonic() - began)

    def baseline(self) -> list[str]:
        """Tests that fail without any mutant; must be none."""
        answer = self._ask_tests(self._base.suites(), {}, FUZZ_RUNS)
        return [": ".join(failure) for failure in answer["failures"]]

    def _run(self, suites: list[str], code: Code, fuzz_runs: int) -> str:
        """The first test that fails, by name, or nothing."""
        try:
            answer = self._ask_tests(suites, code, fuzz_runs)
        except TimeoutError:
            return f"{OVERTIME} {TEST_SECONDS} s"
        except WorkerGone:
            # Once may be the machine's fault; twice is the mutant's, and a person must look at it.
            answer = self._ask_tests(suites, code, fuzz_runs)
        return str(answer["failures"][0][0]) if answer["failures"] else ""

    def _ask_tests(self, suites: list[str], code: Code, fuzz_runs: int) -> dict[str, Any]:
        return self._worker.ask(
            "test",
            suites=suites,
            code=code,
            fuzzRuns=fuzz_runs,
            campaign=CAMPAIGN,
            seed=self._seed,
            timeout_seconds=TEST_SECONDS,
        )


def stages(base: Base, mutant: Mutant) -> Iterator[tuple[str, list[str]]]:
    """Suites in the order they are asked: likely ones first, and in the end each one in full."""
    by_stage: dict[str, list[str]] = {name: [] for name in STAGES}
    for key in sorted(base.suites()):
        parts = set(re.split(r"[/.]", key.split(":")[0].lower()))
        if parts & {"invariant", "invariants"}:
            by_stage["campaign"].append(key)
        elif any(part.startswith("attack") for part in parts):
            by_stage["attacks"].append(key)
        elif "vectors" in parts:
            by_stage["vectors"].append(key)
        elif base.stale([key], mutant.file):
            by_stage["rebuilt"].append(key)
        else:
            by_stage["others"].append(key)
        if _names_of(mutant) & parts:
            by_stage["contract"].append(key)
        if mutant.function.split(".")[-1].strip("_").lower() in parts:
            by_stage["function"].append(key)
    return ((name, suites) for name, suites in by_stage.items() if suites)


def _names_of(mutant: Mutant) -> set[str]:
    path = PurePosixPath(mutant.file)
    words = re.findall("[A-Z][a-z]+", path.stem)
    return {word.lower() for word in (path.stem, path.parent.name, *words)} - {
        "contracts",
        "libraries",
        "types",
    }


def build_base(worker: Worker, cache: Path, asked: Sequence[str]) -> Base:
    """Compiles everything as it is, or reads what an earlier run compiled of the same sources.

    Of the tests only what begins with one of `asked`: what these miss counts as missed by all.
    """
    closures: dict[str, list[str]] = worker.survey["closures"]
    if not cache.exists():
        files = [f for f in closures if f.startswith(("contracts/", *asked))]
        targets = [f"{f}:*" for f in files]
        answer = worker.ask("compile", targets=targets, changed={}, timeout_seconds=BUILD_SECONDS)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(answer["code"]))
    return Base(code=json.loads(cache.read_text()), closures=closures)


def fingerprint(code: Code) -> str:
    """Digest of creation code, which holds the deployed code too: the constructor counts."""
    text = "\0".join(f"{key} {code[key]['bytecode']}" for key in sorted(code))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_suite(key: str, code: dict[str, Any]) -> bool:
    file = key.split(":")[0]
    if not file.startswith("tests/") or NOT_ASKED.search(file) or code["bytecode"] == "0x":
        return False
    return any(name.startswith(("test", "invariant")) for name in _functions(code))


def _functions(code: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in json.loads(code["abi"]) if entry["type"] == "function"]
