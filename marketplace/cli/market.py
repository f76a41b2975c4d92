"""`watt up`, `version`, `config show`: the local market and this installation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marketplace.cli import config as configs
from marketplace.cli import screen
from marketplace.cli.options import DataDir, Gateway, Json, Rpc, WalletFile, doc


def register(app: typer.Typer) -> None:
    """Adds the commands of this page."""
    app.command("up", help=_UP)(up)
    app.command("version", help=_VERSION)(version)
    shown = typer.Typer(no_args_is_help=True, help="What this command is set to.")
    shown.command("show", help=_SHOW)(show)
    app.add_typer(shown, name="config")


_UP = doc(
    "Run a whole market on this machine; Ctrl-C stops all of it.",
    "watt up",
    "watt up --port 9000 --data-dir /tmp/market",
    'watt up --ephemeral --once "Say hello"',
)


def up(
    *,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65_535, help="Gateway's; else 8402.")
    ] = None,
    data_dir: DataDir = None,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Leave no data behind.")] = False,
    once: Annotated[str | None, typer.Option("--once", metavar="PROMPT", help="Ask this, then stop.")] = None,
    models_dir: Annotated[
        Path | None, typer.Option("--models-dir", metavar="DIR", help="Weights (WATT_MODELS_DIR).")
    ] = None,
    root: Annotated[
        Path | None, typer.Option("--root", metavar="DIR", help="Checkout with node_modules.")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option("--database-url", metavar="URL", help="Gateway's; else SQLite.")
    ] = None,
    broker_url: Annotated[
        str | None, typer.Option("--broker-url", metavar="URL", help="Nodes'; else bundled.")
    ] = None,
    wait: Annotated[int, typer.Option("--wait", metavar="SECONDS", help="Longest step.")] = 600,
    plain: Annotated[bool, typer.Option("--plain", help="Lines, no live screen.")] = False,
    json: Json = False,
) -> None:
    """Runs the local market until it is stopped."""
    from marketplace.cli.uprun import Wishes, run

    style = "json" if json else "plain" if plain or once else "auto"
    code = run(
        Wishes(
            data_dir=data_dir or configs.load().data_dir,
            models_dir=models_dir,
            port=port,
            root=root,
            style=style,
            start_seconds=wait,
            database_url=database_url,
            broker_url=broker_url,
            ephemeral=ephemeral,
            once=once,
        )
    )
    raise typer.Exit(code)


_VERSION = doc("Show the version of this installation.", "watt version", "watt version --json")


def version(json: Json = False) -> None:
    """Shows versions."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        ours = installed("wattline")
    except PackageNotFoundError:
        ours = "0 (not installed)"
    if json:
        screen.emit({"wattline": ours, "python": platform.python_version()})
        return
    screen.out(f"watt {ours} · python {platform.python_version()}")


_SHOW = doc("Show every setting and where it comes from.", "watt config show", "watt config show --json")


def show(
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    json: Json = False,
) -> None:
    """Shows settings; secrets only as present or not."""
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    rows = {
        name: ("set" if name in configs.SECRET and item.value else item.value, item.origin)
        for name, item in config.settings.items()
    }
    if json:
        listed = {name: {"value": value, "origin": origin} for name, (value, origin) in rows.items()}
        screen.emit({"data_dir": str(config.data_dir), "settings": listed})
        return
    screen.facts([("data_dir", str(config.data_dir))])
    screen.facts((name, f"{value or '-'}  ({origin})") for name, (value, origin) in rows.items())
