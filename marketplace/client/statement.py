"""What a piece of work came to: summed from its receipts, to the atom, and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marketplace.client.bundle import Bundle


@dataclass(slots=True, kw_only=True)
class NodeShare:
    """One node's part."""

    jobs: int = 0
    paid_atoms: int = 0


@dataclass(slots=True, kw_only=True)
class Tally:
    """Sums over receipts.

    `refunded_atoms` is what was set aside for these jobs and did not become theirs: ceilings less payments.
    """

    jobs: int = 0
    paid_atoms: int = 0
    refunded_atoms: int = 0
    units_in: int = 0
    units_out: int = 0
    energy_millijoules: int = 0
    nodes: dict[int, NodeShare] = field(default_factory=dict)

    def add(self, bundle: Bundle) -> None:
        """Counts one more."""
        receipt = bundle.receipt
        self.jobs += 1
        self.paid_atoms += receipt.amount_atoms
        self.refunded_atoms += bundle.order.max_amount_atoms - receipt.amount_atoms
        self.units_in += receipt.units_in
        self.units_out += receipt.units_out
        self.energy_millijoules += receipt.energy_millijoules
        share = self.nodes.setdefault(bundle.node_id, NodeShare())
        share.jobs += 1
        share.paid_atoms += receipt.amount_atoms

    def to_json(self) -> dict[str, Any]:
        """Amounts as text, as everywhere in JSON: they may be larger than a double is exact."""
        return {
            "jobs": self.jobs,
            "paid_atoms": str(self.paid_atoms),
            "refunded_atoms": str(self.refunded_atoms),
            "units_in": self.units_in,
            "units_out": self.units_out,
            "energy_millijoules": self.energy_millijoules,
            "nodes": [
                {"node_id": node_id, "jobs": share.jobs, "paid_atoms": str(share.paid_atoms)}
                for node_id, share in sorted(self.nodes.items())
            ],
        }


def tally(bundles: Iterable[Mapping[str, Any]]) -> Tally:
    """Sums over bundles in their JSON."""
    sums = Tally()
    for data in bundles:
        sums.add(Bundle.from_json(dict(data)))
    return sums


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes JSON objects, one a line, in place of an older file; gives how many. No row leaves no file."""
    fresh = path.with_name(path.name + ".new")
    count = 0
    with fresh.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    if count:
        fresh.replace(path)
    else:
        fresh.unlink()
        path.unlink(missing_ok=True)
    return count


def beside(path: Path, what: str) -> Path:
    """The file next to a result that holds something else of it: `a.receipts.jsonl` of `a.out.jsonl`."""
    return path.with_name(f"{path.stem.removesuffix('.out')}.{what}")
