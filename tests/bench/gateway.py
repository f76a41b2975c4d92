"""What the market adds to a buyer's call, and how fast its messages are signed and checked."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from tests.assure.figures import Figure, Part, table
from tests.assure.report import ROOT, write
from tests.bench import roundtrips, signing

JOBS: Final[dict[str, Callable[..., Iterator[Figure]]]] = {
    "signing": signing.figures,
    "latency": roundtrips.figures,
}


def main(arguments: Iterable[str]) -> int:
    """Prints the table and writes `build/bench-gateway.json`; 0 when every goal is met."""
    parser = argparse.ArgumentParser(prog="scripts/bench-gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few calls; shows that it runs, not how fast")
    parser.add_argument("--only", choices=JOBS, help="one part")
    options = parser.parse_args(list(arguments))
    parts = []
    for name, job in JOBS.items():
        if options.only in (None, name):
            begin = time.monotonic()
            figures = tuple(job(quick=options.quick))
            parts.append(Part(name=name, figures=figures, seconds=time.monotonic() - begin))
    print(table(parts))
    print(f"written to {write('bench-gateway', parts).relative_to(ROOT)}")
    return 0 if all(part.met for part in parts) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
