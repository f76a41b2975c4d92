"""Copies interfaces, creation code and sources out of a fresh build, run in the repository's root."""

from __future__ import annotations

import sys
from pathlib import Path

from marketplace.chain.artifacts import NAMES, compact_artifact
from marketplace.chain.verification import SOURCES, compact_sources

HERE = Path(__file__).parent


def main(build: Path) -> None:
    """Writes one compact JSON file a contract, and one with all their sources."""
    for name in NAMES:
        (HERE / f"{name}.json").write_text(compact_artifact(build / f"{name}.sol" / f"{name}.json"))
    (HERE / SOURCES).write_text(compact_sources(build))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("artifacts/contracts"))
