"""What is known about the contracts beyond their tests, as one table and one file."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Final, Protocol

from tests.assure import attacks, coverage, fuzz, invariants, model, mutation, proofs, static
from tests.assure.figures import Figure, Part, figure_of, table
from tests.assure.report import write
from tests.assure.tools import BUILD, ROOT, ToolFailed, end_all

NAME: Final = "assure"
RESULTS: Final = "docs/results"
_AT_ONCE: Final = 2
_HARDHAT: Final = Lock()


class Measure(Protocol):
    """Measures one part; `long` allows hours."""

    def __call__(self, *, long: bool) -> list[Figure]: ...


def _rows_of(run: Callable[[bool], Sequence[Mapping[str, Any]]]) -> Measure:
    """Of a part that can also be run by itself, and gives rows."""

    def measure(*, long: bool) -> list[Figure]:
        return [figure_of(row) for row in run(long)]

    return measure


def _alone(measure: Measure) -> Measure:
    """Of a part that builds with Hardhat, whose folders are one for all."""

    def alone(*, long: bool) -> list[Figure]:
        with _HARDHAT:
            return measure(long=long)

    return alone


# Two at a time, longest first. A new part is one file and one line here.
PARTS: Final[dict[str, Measure]] = {
    "proofs": proofs.measure,
    "fuzz": fuzz.measure,
    "coverage": coverage.measure,
    "model": _alone(model.measure),
    "static": static.measure,
    "attacks": _alone(_rows_of(attacks.run)),
    "invariants": _alone(invariants.measure),
    "mutation": _rows_of(mutation.run),
}


def main(arguments: Iterable[str]) -> int:
    """Runs what was asked for; 0 when every figure reaches its goal."""
    parser = argparse.ArgumentParser(prog="scripts/assure", description=__doc__)
    parser.add_argument("--long", action="store_true", help="many more random calls and runs: hours")
    parser.add_argument("part", nargs="*", help=f"only these of: {', '.join(PARTS)}")
    options = parser.parse_args(list(arguments))
    if unknown := set(options.part) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    BUILD.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in PARTS if not options.part or name in options.part]
    parts = _all_measured(wanted, long=options.long)
    print(table(parts))
    written = [write(NAME, parts)]
    if options.long:
        # A part to a file, because a part takes hours.
        written += [write(f"{NAME}-{part.name}", [part], RESULTS) for part in parts]
    print("written to " + ", ".join(str(path.relative_to(ROOT)) for path in written))
    return 0 if all(part.met for part in parts) else 1


def _all_measured(names: Iterable[str], *, long: bool) -> list[Part]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            return list(pool.map(lambda name: _measured(name, long=long), names))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_all()
            raise


def _measured(name: str, *, long: bool) -> Part:
    print(f"{name} …", file=sys.stderr, flush=True)
    began = time.monotonic()
    try:
        figures = PARTS[name](long=long)
    except ToolFailed as error:
        why = tuple(str(error).splitlines())
        figures = [Figure(name="runs that came to an end", value=0, goal="= 1", why=why)]
    return Part(name=name, figures=tuple(figures), seconds=time.monotonic() - began)


if __name__ == "__main__":
    # As Ctrl-C would, so that the tool in hand is stopped too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(main(sys.argv[1:]))
