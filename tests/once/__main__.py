"""The at-most-once matrix against a running market, as one table and one file."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.assure.figures import table
from tests.assure.report import ROOT, write
from tests.e2e.conftest import EAGER
from tests.e2e.market import MarketUnderTest, stop_when_told
from tests.once.matrix import QUICK, everything, run

NAME: Final = "once"


def main(arguments: Iterable[str]) -> int:
    """Runs the matrix; 0 when every call was charged exactly once."""
    parser = argparse.ArgumentParser(prog="scripts/once", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one client to a failure: a minute")
    options = parser.parse_args(list(arguments))
    stop_when_told()
    with tempfile.TemporaryDirectory(prefix="wattline-once-") as folder:
        market = MarketUnderTest(Path(folder), EAGER)
        try:
            market.start()
            cells = QUICK if options.quick else everything()
            parts = run(
                market, cells, lambda part: print(f"{part.name}: done in {part.seconds:.0f} s", flush=True)
            )
        finally:
            code = market.stop()
    print(table(parts))
    print(f"written to {write(NAME, parts).relative_to(ROOT)}")
    return 0 if code == 0 and all(part.met for part in parts) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
