"""`watt run`, `embed`, `quote`, `nodes`: buying inference and looking around first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketplace.cli import bought, screen, wiring
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
from marketplace.protocol.errors import BadRequest, ErrorCode

if TYPE_CHECKING:
    from marketplace.client.results import ChatResult
    from marketplace.client.sync import Wattline

Save = Annotated[Path | None, typer.Option("--save", metavar="FILE", help="Write the receipt bundle here.")]
Attached = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="Text added below the prompt.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this page."""
    app.command("run", help=_RUN)(run)
    app.command("embed", help=_EMBED)(embed)
    app.command("quote", help=_QUOTE)(quote)
    app.command("nodes", help=_NODES)(nodes)


_RUN = doc(
    "Ask a model; the answer streams to stdout, verified and paid.",
    'watt run "Say hello"',
    'watt run "Summarise this" --file notes.txt --max-cost 0.0003',
    'watt run "Say hello" --json | jq .text',
    'watt run "Say hello" --logprobs 3',
    'watt run "What only the node may read" --seal',
    "cat notes.txt | watt run -",
)


def run(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads stdin.")],
    *,
    model: Model = None,
    file: Attached = None,
    system: Annotated[str | None, typer.Option("--system", help="System message.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = 256,
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=2, help="0 is greedy.")] = 0.0,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Else derived from the order.")] = None,
    logprobs: Annotated[
        int | None,
        typer.Option(
            "--logprobs", min=0, max=20, help="Show how likely each token was, and so many alternatives."
        ),
    ] = None,
    max_cost: MaxCost = None,
    node: Node = None,
    seal: Seal = False,
    timeout: Timeout = 120,
    save: Save = None,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Runs a chat job."""
    messages = _messages(prompt, file, system)
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    with bought.faults_kept(config, save), wiring.open_client(config, passphrase_file, seal=seal) as client:
        options: dict[str, Any] = {
            "model": model or first_model(client, "chat"),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "logprobs": logprobs,
            "max_cost": max_cost,
            "node": node,
            "timeout_seconds": timeout,
        }
        result = client.chat(messages, **options) if json else _stream(client, messages, options)
    bought.kept(result, config, save)
    if json:
        told = {} if logprobs is None else {"logprobs": result.logprobs}
        screen.emit({"text": result.text, "finish": result.finish, **told, **bought.paid(result)})
    else:
        if logprobs is not None:
            bought.show_logprobs(result.logprobs)
        bought.receipt_line(result, config)


_EMBED = doc(
    "Turn the lines of a file into vectors.",
    "watt embed sentences.txt --json > vectors.json",
    "echo hello | watt embed -",
)


def embed(
    file: Annotated[str, typer.Argument(help="One text a line; - reads stdin.")],
    *,
    model: Model = None,
    max_cost: MaxCost = None,
    node: Node = None,
    seal: Seal = False,
    timeout: Timeout = 120,
    save: Save = None,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Runs an embeddings job."""
    texts = [line for line in read(file).splitlines() if line.strip()]
    if not texts:
        raise typer.BadParameter("there is no text in it", param_hint="FILE")
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    with bought.faults_kept(config, save), wiring.open_client(config, passphrase_file, seal=seal) as client:
        result = client.embed(
            texts,
            model=model or first_model(client, "embed"),
            max_cost=max_cost,
            node=node,
            timeout_seconds=timeout,
        )
    bought.kept(result, config, save)
    if json:
        screen.emit({"vectors": result.vectors, **bought.paid(result)})
        return
    for text, vector in zip(texts, result.vectors, strict=True):
        head = " ".join(f"{number:+.4f}" for number in vector[:4])
        screen.out(f"{len(vector)}\t{head} …\t{text[:40]}")
    bought.receipt_line(result, config)


_QUOTE = doc(
    "Show what a job would cost at each node; charges nothing.",
    'watt quote "Summarise this" --max-tokens 128',
    'watt quote "Name a colour" --max-tokens 8 --n 4',
    'watt quote "hello" --task embed',
)


def quote(
    prompt: Annotated[str, typer.Argument(help="What would be asked; - reads stdin.")],
    *,
    model: Model = None,
    task: Annotated[str, typer.Option("--task", help="chat or embed.")] = "chat",
    file: Attached = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = 256,
    n: Annotated[int, typer.Option("--n", min=1, help="Answers to one prompt, priced together.")] = 1,
    max_cost: MaxCost = None,
    node: Node = None,
    gateway: Gateway = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Lists ranked quotes."""
    if task not in ("chat", "embed"):
        raise typer.BadParameter("must be chat or embed", param_hint="--task")
    config = configs.load(data_dir, gateway_url=gateway)
    messages = _messages(prompt, file, None)
    body: dict[str, Any] = {"model": model or asked_model(config, task), "task": task}
    body |= {"messages": messages, "max_tokens": max_tokens} if task == "chat" else {"input": read(prompt)}
    body |= {"n": n} if n > 1 else {}
    body |= {"max_cost": max_cost} if max_cost else {}
    body |= {"node": node} if node else {}
    found = _ask(config, "POST", "/v1/quotes", body)
    if json:
        screen.emit(found)
        return
    show_quotes(found, config)


_NODES = doc("List the nodes of the market.", "watt nodes", "watt nodes --json")


def nodes(gateway: Gateway = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Lists nodes."""
    config = configs.load(data_dir, gateway_url=gateway)
    rows = _ask(config, "GET", "/v1/nodes")["data"]
    if json:
        screen.emit({"nodes": rows})
        return
    money = config.currency
    columns = ("NODE", "STATE", "QUEUE", f"STAKE {money.symbol}", "MODELS", "SIGNER")
    shown = [
        [
            str(row["node_id"]),
            _state(row),
            str(row.get("queue_depth", 0)),
            money.bare(row.get("stake_atoms", "0")),
            ", ".join(model["name"] for model in row.get("models", [])),
            row["signer"],
        ]
        for row in rows
    ]
    screen.table(columns, shown)


def _state(row: dict[str, Any]) -> str:
    if not row.get("connected"):
        return "away"
    return "draining" if row.get("draining") else "online"


def _stream(client: Wattline, messages: list[dict[str, str]], options: dict[str, Any]) -> ChatResult:
    stream = client.chat(messages, stream=True, **options)
    for piece in stream:
        screen.out(piece, end="")
    screen.out()
    return stream.result


def _messages(prompt: str, file: Path | None, system: str | None) -> list[dict[str, str]]:
    text = read(prompt) if prompt == "-" else prompt
    if file is not None:
        text = f"{text}\n\n{read(str(file))}"
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": text}]


def read(name: str) -> str:
    """Text of a file, or of stdin for `-`. Raises `BadRequest`."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise BadRequest(
            ErrorCode.NOT_FOUND, f"{name} cannot be read ({error.strerror}).", hint="Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, f"{name} is not text in UTF-8.", hint="Hand in the text of it."
        ) from error


def first_model(client: Wattline, task: str) -> str:
    """The first model on offer for a task. Raises `BadRequest`."""
    return _named(client.models(), task)


def asked_model(config: configs.Config, task: str) -> str:
    """The same, without a key. Raises `BadRequest`."""
    return _named(_ask(config, "GET", "/v1/models")["data"], task)


def _named(rows: list[dict[str, Any]], task: str) -> str:
    for row in rows:
        if task in row.get("tasks", [row.get("task")]):
            return str(row["id"])
    raise BadRequest(ErrorCode.NO_NODE, f"No model for {task} is on offer.", hint="watt models")


def _ask(
    config: configs.Config, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    from marketplace.cli.asking import ask

    return ask(config, method, path, body)


def show_quotes(found: dict[str, Any], config: configs.Config) -> None:
    """Quotes as a table. Raises `BadRequest` when none of them can be taken."""
    money, rows = config.currency, found["quotes"]
    columns = ("NODE", f"MOST IT COSTS {money.symbol}", "QUEUE", "WHY")
    screen.table(
        columns,
        [
            [
                str(row["node_id"]),
                money.bare(row["ceiling_atoms"]),
                str(row.get("queue_depth", "")),
                row["reason"] if row["eligible"] else f"not now: {row['why_not']}",
            ]
            for row in rows
        ],
    )
    if rows:
        most_in, most_out = rows[0]["units_in_ceiling"], rows[0]["units_out_ceiling"]
        asked = f"{most_in} units in" if found["input_units"]["exact"] else f"up to {most_in} units in"
        screen.note(f"{asked}, up to {most_out} out · nothing charged")
    if not any(row["eligible"] for row in rows):
        raise BadRequest(ErrorCode.NO_NODE, "No node can take this now.")
