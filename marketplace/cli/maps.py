"""`watt map`: one paid job a row of a file, over several nodes; priced before, never bought twice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from marketplace.cli import bought, inputs, progress, screen, spending, wiring, work
from marketplace.cli import config as configs
from marketplace.cli.options import (
    Cap,
    Concurrency,
    DataDir,
    DryRun,
    Gateway,
    Json,
    Model,
    Nodes,
    PassphraseFile,
    Rpc,
    Seal,
    Timeout,
    WalletFile,
    Yes,
    doc,
)

if TYPE_CHECKING:
    from marketplace.client.map_plan import Plan
    from marketplace.client.mapping import Statement
    from marketplace.client.purchases import Terms
    from marketplace.client.sync import Wattline

Prompt = Annotated[
    str | None, typer.Option("--prompt", metavar="TEMPLATE", help="What to ask of a row; else {text}.")
]
System = Annotated[str | None, typer.Option("--system", metavar="TEMPLATE", help="System message.")]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="NAME=TEMPLATE", help="A field of the request; a list: repeat it."),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Results; else FILE.out.jsonl.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave rows out that cannot be asked.")]

# What a row gives where no field is named.
_USUAL: Final[dict[str, dict[str, Any]]] = {
    "chat": {"prompt": "{text}"},
    "embed": {"input": "{text}"},
    "classify": {"input": "{text}"},
    "rerank": {"query": "{query}", "documents": "{documents}"},
    "classify-image": {"images": "{image}"},
}


def register(app: typer.Typer) -> None:
    """Adds the command of this page."""
    app.command("map", help=_MAP)(map_file)


_MAP = doc(
    "Run one job for each row of a file, over several nodes, at a price known before.",
    "watt map reviews.jsonl --prompt 'Summarise: {text}' --max-cost 0.50",
    "watt map reviews.csv --task classify --field labels=good --field labels=bad --out moods.jsonl",
    "watt map texts.jsonl --task embed --dry-run",
    more=(
        "FILE has a JSON object a line, or ends in .csv (with a heading) or .txt (a text a line).",
        "{name} stands for a row's field. Results come in the order of the file, with row and line.",
        "The same command again goes on where it stopped; a row is never paid twice.",
    ),
)


def map_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The rows.")],
    *,
    model: Model = None,
    task: Annotated[str, typer.Option("--task", help="chat, embed, classify, ….")] = "chat",
    prompt: Prompt = None,
    system: System = None,
    field: Fields = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer of a chat.")] = 256,
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=2, help="0 is greedy.")] = 0.0,
    out: Out = None,
    max_cost: Cap = None,
    concurrency: Concurrency = 4,
    nodes: Nodes = None,
    retries: spending.Retries = 3,
    skip_bad: SkipBad = False,
    dry_run: DryRun = False,
    ask_above: spending.AskAbove = spending.ASK_ABOVE,
    yes: Yes = False,
    seal: Seal = False,
    timeout: Timeout = 120,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Maps a file."""
    from marketplace.client import map_plan, mapping
    from marketplace.client.purchases import Terms
    from marketplace.client.recipes import Recipe

    results = out or file.with_name(f"{file.stem}.out.jsonl")
    if results.resolve() == file.resolve():
        raise typer.BadParameter("would overwrite the rows", param_hint="--out")
    fields = _fields(task, prompt, system, field or [])
    if task == "chat":
        fields |= {"max_tokens": max_tokens, "temperature": temperature}
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    cap = spending.atoms(max_cost, config, "--max-cost")
    with wiring.open_client(config, passphrase_file, seal=seal) as client:
        named = model or map_plan.kept_model(results) or work.first_model(client, task)
        job = mapping.MapJob(
            source=file,
            out=results,
            recipe=Recipe(task=task, model=named, fields=fields, timeout_seconds=timeout),
            node_ids=inputs.node_ids(nodes, "--nodes"),
            skip_bad=skip_bad,
        )
        plan = client.run(mapping.forecast, job)
        if dry_run:
            _show_forecast(plan, config, json=json)
            return
        if not json:
            screen.note(_forecast_line(plan, config))
        spending.agreed(plan.most_atoms, cap, ask_above, config, yes=yes)
        terms = Terms(cap_atoms=cap, concurrency=concurrency, retries=retries)
        _end(_run(client, plan, terms, config), plan, config, json=json)


def _end(statement: Statement, plan: Plan, config: configs.Config, *, json: bool) -> NoReturn:
    bought.keep_faults(statement.faults, config, None)
    _show(statement, config, json=json)
    halted_by, enough = statement.halted_by, plan.spent_atoms + plan.most_atoms
    spending.complain(halted_by, enough, config, as_json=json)
    raise typer.Exit(
        spending.exit_code(halted_by, interrupted=statement.interrupted, failed=statement.failed)
    )


def _run(client: Wattline, plan: Plan, terms: Terms, config: configs.Config) -> Statement:
    from marketplace.client import mapping

    meter = progress.Meter("rows", len(plan.asked), len(plan.asked) - plan.left, config.currency)

    def tell(now: mapping.Progress) -> None:
        meter.tell(now.done, now.failed, now.spent_atoms)

    with progress.gently_stopped("the rows") as stop:
        try:
            return client.run(mapping.run, plan, terms, stop=stop, tell=tell)
        finally:
            meter.close()


def _fields(task: str, prompt: str | None, system: str | None, given: list[str]) -> dict[str, Any]:
    """Templates by field: those given, and the usual ones for what is left out."""
    fields: dict[str, Any] = {}
    for text in given:
        name, equals, template = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{text!r} is no NAME=TEMPLATE", param_hint="--field")
        fields[name] = template if name not in fields else [*_list(fields[name]), template]
    fields |= {} if prompt is None else {"prompt": prompt}
    fields |= {} if system is None else {"system": system}
    usual = {} if "messages" in fields else _USUAL.get(task, {})
    return {**usual, **fields}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _forecast(plan: Plan, config: configs.Config) -> dict[str, Any]:
    money = config.currency
    return {
        "rows": len(plan.asked) + len(plan.bad),
        "left": plan.left,
        "done": len(plan.asked) - plan.left,
        "bad_rows": [{"row": bad.number, "line": bad.line, "why": bad.why} for bad in plan.bad],
        "model": plan.sellers.model,
        "model_id": plan.sellers.model_id,
        "nodes": list(plan.sellers.nodes),
        "most": money.bare(plan.most_atoms),
        "most_atoms": str(plan.most_atoms),
        "least_atoms": str(plan.least_atoms),
        "spent_atoms": str(plan.spent_atoms),
        "currency": money.symbol,
    }


def _forecast_line(plan: Plan, config: configs.Config) -> str:
    money = config.currency
    parts = [f"{plan.left} rows", f"at most {money.show(plan.most_atoms)}"]
    if plan.least_atoms < plan.most_atoms:
        parts.append(f"{money.bare(plan.least_atoms)} at the cheapest node")
    parts.append(f"nodes {', '.join(map(str, plan.sellers.nodes))}" if plan.sellers.nodes else "nothing left")
    if plan.spent_atoms:
        parts.append(f"{money.bare(plan.spent_atoms)} spent before")
    return " · ".join(parts)


def _show_forecast(plan: Plan, config: configs.Config, *, json: bool) -> None:
    if json:
        screen.emit({"forecast": _forecast(plan, config)})
        return
    screen.out(_forecast_line(plan, config))
    for bad in plan.bad:
        screen.note(f"line {bad.line} is left out: {bad.why}")


def _show(statement: Statement, config: configs.Config, *, json: bool) -> None:
    found: dict[str, Any] = {
        "rows": statement.rows,
        "done": statement.done,
        "failed": statement.failed,
        "left": statement.left,
        **spending.paid(statement.tally, config),
        "uncertain_atoms": str(statement.uncertain_atoms),
        "out": str(statement.out),
        "receipts": str(statement.receipts) if statement.tally.jobs else None,
        "errors": str(statement.errors) if statement.errors else None,
        "ended": spending.ending(statement.halted_by, interrupted=statement.interrupted),
        "problem": spending.problem(statement.halted_by, config),
    }
    if json:
        screen.emit(found)
        return
    rows = f"{statement.done} of {statement.rows} done"
    rows += f", {statement.failed} failed" if statement.failed else ""
    rows += f", {statement.left} left" if statement.left else ""
    files = [("results", found["out"]), ("receipts", found["receipts"]), ("errors", found["errors"])]
    screen.facts(
        [
            ("rows", rows),
            *spending.lines(statement.tally, statement.uncertain_atoms, config),
            *((name, str(path)) for name, path in files if path),
        ]
    )
