"""`watt models …`: what a node has of models, and which version of each it serves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from worker.cli.common import AsJson, DataDir, Timeout, explained, fail, read_settings, wait

if TYPE_CHECKING:
    from worker.ledger import Ledger
    from worker.models.rules import Serving
    from worker.models.shelf import Shelf
    from worker.settings import NodeSettings

app = typer.Typer(no_args_is_help=True, help="Look after a node's models.")

_NAME: Final = typer.Argument(metavar="NAME", help="A model on the shelf.")
Name = Annotated[str, _NAME]
For = Annotated[
    str | None,
    typer.Option("--for", metavar="NAME", help="The model served; may be left out where it is the only one."),
]


@app.command()
def add(
    source: Annotated[
        str,
        typer.Argument(metavar="DIR|HF-ID|FILE.gguf", help="Folder, hub id, .gguf file or catalogue name."),
    ],
    name: Annotated[str | None, typer.Option("--name", help="What to call it; else as its file.")] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="SPDX name; else as its README says.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put a model on the node's shelf: fetched, converted, verified, and given its id.

    Safetensors only: nothing that runs code when it is read. A .gguf file is converted in a process without
    network, and the id is of what came of it.

    Examples: watt models add ./my-model · watt models add owner/name · watt models add model.gguf --name tiny
    """
    with explained():
        shelf = _shelf(read_settings(data_dir=data_dir))
        made = shelf.add(source, name=name, licence=licence)
        _print(_shown(shelf, made.path.name), as_json=as_json)


@app.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A model on the shelf, or any folder.")],
    expected: Annotated[str | None, typer.Option("--id", metavar="0x…", help="The id it must have.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Hash a model's files again and compare them with what its id stands for.

    Examples: watt models verify tiny · watt models verify ./my-model --id 0x12…
    """
    from marketplace.protocol.hexes import to_hex

    with explained():
        model = _shelf(read_settings(data_dir=data_dir)).find(name)
        if expected is not None and to_hex(model.model_id) != expected.lower():
            fail(
                f"{name} is {to_hex(model.model_id)}, not {expected}.", "Add the model again from its source."
            )
        found = {"name": name, "model_id": to_hex(model.model_id), "files": len(model.manifest.files)}
        _print(found | {"verified": True}, as_json=as_json)


@app.command()
def publish(
    name: Name,
    alias: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME@VERSION", help="Release it under this alias, for good."),
    ] = None,
    channel: Annotated[
        str | None, typer.Option("--channel", help="Point this channel of the name to it, as in latest.")
    ] = None,
    uri: Annotated[str, typer.Option("--uri", help="Where buyers find the files.")] = "",
    rpc_url: Annotated[
        str | None, typer.Option(help="The chain. [WATT_NODE_RPC_URL]", show_default=False)
    ] = None,
    deployment_path: Annotated[
        str | None, typer.Option("--deployment", help="[WATT_NODE_DEPLOYMENT_PATH]", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Publish a model's id on the chain, and name it. Signed by WATT_NODE_OWNER_KEY.

    The first to use a name owns it. What is done already is not sent again.

    Examples: watt models publish tiny --as tiny@1.0 --channel latest --uri https://models.example/tiny
    """
    from marketplace.protocol.hexes import to_hex
    from worker.node.publishing import Publication, publish_model

    with explained():
        settings = read_settings(data_dir=data_dir, rpc_url=rpc_url, deployment_path=deployment_path)
        model = _shelf(settings).find(name)
        base, _, version = (alias or name).partition("@")
        wanted = Publication(
            model_id=model.model_id, name=base, version=version or None, channel=channel, uri=uri
        )
        sent = publish_model(
            settings.rpc_url, settings.deployment_path, _ledger(settings), _owner(settings), wanted
        )
        _print({"name": name, "model_id": to_hex(model.model_id), "sent": sent}, as_json=as_json)


@app.command()
def load(
    name: Name,
    price: Annotated[
        str | None, typer.Option("--priced-as", metavar="NAME", help="Sell it at the price of this model.")
    ] = None,
    data_dir: DataDir = None,
    timeout: Timeout = 600,
    as_json: AsJson = False,
) -> None:
    """Serve a model of the shelf beside the others, under its own name.

    Examples: watt models load tiny --priced-as smollm2-135m-instruct
    """
    from worker.models import rules

    def change(items: Sequence[Serving]) -> Serving:
        known = [item for item in items if item.source == name]
        if known:
            return known[0]
        like = rules.choose(items, price)
        return rules.Serving(source=name, price=like.price, current=name)

    _change(data_dir, change, timeout=timeout, as_json=as_json, needs=name)


@app.command("roll-out")
def roll_out(
    name: Name,
    served: For = None,
    canary: Annotated[str, typer.Option("--canary", metavar="SHARE", help="Of askings by name.")] = "100%",
    data_dir: DataDir = None,
    timeout: Timeout = 600,
    as_json: AsJson = False,
) -> None:
    """Serve a new version: on trial for a share of the askings by name, or, at 100%, in place of the old one.

    Jobs that run go on where they are. Buyers who pin an id keep getting that id.

    Examples: watt models roll-out tiny-2 --for tiny --canary 5%
    """
    from marketplace.protocol.shares import WHOLE_BPS
    from worker.models import rules

    def change(items: Sequence[Serving]) -> Serving:
        share = rules.share_bps(canary)
        tried = rules.roll_out(rules.choose(items, served), name, share)
        return rules.promote(tried) if share == WHOLE_BPS else tried

    _change(data_dir, change, timeout=timeout, as_json=as_json, needs=name)


@app.command()
def promote(
    served: For = None, data_dir: DataDir = None, timeout: Timeout = 600, as_json: AsJson = False
) -> None:
    """Make the version on trial the one that serves; the old one leaves when its last job is done.

    Examples: watt models promote --for tiny
    """
    from worker.models import rules

    _change(
        data_dir, lambda items: rules.promote(rules.choose(items, served)), timeout=timeout, as_json=as_json
    )


@app.command("roll-back")
def roll_back(
    served: For = None, data_dir: DataDir = None, timeout: Timeout = 600, as_json: AsJson = False
) -> None:
    """End a trial, or go back to the version before. Jobs that run go on where they are.

    Examples: watt models roll-back --for tiny
    """
    from worker.models import rules

    _change(
        data_dir, lambda items: rules.roll_back(rules.choose(items, served)), timeout=timeout, as_json=as_json
    )


@app.command("list")
def list_models(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the shelf, and what is served, on trial, or could be gone back to.

    Examples: watt models list --json
    """
    from worker.models.serving import ServingBook

    with explained():
        settings = read_settings(data_dir=data_dir)
        shelf, ledger = _shelf(settings), _ledger(settings)
        found: dict[str, Any] = {
            "models": [_shown(shelf, item.name) for item in shelf.all()],
            "serving": [_told(item) for item in _servings(settings, ledger)],
            "problem": ServingBook(ledger).problem,
        }
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    rows: list[dict[str, Any]] = [*found["models"], *found["serving"]]
    for row in rows:
        _print(row, as_json=False)
        typer.echo()
    if found["problem"]:
        typer.echo(f"problem: {found['problem']}")
    if not found["models"]:
        typer.echo("the shelf is empty: watt models add DIR")


@app.command()
def remove(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Delete a model's files. What is served, or could be gone back to, stays.

    Examples: watt models remove tiny-1
    """
    from worker.models import rules

    with explained():
        settings = read_settings(data_dir=data_dir)
        users = rules.users_of(_servings(settings, _ledger(settings)), name)
        if users:
            fail(f"{name} is in use for {', '.join(users)}.", "Roll out another version first.")
        _shelf(settings).remove(name)
    _print({"name": name, "removed": True}, as_json=as_json)


def _change(
    data_dir: Any,
    change: Any,
    *,
    timeout: int,
    as_json: bool,
    needs: str | None = None,
) -> None:
    """Tells the node what to serve, and waits until it does."""
    from worker.models import rules
    from worker.models.serving import ServingBook

    with explained():
        settings = read_settings(data_dir=data_dir)
        ledger = _ledger(settings)
        items = _servings(settings, ledger)
        changed = change(items)
        if needs is not None:
            _check_fits(_shelf(settings), needs, changed)
        book = ServingBook(ledger)
        book.tell(rules.put(items, changed))
        running = _is_running(settings)
        if running and not wait(lambda: bool(book.problem) or _serves(settings, ledger, changed), timeout):
            fail(f"the node does not serve it after {timeout} s", "See its log, and watt models list.")
        if book.problem:
            fail(book.problem, "What served before goes on serving; watt models roll-back takes this back.")
    _print(_told(changed) | {"running": running}, as_json=as_json)


def _check_fits(shelf: Shelf, name: str, changed: Serving) -> None:
    """A version does what the one before does; what is not on the shelf is no version of anything."""
    model = shelf.find(name)
    if changed.previous or changed.canary:
        before = shelf.find(changed.current if changed.canary else str(changed.previous))
        if before.task is not model.task:
            fail(
                f"{name} does {model.task}, {changed.source} does {before.task}.",
                "Load it beside: watt models load.",
            )
        if before.model_id == model.model_id:
            fail(f"{name} is the very model that serves.", "Roll out another version.")


def _serves(settings: NodeSettings, ledger: Ledger, wanted: Serving) -> bool:
    from worker.node.facts import Notes

    shelf = _shelf(settings, quiet=True)
    ids = {_id_of(shelf, name) for name in wanted.wanted}
    offered = {model.model_id for model in Notes(ledger).served() if model.offered}
    return None in ids or ids <= offered


def _id_of(shelf: Shelf, name: str) -> bytes | None:
    """By its manifest; None for a model that is not on the shelf, such as a folder elsewhere."""
    from worker.models.errors import ModelError

    try:
        return shelf.stored(name).manifest.model_id
    except ModelError:
        return None


def _servings(settings: NodeSettings, ledger: Ledger) -> tuple[Serving, ...]:
    from worker.models.rules import servings
    from worker.models.serving import ServingBook

    return servings([price.model for price in settings.models], ServingBook(ledger).stored())


def _shelf(settings: NodeSettings, *, quiet: bool = False) -> Shelf:
    from worker.models.shelf import Shelf

    def say(text: str) -> None:
        if not quiet:
            typer.echo(text, err=True)

    return Shelf(settings.models_home, say)


def _ledger(settings: NodeSettings) -> Ledger:
    from worker.ledger import Ledger

    return Ledger(settings.ledger)


def _owner(settings: NodeSettings) -> Any:
    from marketplace.protocol.signing import Signer

    if settings.owner_key is None:
        fail(
            "nobody signs: WATT_NODE_OWNER_KEY is not set.",
            "Set it to the provider's key, as for watt node start.",
        )
    return Signer(settings.owner_key.get_secret_value())


def _is_running(settings: NodeSettings) -> bool:
    from marketplace.protocol.errors import BadRequest
    from worker.node.facts import read_running

    try:
        read_running(settings.data_dir / "run" / "daemon.json")
    except BadRequest:
        return False
    return True


def _shown(shelf: Shelf, name: str) -> dict[str, Any]:
    from marketplace.protocol.hexes import to_hex

    item = shelf.stored(name)
    return {
        "name": name,
        "model_id": to_hex(item.manifest.model_id),
        "architecture": item.manifest.architecture,
        "dtype": item.manifest.dtype,
        "licence": item.manifest.licence,
        "size_bytes": item.size_bytes,
        "path": str(item.path),
    }


def _told(item: Serving) -> dict[str, Any]:
    return {
        "serves": item.source,
        "version": item.current,
        "previous": item.previous,
        "canary": item.canary,
        "canary_bps": item.canary_bps,
    }


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        typer.echo(f"{name.replace('_', ' ')}: {'-' if shown in (None, '') else shown}")
