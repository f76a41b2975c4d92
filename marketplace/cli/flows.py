"""`watt flow`: a small graph of paid steps in a file, under one cap; checked before, and resumable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketplace.cli import bought, inputs, progress, screen, spending, wiring, work
from marketplace.cli import config as configs
from marketplace.cli.exits import Exit
from marketplace.cli.options import (
    Cap,
    Concurrency,
    DataDir,
    DryRun,
    Gateway,
    Json,
    Nodes,
    PassphraseFile,
    Rpc,
    Seal,
    WalletFile,
    Yes,
    doc,
)
from marketplace.protocol.errors import BadRequest, ErrorCode

if TYPE_CHECKING:
    from marketplace.client.flow_file import Flow
    from marketplace.client.flows import FlowJob, FlowPlan, FlowStatement, StepReport

File = Annotated[Path, typer.Argument(metavar="FILE", help="The flow, in TOML.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Outputs; else FILE.out.json.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this page."""
    flows = typer.Typer(no_args_is_help=True, help="Run small graphs of paid steps under one cap.")
    flows.command("check", help=_CHECK)(check)
    flows.command("show", help=_SHOW)(show)
    flows.command("run", help=_RUN)(run)
    app.add_typer(flows, name="flow")


_CHECK = doc(
    "Find what is wrong with a flow before anything is bought; needs no network.",
    "watt flow check examples/summarise.toml",
)


def check(file: File, json: Json = False) -> None:
    """Checks a flow."""
    from marketplace.client.flow_file import FlowErrors, read_flow

    try:
        flow = read_flow(file)
    except FlowErrors as found:
        if json:
            screen.emit({"ok": False, "errors": found.errors, "steps": []})
        else:
            for error in found.errors:
                screen.out(f"✗ {error}")
        raise typer.Exit(Exit.FAILED) from found
    if json:
        screen.emit({"ok": True, "errors": [], "steps": [step.id for step in flow.steps]})
        return
    screen.out(f"✓ {len(flow.steps)} steps: {', '.join(step.id for step in flow.steps)}")


_SHOW = doc(
    "Show the steps of a flow in their order, and what each waits for.",
    "watt flow show examples/summarise.toml",
    "watt flow show examples/summarise.toml --json",
    more=["What earlier runs bought is shown beside each step."],
)


def show(file: File, out: Out = None, json: Json = False) -> None:
    """Shows a flow."""
    from marketplace.client.flow_file import read_flow

    flow = read_flow(file)
    bought_before = _bought(_outputs(file, out))
    rows: list[dict[str, Any]] = [
        {
            "id": step.id,
            "task": step.recipe.task,
            "model": step.recipe.model,
            "needs": sorted(step.needs),
            "for_each": step.is_many,
            "bought": bought_before.get(step.id, 0),
        }
        for step in flow.steps
    ]
    if json:
        told = {"name": flow.name, "cap": flow.cap, "inputs": dict(flow.inputs), "steps": rows}
        screen.emit(told)
        return
    columns = ("STEP", "TASK", "MODEL", "AFTER", "FOR EACH", "BOUGHT")
    shown = [
        [
            row["id"],
            row["task"],
            row["model"],
            ", ".join(row["needs"]),
            "yes" if row["for_each"] else "",
            str(row["bought"]),
        ]
        for row in rows
    ]
    screen.table(columns, shown)


_RUN = doc(
    "Run a flow: steps side by side where the graph allows, under one cap.",
    "watt flow run examples/summarise.toml --input texts=@texts.txt --cap 0.10",
    "watt flow run examples/summarise.toml --input texts=@texts.txt --dry-run",
    "watt flow run examples/summarise.toml --input texts=@texts.txt --resume",
    more=(
        "Without --cap and without one in the file, the forecast is the cap.",
        "--resume goes on after a stop; a changed step is bought again, with those it changes, no other.",
    ),
)


def run(
    file: File,
    *,
    given: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=VALUE", help="An input; =@FILE reads one, a list by lines."),
    ] = None,
    cap: Cap = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier run.")] = False,
    out: Out = None,
    concurrency: Concurrency = 4,
    nodes: Nodes = None,
    retries: spending.Retries = 3,
    dry_run: DryRun = False,
    ask_above: spending.AskAbove = spending.ASK_ABOVE,
    yes: Yes = False,
    seal: Seal = False,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Runs a flow."""
    from marketplace.client import flows
    from marketplace.client.flow_file import read_flow
    from marketplace.client.purchases import Terms

    flow = read_flow(file)
    values = flows.given_inputs(flow, _given(flow, given or []))
    job = flows.FlowJob(
        flow=flow, inputs=values, out=_outputs(file, out), node_ids=inputs.node_ids(nodes, "--nodes")
    )
    if not dry_run:
        _may_begin(job, resume=resume)
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    limit = spending.atoms(cap or flow.cap, config, "--cap")
    with wiring.open_client(config, passphrase_file, seal=seal) as client:
        plan = client.run(flows.forecast, job)
        if dry_run:
            _show_forecast(plan, config, json=json)
            return
        if not json:
            screen.note(_forecast_line(plan, config))
        spending.agreed(plan.most_atoms, limit, ask_above, config, yes=yes)
        enough = plan.spent_atoms + plan.most_atoms
        terms = Terms(cap_atoms=enough if limit is None else limit, concurrency=concurrency, retries=retries)
        with progress.gently_stopped("the jobs") as stop:
            tell = _teller(config)
            statement = client.run(flows.run, plan, terms, stop=stop, tell=tell)
    bought.keep_faults(statement.faults, config, None)
    _show_statement(statement, config, json=json)
    spending.complain(statement.halted_by, enough, config, as_json=json)
    raise typer.Exit(
        spending.exit_code(statement.halted_by, interrupted=statement.interrupted, failed=statement.failed)
    )


def _teller(config: configs.Config) -> Any:
    money = config.currency

    def tell(job: str, spent_atoms: int) -> None:
        screen.note(f"{job} done · {money.show(spent_atoms)}")

    return tell


def _given(flow: Flow, texts: list[str]) -> dict[str, Any]:
    """Inputs of the command line; a list takes its name as often as it comes, or a file by its lines."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{text!r} is no NAME=VALUE", param_hint="--input")
        is_list = isinstance(flow.inputs.get(name), list)
        read = work.read(value[1:]) if value.startswith("@") else value
        if is_list:
            lines = read.splitlines() if value.startswith("@") else [read]
            found.setdefault(name, []).extend(line for line in lines if line.strip())
        else:
            found[name] = read
    return found


def _outputs(file: Path, out: Path | None) -> Path:
    return out or file.with_name(f"{file.stem}.out.json")


def _bought(out: Path) -> dict[str, int]:
    """Answers in the record of earlier runs, by step."""
    from marketplace.client.statement import beside
    from marketplace.client.workbook import Workbook

    state = beside(out, "state.db")
    if not state.exists():
        return {}
    with Workbook(state) as book:
        steps = [name.unit.partition("[")[0] for name in book.done()]
    return {step: steps.count(step) for step in steps}


def _may_begin(job: FlowJob, *, resume: bool) -> None:
    """A run that is neither wanted to go on nor new would mix its bill with another's."""
    if job.state.exists() and not resume:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"{job.state} is the record of an earlier run.",
            hint="--resume goes on with it, and pays for nothing again; remove it to begin anew.",
        )


def _forecast_line(plan: FlowPlan, config: configs.Config) -> str:
    money, jobs = config.currency, sum(each.jobs - each.done for each in plan.steps)
    parts = [f"{len(plan.steps)} steps", f"about {jobs} jobs", f"up to about {money.show(plan.most_atoms)}"]
    parts += [f"{money.bare(plan.spent_atoms)} spent before"] if plan.spent_atoms else []
    return " · ".join(parts)


def _show_forecast(plan: FlowPlan, config: configs.Config, *, json: bool) -> None:
    money = config.currency
    rows: list[dict[str, Any]] = [
        {
            "id": each.step.id,
            "jobs": each.jobs,
            "done": each.done,
            "most": money.bare(each.most_atoms),
            "most_atoms": str(each.most_atoms),
            "nodes": list(each.sellers.nodes) if each.sellers else [],
            "why_not": each.why_not,
        }
        for each in plan.steps
    ]
    if json:
        totals = {"most": money.bare(plan.most_atoms), "most_atoms": str(plan.most_atoms)}
        totals |= {"spent_atoms": str(plan.spent_atoms), "currency": money.symbol}
        screen.emit({"forecast": {"name": plan.job.flow.name, "steps": rows, **totals}})
        return
    columns = ("STEP", "JOBS", "DONE", f"UP TO ABOUT {money.symbol}", "NODES")
    shown = [
        [row["id"], str(row["jobs"]), str(row["done"]), row["most"], ", ".join(map(str, row["nodes"]))]
        for row in rows
    ]
    screen.table(columns, shown)
    screen.note(_forecast_line(plan, config) + " · nothing charged")


def _report(report: StepReport, config: configs.Config) -> dict[str, Any]:
    return {
        "id": report.step.id,
        "task": report.step.recipe.task,
        "model": report.step.recipe.model,
        "state": report.state,
        "jobs": report.jobs,
        "done": report.done,
        "paid": config.currency.bare(report.tally.paid_atoms),
        "paid_atoms": str(report.tally.paid_atoms),
        "problems": report.problems,
        "why_not": report.why_not,
    }


def _show_statement(statement: FlowStatement, config: configs.Config, *, json: bool) -> None:
    steps = [_report(report, config) for report in statement.steps]
    receipts = str(statement.receipts) if statement.tally.jobs else None
    if json:
        screen.emit(
            {
                "steps": steps,
                **spending.paid(statement.tally, config),
                "uncertain_atoms": str(statement.uncertain_atoms),
                "out": str(statement.out),
                "receipts": receipts,
                "ended": spending.ending(statement.halted_by, interrupted=statement.interrupted),
                "problem": spending.problem(statement.halted_by, config),
            }
        )
        return
    columns = ("STEP", "STATE", "JOBS", f"PAID {config.currency.symbol}")
    screen.table(
        columns,
        [[row["id"], row["state"], f"{row['done']}/{row['jobs']}", row["paid"]] for row in steps],
    )
    screen.facts(spending.lines(statement.tally, statement.uncertain_atoms, config))
    screen.facts([("outputs", str(statement.out)), *([("receipts", receipts)] if receipts else [])])
    for row in steps:
        if row["why_not"]:
            screen.note(f"{row['id']} skipped, nothing paid: {row['why_not']}")
    for problem in (problem for row in steps for problem in row["problems"]):
        screen.failed(f"{problem['job']}: {problem['message']}", problem["code"], "Mend it, then --resume.")
