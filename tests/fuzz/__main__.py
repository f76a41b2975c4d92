"""Fuzzes a gateway with what its OpenAPI page allows and forbids, then with bodies made to hurt."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.assure.figures import table
from tests.assure.report import ROOT, write
from tests.fuzz.campaign import hurt, parts_of, run, running

NAME: Final = "fuzz"
CASES: Final = 20_000


def main(arguments: Iterable[str]) -> int:
    """Runs it; 0 when nothing is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="a fresh one when not given")
    options = parser.parse_args(list(arguments))
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="wattline-fuzzed-") as folder, running(Path(folder)) as gateway:
        found = run(gateway, seed=options.seed, count=options.cases, log=sys.stdout)
        hurts = hurt(gateway)
        parts = parts_of(found, hurts, options.cases)
    print(table(parts))
    print(found.told())
    print(f"written to {write(NAME, parts).relative_to(ROOT)}")
    return 0 if all(part.met for part in parts) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
