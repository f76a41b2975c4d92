"""`watt mcp`: the market as tools of an agent's host."""

from __future__ import annotations

import json as jsons
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marketplace.cli import bought, screen, wiring
from marketplace.cli import config as configs
from marketplace.cli.options import DataDir, Gateway, Json, PassphraseFile, Rpc, WalletFile, doc
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.money import parse_atoms

if TYPE_CHECKING:
    from marketplace.client.aio import AsyncWattline

PER_JOB: Final = "0.02"


def register(app: typer.Typer) -> None:
    """Adds the command of this page."""
    app.command("mcp", help=_MCP)(mcp)


_MCP = doc(
    "Serve the market's tools to an agent's host, over MCP on stdin and stdout.",
    "watt mcp --print-config",
    "watt mcp --per-job 0.02 --budget 1 --models 'smollm2-*'",
    "watt mcp --wallet .watt/keys/agent.key",
    more=(
        'A host starts it; its config: {"mcpServers": {"wattline": {"command": "watt", "args": ["mcp"]}}}',
        "No key, no secret belongs there: keys are found as `watt run` finds them, and orders signed here.",
        "A job that may cost more than --per-job, or than what --budget leaves, is put to the user first.",
    ),
)


def mcp(
    *,
    per_job: Annotated[
        str, typer.Option("--per-job", metavar="AMOUNT", help="Above this the user is asked.")
    ] = PER_JOB,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="AMOUNT", help="Most to spend in all, unasked, until it ends."),
    ] = None,
    models: Annotated[
        str | None, typer.Option("--models", metavar="GLOB", help="Only models of such names.")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print what to paste into a host's config; serve nothing.")
    ] = False,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Serves MCP."""
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    for amount in filter(None, (per_job, budget)):
        parse_atoms(amount, config.currency.decimals)
    if print_config or json:
        given = {
            "--per-job": None if per_job == PER_JOB else per_job,
            "--budget": budget,
            "--models": models,
            "--gateway": gateway,
            "--rpc": rpc,
            "--data-dir": _folder(config, data_dir),
            "--wallet": wallet and wallet.absolute(),
            "--passphrase-file": passphrase_file and passphrase_file.absolute(),
        }
        screen.out(jsons.dumps(_host_config(given), indent=None if json else 2))
        return
    _serve(config, passphrase_file, {"per_job": per_job, "budget": budget, "models": models})


def _serve(config: configs.Config, passphrase_file: Path | None, words: dict[str, str | None]) -> None:
    try:
        from marketplace.mcp import stdio
    except ModuleNotFoundError as missing:
        raise BadRequest(
            ErrorCode.UNSUPPORTED,
            f"This needs a package that is not installed: {missing}.",
            hint="pip install 'wattline[mcp]'",
        ) from missing
    from marketplace.mcp.limits import Words

    def keep(bundles: Sequence[Any]) -> None:
        bought.keep_faults(bundles, config)

    async def opened() -> AsyncWattline:
        """Once a tool wants it: the host is answered before, also where no market is known."""
        from marketplace.client.desk import threaded

        return await wiring.open_async(await threaded(wiring.client_options, config, passphrase_file))

    if sys.stdin.isatty():
        screen.note("Speaking MCP on stdin and stdout, which is for a host to start: watt mcp --print-config")
    stdio.serve(opened, Words(**words), keep)


def _host_config(given: dict[str, Any]) -> dict[str, Any]:
    options = [word for name, value in given.items() if value for word in (name, str(value))]
    return {"mcpServers": {"wattline": {"command": "watt", "args": ["mcp", *options]}}}


def _folder(config: configs.Config, named: Path | None) -> Path | None:
    """The folder of a local market: a host starts us elsewhere, where ./.watt means another one."""
    found = named or (config.data_dir if (config.data_dir / configs.PROFILE_NAME).exists() else None)
    return found and found.absolute()
