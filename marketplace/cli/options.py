"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from marketplace.cli import inputs

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Gateway = Annotated[str | None, typer.Option("--gateway", metavar="URL", help="Gateway (WATT_GATEWAY_URL).")]
Rpc = Annotated[str | None, typer.Option("--rpc", metavar="URL", help="Chain RPC (WATT_RPC_URL).")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="Of `watt up`; ./.watt or WATT_HOME.")
]
WalletFile = Annotated[
    Path | None, typer.Option("--wallet", metavar="FILE", help="Key file of the buyer (WATT_WALLET).")
]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", metavar="FILE", help="Passphrase of the wallet.")
]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="In token units, as in 2.50.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Name, name@version or 0x… id; else the first on offer.")
]
MaxCost = Annotated[str | None, typer.Option("--max-cost", metavar="AMOUNT", help="Most it may cost.")]
Node = Annotated[
    int | None,
    typer.Option("--node", min=1, max=inputs.MOST_NODE, metavar="ID", help="Only this node."),
]
Nodes = Annotated[
    str | None, typer.Option("--nodes", metavar="IDS", help="Only these, as 1,2,3; else all that can.")
]
Cap = Annotated[
    str | None,
    typer.Option("--max-cost", "--cap", metavar="AMOUNT", help="Most the whole may cost, over all runs."),
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Jobs at the same time.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what it would cost.")]
Timeout = Annotated[
    int, typer.Option("--timeout", min=1, metavar="SECONDS", help="Free if not done by then.")
]

SEAL_HELP: Final = "Let only the node read input and output; the gateway relays them closed."
Seal = Annotated[bool, typer.Option("--seal", envvar="WATT_SEAL", help=SEAL_HELP)]


def doc(summary: str, *examples: str, more: Sequence[str] = ()) -> str:
    """Help of a command: what it does, examples, then the rest."""
    shown = "\n".join(f"  {example}" for example in examples)
    rest = "".join(f"\n\n{line}" for line in more)
    return f"{summary}\n\n\b\nExamples:\n{shown}{rest}"
