"""What a command shows and keeps of a job that was paid, or of receipts that did not hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marketplace.cli import config as configs
from marketplace.cli import screen
from marketplace.protocol.errors import WattError

if TYPE_CHECKING:
    from marketplace.client.results import Paid


def paid(result: Paid) -> dict[str, Any]:
    """What every paid job tells, as JSON."""
    return {
        "job_id": result.job_id,
        "receipt_id": result.receipt_id,
        "trace_id": result.trace_id,
        "node_id": result.node_id,
        "model": result.model,
        "model_id": result.model_id,
        "cost": result.cost,
        "cost_atoms": str(result.cost_atoms),
        "ceiling_atoms": str(result.ceiling_atoms),
        "currency": result.currency,
        "units_in": result.units_in,
        "units_out": result.units_out,
        "energy_millijoules": result.energy_millijoules,
        "verified": all(check.ok for check in result.checks),
        "acknowledged": result.acknowledged,
        "attempts": result.attempts,
    }


def kept(result: Paid, config: configs.Config, save: Path | None) -> None:
    """Keeps the receipt in `save`, if it is given, and those on the way that did not hold."""
    if save is not None:
        _write(save, result.bundle.to_json())
    keep_faults(result.faults, config, None)


def show_logprobs(rows: list[dict[str, Any]]) -> None:
    """Tokens of an answer, how likely each was, and the likeliest in its place."""
    shown = [
        [
            repr(row["token"]),
            _percent(row),
            "  ".join(f"{other['token']!r} {_percent(other)}" for other in row["top"]),
        ]
        for row in rows
    ]
    screen.table(("TOKEN", "PROBABILITY", "LIKELIEST"), shown)


@contextmanager
def faults_kept(config: configs.Config, save: Path | None) -> Iterator[None]:
    """Keeps receipts that do not hold before their error is shown: the last in `save`, if it is given."""
    try:
        yield
    except WattError as error:
        keep_faults(error.values.get("faults", ()), config, save)
        raise


def keep_faults(bundles: Any, config: configs.Config, save: Path | None) -> None:
    """Keeps bundles that do not hold, the last in `save` if it is given, and says where."""
    from marketplace.client.bundle import Bundle
    from marketplace.protocol.ids import receipt_id

    for data in reversed(bundles):
        bundle = Bundle.from_json(data)
        name = f"{receipt_id(bundle.receipt.digest(bundle.domain))}.json"
        path, save = save or configs.journal_path(config).parent / "faults" / name, None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, data)
        except OSError as error:
            screen.note(f"The receipt of node {bundle.node_id} is lost: {path} ({error.strerror}).")
            continue
        screen.note(f"Kept the receipt of node {bundle.node_id} that does not hold: {path}")
        screen.note(f"Where it charges too much: watt dispute proof {path}")


def _write(path: Path, bundle: Any) -> None:
    import json

    path.write_text(json.dumps(bundle, indent=2) + "\n")


def receipt_line(result: Paid, config: configs.Config) -> None:
    """Says on stderr what was paid, to whom, and the receipt's id."""
    money = config.currency
    back = result.ceiling_atoms - result.cost_atoms
    parts = [f"paid {money.show(result.cost_atoms)}", f"{money.bare(back)} of the maximum not used"]
    parts.append(f"{result.units_in}+{result.units_out} units")
    if result.energy_millijoules:
        joules, rest = divmod(result.energy_millijoules, 1000)
        parts.append(f"{joules}.{rest // 100} J")
    parts += [f"node {result.node_id}", result.receipt_id, "✓ verified"]
    screen.note(" · ".join(parts))
    if not result.acknowledged:
        screen.note("The voucher did not arrive; the next job's voucher covers this one.")


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * math.exp(row['logprob_micro'] / 1e6):.1f} %"
