"""Changes our contracts in small ways and counts how often a test notices.

Usage: python -m tests.assure.mutation --seed N [--count 300] [--of FILE...] [--out FILE] [--id ID...]

A run that was cut short continues where it stopped, as long as contracts and tests are the same. `--of` tries
mutants of these files only, and the result holds it beside the run over all. `--id` tries single mutants and
shows them. Exits with 1 below the goal, or for a survivor unexplained or stale.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import queue
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.assure.mutants.bench import NOT_MUTATED, Base, Bench, Code, Verdict, build_base, fingerprint
from tests.assure.mutants.journal import Journal
from tests.assure.mutants.mutant import Mutant, drawn, mutants
from tests.assure.mutants.report import faults, reasons, report
from tests.assure.mutants.selection import Selection, select
from tests.assure.mutants.worker import Worker
from tests.assure.tools import ToolFailed

ROOT = Path(__file__).resolve().parents[2]
_REMAKE = "python -m tests.assure.mutation --out docs/results/mutation.json"
ENGINE = Path(__file__).with_name("mutants")
RESULT = ROOT / "docs" / "results" / "mutation.json"
SURVIVORS = Path(__file__).with_name("survivors.toml")
COMPILED = ("contracts", "hardhat.config.js", "package.json", "remappings.txt")
TESTED = (*COMPILED, "tests/contracts", "tests/vectors")


class Run:
    """Mutants put before the tests by several workers at once."""

    def __init__(self, benches: list[Bench], base: Base, journal: Journal) -> None:
        self._base = base
        self._journal = journal
        self._pool = ThreadPoolExecutor(len(benches))
        self._ahead = 2 * len(benches)
        self._benches: queue.Queue[Bench] = queue.Queue()
        for bench in benches:
            self._benches.put(bench)

    def select(self, candidates: Iterable[Mutant], count: int) -> Selection:
        """Compiles candidates until enough of them differ."""
        chosen, began = Selection(), time.monotonic()
        for chosen in select(candidates, count, self._build, self._original, self._pool, self._ahead):
            _progress("compiled", len(chosen.taken), count, began)
        return chosen

    def judge(self, taken: list[Mutant]) -> dict[str, Verdict]:
        """Puts each mutant before the tests, unless the journal knows its verdict."""
        verdicts, began = self._journal.verdicts(), time.monotonic()
        waiting = [self._pool.submit(self.judge_one, m) for m in taken if m.id not in verdicts]
        for at, done in enumerate(as_completed(waiting), 1):
            verdicts[done.result().id] = done.result()
            _progress("judged", at, len(waiting), began)
        return verdicts

    def judge_one(self, mutant: Mutant) -> Verdict:
        """One verdict, kept in the journal; what does not compile, no test has noticed."""
        code = self._build(mutant)
        if code is None:
            return Verdict(id=mutant.id, killed_by="", stage="not compiling", seconds=0)
        with self._bench() as bench:
            verdict = bench.judge(mutant, code)
        self._journal.add(verdict)
        return verdict

    def close(self) -> None:
        """Forgets what is waiting."""
        self._pool.shutdown(cancel_futures=True)

    def _build(self, mutant: Mutant) -> Code | None:
        def build() -> Code | None:
            with self._bench() as bench:
                return bench.build(mutant, self._base.carriers(mutant.file))

        return self._journal.code(mutant.id, build)

    def _original(self, mutant: Mutant) -> str:
        return fingerprint({key: self._base.code[key] for key in self._base.carriers(mutant.file)})

    @contextmanager
    def _bench(self) -> Iterator[Bench]:
        bench = self._benches.get()
        try:
            yield bench
        finally:
            self._benches.put(bench)


@contextmanager
def opened(
    root: Path, work: Path, seed: int, jobs: int, asked: Sequence[str] = ("tests/contracts/",)
) -> Iterator[tuple[Run, dict[str, list[Mutant]]]]:
    """A run over a private copy of the tree, and every mutant there is, by file.

    Only tests whose path begins with one of `asked` are.
    """
    with ExitStack() as stack:
        tree = copied(root, work / "tree")
        parsed = sorted(f for f in _solidity(tree) if not f.startswith(NOT_MUTATED))
        workers = [stack.enter_context(Worker(tree, parsed)) for _ in range(jobs)]
        compiled = digest(tree, COMPILED, ["worker.mjs"])
        those = hashlib.sha256("\0".join(asked).encode()).hexdigest()[:4]
        tested = digest(tree, TESTED, ["worker.mjs", "bench.py"]) + those
        base = build_base(workers[0], work / f"base-{tested}.json", asked)
        for worker in workers:
            worker.stand_on(base.code)
        benches = [Bench(worker, base, seed) for worker in workers]
        failing = benches[0].baseline()
        if failing:
            raise SystemExit("These fail without any mutant:\n" + "\n".join(failing))
        journal = Journal(work / f"code-{compiled}", work / f"verdicts-{tested}-{seed}.jsonl")
        run = Run(benches, base, journal)
        stack.callback(run.close)
        survey = workers[0].survey
        yield run, mutants(survey["asts"], survey["sources"])


def run(long: bool) -> list[dict[str, Any]]:
    """Figures of the committed result; the long form makes it anew, from the committed seed."""
    if not RESULT.exists():
        raise ToolFailed(f"{RESULT.relative_to(ROOT)} is missing: {_REMAKE} --seed N")
    for told in _kept(RESULT) if long else ():
        of = ["--asked", *told["asked"], *(["--of", *told["of"]] if told["of"] else [])]
        if main(["--seed", str(told["seed"]), *of, "--out", str(RESULT)]):
            raise ToolFailed(f"see what survived: {_REMAKE} {' '.join(['--seed', str(told['seed']), *of])}")
    return [row for told in _kept(RESULT) for row in rows(told)]


def rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Figures of one run, which say what they were taken of."""
    of = " and ".join(Path(file).stem for file in result["of"])
    taken = f"{f'of {of}, ' if of else ''}at {result['commit'][:10]}"
    return [
        {**row, "name": f"{row['name']}, {taken}", "goal": f"≥ {row['goal']:g}"} for row in result["figures"]
    ]


def keep(out: Path, made: dict[str, Any]) -> None:
    """Puts a run into a result, in the place of the last one over the same files."""
    runs = [told for told in _kept(out) if told["of"] != made["of"]] if out.exists() else []
    out.parent.mkdir(parents=True, exist_ok=True)
    told = {"runs": sorted([*runs, made], key=lambda run: run["of"])}
    out.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def _kept(result: Path) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(result.read_text())["runs"]
    return runs


def copied(root: Path, tree: Path) -> Path:
    """What is compiled and tested, apart from whatever happens to the working copy meanwhile."""
    shutil.rmtree(tree, ignore_errors=True)
    for name in TESTED:
        source, target = root / name, tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    (tree / "node_modules").symlink_to(root / "node_modules")
    return tree


def digest(tree: Path, names: Iterable[str], engine: Iterable[str] = ()) -> str:
    """Of these files and folders of the tree, and of these files of the engine."""
    told = hashlib.sha256()
    places = [*(ENGINE / name for name in engine), *(tree / name for name in names)]
    for place in places:
        files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
        for file in files:
            told.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return told.hexdigest()[:12]


def main(arguments: list[str]) -> int:
    """0 when the goal is met and every survivor explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.assure.mutation", description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="draws the sample and seeds the fuzzer")
    parser.add_argument("--count", type=int, default=300, help="mutants to try, all different in bytecode")
    parser.add_argument("--of", nargs="+", default=[], help="only mutants of these files")
    parser.add_argument("--asked", nargs="+", default=["tests/contracts/"], help="tests, by the path's start")
    parser.add_argument("--jobs", type=int, default=2, help="workers, under 1 GB each")
    parser.add_argument("--out", type=Path, help="where the report goes, beside the terminal")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "mutation", help="journal and copies")
    parser.add_argument("--id", nargs="+", default=[], help="only these mutants, whatever was drawn")
    options = parser.parse_args(arguments)
    with opened(ROOT, options.work, options.seed, options.jobs, options.asked) as (run, by_file):
        candidates = drawn(by_file, options.seed)
        if options.id:
            return _show(run, [m for m in candidates if m.id in options.id])
        wanted = [m for m in candidates if not options.of or m.file in options.of]
        selection = run.select(wanted, options.count)
        verdicts = run.judge(selection.taken)
    explained = reasons(SURVIVORS)
    made = report(ROOT, options.seed, selection, verdicts, explained, sorted(options.of))
    made["asked"] = options.asked
    if options.out:
        keep(options.out, made)
    else:
        sys.stdout.write(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    taken = {m.id for m in selection.taken}
    alive = [m for m in selection.taken if not verdicts[m.id].killed_by]
    wrong = faults(alive, taken, {m.id for m in candidates}, explained)
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    sys.stderr.write(f"{made['killed']} of {made['distinct']} killed, {made['score']} %\n")
    return int(bool(wrong) or not all(figure["met"] for figure in made["figures"]))


def _show(run: Run, chosen: list[Mutant]) -> int:
    alive = 0
    for mutant in chosen:
        verdict = run.judge_one(mutant)
        alive += not verdict.killed_by
        shown = {k: v for k, v in asdict(mutant).items() if k != "text"} | asdict(verdict)
        sys.stdout.write(json.dumps(shown, indent=1, ensure_ascii=False) + "\n")
    return int(alive > 0 or not chosen)


def _solidity(tree: Path) -> list[str]:
    return [p.relative_to(tree).as_posix() for p in (tree / "contracts").rglob("*.sol")]


def _progress(what: str, done: int, of: int, began: float) -> None:
    seconds = time.monotonic() - began
    left = seconds / done * (of - done) if done else 0
    sys.stderr.write(f"{what} {done}/{of}, {seconds:.0f} s, {left:.0f} s left\n")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
