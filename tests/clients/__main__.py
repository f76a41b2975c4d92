"""The matrix of real clients against a running market, as one table and one file."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.assure.figures import Part, table
from tests.assure.report import ROOT, write
from tests.clients.matrix import CLIENTS, QUICK, run
from tests.e2e.conftest import EAGER
from tests.e2e.market import MarketUnderTest, stop_when_told

NAME: Final = "clients"
_EXAMPLES: Final = """examples:
  scripts/clients                    every client; the first time it installs them
  scripts/clients --only openai-js   one client, or all with this in their names
  scripts/clients --quick            those that the tests have installed anyway: a minute
"""


def main(arguments: Iterable[str]) -> int:
    """Runs the matrix; 0 when every call had a right answer, a true cost and a receipt that holds."""
    parser = argparse.ArgumentParser(
        prog="scripts/clients",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="clients with this in their names")
    parser.add_argument("--quick", action="store_true", help="only clients that the tests have installed")
    options = parser.parse_args(list(arguments))
    chosen = [client for client in (QUICK if options.quick else CLIENTS) if options.only in client.name]
    if not chosen:
        parser.error(f"no client is called {options.only!r}: {', '.join(client.name for client in CLIENTS)}")
    stop_when_told()
    with tempfile.TemporaryDirectory(prefix="wattline-clients-") as folder:
        market = MarketUnderTest(Path(folder), EAGER)
        print("starting a market", flush=True)
        try:
            market.start()
            parts = run(market, chosen, installed=options.quick, tell=_tell)
        finally:
            code = market.stop()
    print(table(parts))
    print(f"written to {write(NAME, parts).relative_to(ROOT)}")
    return 0 if code == 0 and all(part.met for part in parts) else 1


def _tell(part: Part) -> None:
    print(f"{'✓' if part.met else '✗'} {part.name}: {part.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
