"""`watt models`: what is on offer, and in front of the commands by which a node looks after its own."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from marketplace.cli import config as configs
from marketplace.cli import screen
from marketplace.cli.options import DataDir, Gateway, Json, doc

_HELP = doc(
    "List the models on offer and their cheapest prices; with a command, look after a node's models.",
    "watt models",
    "watt models --json",
    "watt models add ./my-model",
)


def app(group: type[TyperGroup]) -> typer.Typer:
    """The command, as a group that brings more commands."""
    made = typer.Typer(cls=group, invoke_without_command=True, no_args_is_help=False)
    made.callback(help=_HELP)(models)
    return made


def models(
    context: typer.Context, gateway: Gateway = None, data_dir: DataDir = None, json: Json = False
) -> None:
    """Lists models."""
    if context.invoked_subcommand is not None:
        return
    from marketplace.cli.asking import ask

    config = configs.load(data_dir, gateway_url=gateway)
    rows: list[dict[str, Any]] = ask(config, "GET", "/v1/models")["data"]
    if json:
        screen.emit({"models": rows})
        return
    columns = ("MODEL", "TASK", "CONTEXT", "OFFERS", "MODEL ID", "ALIAS", "PUBLISHER")
    names = ("id", "task", "context_tokens", "offers", "model_id")
    screen.table(columns, [[str(row.get(name, "")) for name in names] + _alias(row) for row in rows])


def _alias(row: dict[str, Any]) -> list[str]:
    found = row.get("aliases") or [{"alias": "", "publisher": ""}]
    more = f" +{len(found) - 1}" if len(found) > 1 else ""
    return [found[0]["alias"] + more, found[0]["publisher"]]
