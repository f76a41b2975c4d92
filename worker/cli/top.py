"""`watt node top`: what the node does, live."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from worker.metering.stats import FIRST_TOKEN_MS

if TYPE_CHECKING:
    from worker.settings import NodeSettings


def once(settings: NodeSettings) -> dict[str, Any]:
    """One reading."""
    from worker.ledger import Ledger
    from worker.node.figures import reading

    ledger = Ledger(settings.ledger)
    try:
        return reading(ledger, live_file(settings.data_dir), time.time_ns() // 1_000_000)
    finally:
        ledger.close()


def live_file(data_dir: Path) -> Path:
    """Where the infer process leaves its counters."""
    return data_dir / "run" / "infer.json"


def show(settings: NodeSettings, *, as_json: bool, seconds: float) -> None:
    """Prints one reading as JSON, or a table again and again until Ctrl-C."""
    if as_json:
        typer.echo(json.dumps(once(settings), indent=2))
        return
    console = Console()
    with Live(table(once(settings)), console=console, auto_refresh=False) as screen:
        while True:
            time.sleep(seconds)
            screen.update(table(once(settings)), refresh=True)


def table(found: dict[str, Any]) -> Table:
    """A reading as lines of a table."""
    made = Table(show_header=False, title="node" if found["worker"] else "node (its worker is away)")
    made.add_column(style="bold")
    made.add_column(justify="right")
    for name, value in lines(found):
        made.add_row(name, value)
    return made


def lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values to show."""
    yield "waiting", str(found["queue_depth"])
    yield "running", str(found["running"])
    live = found.get("live")
    if live is None:
        return
    yield "batch", str(live["batch"])
    yield "tokens/s", f"{live['tokens_per_second']:.1f}"
    for task, one in sorted(live["first_token"].items()):
        yield f"first token, {task}", _median(one["counts"])
    for device, number in live["memory_bytes"].items():
        yield f"memory, {device}", "unknown" if number is None else f"{number / 2**20:.0f} MiB"
    for device, degrees in live["celsius"].items():
        yield f"temperature, {device}", "unknown" if degrees is None else f"{degrees} °C"
    for method, millijoules in live["energy_millijoules"].items():
        yield f"energy of jobs, {method}", f"{millijoules / 1000:.1f} J"
    yield f"idle energy, {live['energy_method']}", f"{live['idle_microjoules'] / 1e6:.1f} J"


def _median(counts: list[int]) -> str:
    """Bound of the bucket the median is in."""
    below = 0
    for limit, count in zip(FIRST_TOKEN_MS, counts, strict=False):
        below += count
        if 2 * below >= sum(counts) > 0:
            return f"≤ {limit} ms"
    return f"> {FIRST_TOKEN_MS[-1]} ms" if sum(counts) else "none yet"
