"""`watt task`: any task of the market by name; what it asks for is read off its payload."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer

from marketplace.cli import bought, screen, wiring, work
from marketplace.cli import config as configs
from marketplace.cli.options import (
    DataDir,
    Gateway,
    Json,
    MaxCost,
    Model,
    Node,
    PassphraseFile,
    Rpc,
    Seal,
    Timeout,
    WalletFile,
    doc,
)

Quoted = Annotated[bool, typer.Option("--quote", help="Only show what it would cost at each node.")]


def register(app: typer.Typer) -> None:
    """Adds the command of this page."""
    app.command("task", help=_TASK)(task)


_TASK = doc(
    "Run any task: classify, rerank, classify-image, ….",
    'watt task classify input="I loved it" labels=good labels=bad question=Mood',
    'watt task rerank query="how do refunds work" documents=@answers.txt',
    "watt task classify-image images=@cat.png top=3 --json",
    more=(
        "FIELD=VALUE fills a field of the request; a list takes it as often as it comes.",
        "FIELD=@FILE reads a file: a line an item; one that is no text goes whole, in base64.",
    ),
)


def task(
    name: Annotated[str, typer.Argument(metavar="TASK", help="Which task.")],
    fields: Annotated[list[str], typer.Argument(metavar="FIELD=VALUE", help="The request's fields.")],
    *,
    model: Model = None,
    quote: Quoted = False,
    max_cost: MaxCost = None,
    node: Node = None,
    seal: Seal = False,
    timeout: Timeout = 120,
    save: work.Save = None,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Runs a job of any task."""
    body = _body(name, fields)
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    if quote:
        _show_quotes(
            config, {"task": name, "body": body, "max_cost": max_cost, "node": node}, model, json=json
        )
        return
    with bought.faults_kept(config, save), wiring.open_client(config, passphrase_file, seal=seal) as client:
        result = client.ask(
            name,
            body,
            model=model or work.first_model(client, name),
            max_cost=max_cost,
            node=node,
            timeout_seconds=timeout,
        )
    bought.kept(result, config, save)
    if json:
        screen.emit({**result.answer, **bought.paid(result)})
        return
    for row in result.answer.get("results", [result.answer]):
        screen.out(" ".join(f"{key}={_plain(value)}" for key, value in row.items()))
    bought.receipt_line(result, config)


def _show_quotes(config: configs.Config, asked: dict[str, Any], model: str | None, *, json: bool) -> None:
    from marketplace.cli.asking import ask

    body = {key: value for key, value in asked.items() if value is not None}
    found = ask(
        config, "POST", "/v1/quotes", {**body, "model": model or work.asked_model(config, asked["task"])}
    )
    if json:
        screen.emit(found)
    else:
        work.show_quotes(found, config)


def _body(name: str, fields: list[str]) -> dict[str, Any]:
    """Fields as the payload has them; ranges are its own to check."""
    from marketplace.protocol.payloads import BLANK_MODEL, build_payload, task_type

    known = {
        field: info.annotation
        for field, info in task_type(name).model_fields.items()
        if field not in ("v", "task", "model")
    }
    body: dict[str, Any] = {}
    for given in fields:
        field, equals, value = given.partition("=")
        if not equals or field not in known:
            raise typer.BadParameter(f"give {', '.join(known)}, each as FIELD=VALUE", param_hint=field)
        if get_origin(known[field]) is tuple:
            body.setdefault(field, []).extend(_items(value))
        else:
            text = "\n".join(_items(value))
            body[field] = int(text) if known[field] is int and text.lstrip("-").isdigit() else text
    build_payload(name, BLANK_MODEL, body)
    return body


def _items(value: str) -> list[str]:
    if not value.startswith("@"):
        return [value]
    path = value[1:]
    if path != "-" and Path(path).is_file():
        data = Path(path).read_bytes()
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return [base64.b64encode(data).decode()]
    else:
        text = work.read(path)
    return [line for line in text.splitlines() if line.strip()]


def _plain(value: Any) -> str:
    """A value on one line: labels with their scores, else as it is."""
    if isinstance(value, list):
        return ",".join(":".join(str(part) for part in item.values()) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
