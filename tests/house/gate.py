"""Runs every suite, cheapest first, inside one budget; closes with what failed and one line of counts.

A suite may take up to twice its minutes, or two more, while all together keep to their sum; one that took
longer than its own says so. Minutes are those of a host at its usual speed: a slower one has more of them
(decision 32).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.house.host import slowness

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "build" / "test-logs"
BIN = Path(sys.executable).parent
TAIL_LINES = 120
FAILURES = re.compile(r" +\d+ failing")

# Markers from light to heavy; a test belongs to the heaviest it carries.
LADDER = ("fuzz", "chain", "broker", "postgres", "rabbitmq", "model", "e2e")
# Folders whose tests carry a marker by a fixture of tests/keeper/stores.py, not by name.
BY_FIXTURE = {"postgres": ("keeper", "registry", "settlement", "store")}
# Their tests wait for other processes half of the time, each for its own.
TWO_FILES_AT_ONCE = ("chain", "broker")
SERVERS = {"postgres": "WATT_TEST_POSTGRES_URL", "rabbitmq": "WATT_TEST_RABBITMQ_URL"}
NO_TESTS = 5
# Files in memory, and what the tests of a run may need of it.
MEMORY, ROOM_BYTES = Path("/", "dev", "shm"), 8 << 30
GRACE_SECONDS = 60
# Minutes that a host may stand still in: to a suite of seconds, twice its time is nothing.
STALL = 2
QUICK = ("ruff", "format", "imports", "house", "codespell", "types", "unit")


@dataclass(frozen=True, slots=True)
class Suite:
    """One command; a pytest suite counts its tests, any other counts as one."""

    name: str
    command: tuple[str, ...]
    is_pytest: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one suite came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    word: str = ""


def suites() -> list[Suite]:
    """Every suite, in running order."""
    tools = {
        "ruff": ("ruff", "check", "."),
        "format": ("ruff", "format", "--check", "."),
        "imports": ("lint-imports", "--no-logo"),
        "codespell": ("codespell",),
        "types": ("mypy",),
        "solhint": ("npm", "run", "--silent", "lint"),
        "contracts": ("npm", "test", "--silent"),
        # What else there is takes longer, or is the contracts' own suite.
        "assure": ("scripts/assure", "static", "attacks", "model", "mutation"),
    }
    found = {name: Suite(name, command) for name, command in tools.items()}
    found["house"] = _pytest("house", "tests/house", "-n", "2")
    found["unit"] = _pytest("unit", "--ignore=tests/house", "-m", _only(""), "-n", "3")
    # In the order of the files, so that one market has stopped before the next is started.
    found["e2e"] = _pytest("e2e", "tests/local", "tests/e2e", "-m", _only("e2e"), "-p", "no:randomly")
    for marker in LADDER[:-1]:
        together = ("-n", "2", "--dist", "loadfile") if marker in TWO_FILES_AT_ONCE else ()
        found[marker] = _pytest(marker, *marked(marker), "-m", _only(marker), *together)
    return [found[name] for name in budget()]


def marked(marker: str) -> list[str]:
    """Files whose tests carry a marker: to read all others takes longer than some suites."""
    mark, folders = re.compile(rf"\bmark\.{marker}\b"), BY_FIXTURE.get(marker, ())
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        folder = path.relative_to(ROOT).parts[1]
        if folder != "house" and (folder in folders or mark.search(path.read_text())):
            found.append(str(path.relative_to(ROOT)))
    return found


def budget() -> dict[str, float]:
    """Minutes by suite, in running order."""
    minutes: dict[str, float] = tomllib.loads((ROOT / "tests" / "budget.toml").read_text())["minutes"]
    return minutes


def main(arguments: Iterable[str]) -> int:
    """Runs what was asked for; 0 when nothing failed."""
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument("--all", action="store_true", help="what needs a server too; a skipped test fails")
    parser.add_argument("--quick", action="store_true", help="only what takes no chain, broker or model")
    parser.add_argument("suite", nargs="*", help="only these suites")
    options = parser.parse_args(list(arguments))
    LOGS.mkdir(parents=True, exist_ok=True)
    total, left, failed = Outcome(), sum(budget().values()), []
    with surroundings() as environment:
        for suite in suites():
            if suite.name in (options.suite or budget()) and (suite.name in QUICK or not options.quick):
                outcome, minutes = _run(suite, left, environment, strict=options.all)
                total, left = _add(total, outcome), left - minutes
                failed += [f"{suite.name}: {outcome.word or _counts(outcome)}"] if outcome.failed else []
    # Once more, for whoever sees but the end of all this.
    print("".join(f"✗ {line}\n" for line in failed), end="")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or not total.passed else 0


@contextlib.contextmanager
def surroundings() -> Iterator[dict[str, str]]:
    """Variables for the suites, in which nothing waits longer than what is tested makes it wait.

    Databases that a test makes wait for no disk: they are in memory, where there is room. Threads of torch
    that wait for each other sleep: two suites' threads on two cores would spin in each other's way.
    """
    found = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if not MEMORY.exists() or shutil.disk_usage(MEMORY).free < ROOM_BYTES:
        yield found
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="watt-", ignore_cleanup_errors=True) as folder:
        yield found | {"TMPDIR": folder}


def _run(suite: Suite, left: float, environment: dict[str, str], *, strict: bool) -> tuple[Outcome, float]:
    """Outcome of a suite, and the minutes it took at the usual speed, of those that are left."""
    missing = SERVERS.get(suite.name)
    if missing and not os.environ.get(missing) and not strict:
        _line("-", suite.name, f"skipped: {missing} is not set", 0)
        return Outcome(skipped=1), 0
    minutes, log, report = budget()[suite.name], LOGS / f"{suite.name}.log", LOGS / f"{suite.name}.json"
    report.unlink(missing_ok=True)
    extra = [f"--counts={report}", *(["--strict-skips"] if strict else [])] if suite.is_pytest else []
    began, slow = time.monotonic(), slowness()
    code = _within(60 * slow * allowed(minutes, left), [*suite.command, *extra], log, environment)
    seconds = time.monotonic() - began
    outcome = _read(report, code) if suite.is_pytest else Outcome(int(code == 0), int(code != 0))
    if code is None:
        outcome = Outcome(
            outcome.passed, outcome.failed + 1, outcome.skipped, f"ended after {seconds / 60:.1f} min"
        )
    slow = max(slow, slowness())
    taken = seconds / 60 / slow
    over = f", over its {minutes:g} min" if taken > minutes else ""
    over += f", host {slow:.2f} times slower" if slow > 1 else ""
    _line("✗" if outcome.failed else "✓", suite.name, (outcome.word or _counts(outcome)) + over, seconds)
    if outcome.failed:
        print("\n".join(telling(log.read_text(errors="replace").splitlines())), flush=True)
    return outcome, taken


def telling(lines: list[str]) -> list[str]:
    """The end of a log; of Hardhat's, the end that names what failed, before the calls that led there."""
    failures = [at for at, line in enumerate(lines) if FAILURES.fullmatch(line)]
    return lines[failures[-1] :][:TAIL_LINES] if failures else lines[-TAIL_LINES:]


def allowed(minutes: float, left: float) -> float:
    """Minutes a suite may take: twice its own or `STALL` more, but no more than all together have left."""
    return max(0.0, min(max(2 * minutes, minutes + STALL), left))


def _within(seconds: float, command: list[str], log: Path, environment: dict[str, str]) -> int | None:
    """Exit code, or None when the time ran out; then the whole group is ended."""
    with log.open("wb") as out:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            # As Ctrl-C would, so that fixtures stop the processes they started.
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_SECONDS)
            return None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _read(report: Path, code: int | None) -> Outcome:
    if not report.exists():
        return Outcome(failed=0 if code is None else 1, word="ended without a report")
    passed, failed, skipped = json.loads(report.read_text())
    if code == NO_TESTS:
        return Outcome(word="no tests")
    # A run that ends badly without a failed test (strict skips, a broken collection) has still failed.
    return Outcome(passed, failed or int(code not in (0, None)), skipped)


def _pytest(name: str, *arguments: str) -> Suite:
    return Suite(name, (sys.executable, "-m", "pytest", "-q", *arguments), is_pytest=True)


def _only(marker: str) -> str:
    """Marker expression of the tests whose heaviest marker this is; "" for those that carry none."""
    heavier = LADDER[LADDER.index(marker) + 1 :] if marker else LADDER
    without = " and ".join(f"not {name}" for name in heavier)
    return " and ".join(part for part in (marker, without) if part)


def _counts(outcome: Outcome) -> str:
    skipped = f", {outcome.skipped} skipped" if outcome.skipped else ""
    return f"{outcome.passed} passed, {outcome.failed} failed{skipped}"


def _add(a: Outcome, b: Outcome) -> Outcome:
    return Outcome(a.passed + b.passed, a.failed + b.failed, a.skipped + b.skipped)


def _line(mark: str, name: str, text: str, seconds: float) -> None:
    print(f"{mark} {name:<10} {text:<44} {seconds:6.1f} s", flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
