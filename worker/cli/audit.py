"""`watt audit`: compute an answer again, open a trace, measure what is honest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from worker.cli.common import AsJson, DataDir, explained, fail

if TYPE_CHECKING:
    from marketplace.protocol.bundle import Bundle
    from worker.audit.desk import Report
    from worker.models import ModelDir
    from worker.proofs.verdict import Verdict

app = typer.Typer(no_args_is_help=True, help="Check that a node did the work it signed for.")

_TIERS: Final = ("auto", "exact", "tolerance")

Threads = Annotated[int, typer.Option("--threads", min=1, help="Torch threads.")]
Model = Annotated[str, typer.Option("--model", help="Catalogue name, folder with safetensors, or hub id.")]
Files = Annotated[
    Path | None,
    typer.Option("--models-dir", help="Model files. [WATT_NODE_MODELS_DIR]", show_default=False),
]


@app.command()
def replay(
    receipts: Annotated[list[Path], typer.Argument(help="Receipt bundles of one node, as files.")],
    model: Model,
    trace: Annotated[
        list[Path] | None,
        typer.Option("--trace", help="Blocks the node opened, from `watt audit open`.", show_default=False),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration", help="Limits to judge by; those shipped by default.", show_default=False
        ),
    ] = None,
    tier: Annotated[str, typer.Option("--tier", help="auto, exact or tolerance.")] = "auto",
    models_dir: Files = None,
    threads: Annotated[
        int, typer.Option("--threads", min=0, help="Torch threads; 0: as many as the node says it used.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Compute answers again and say whether the node did what it signed; 0 only when accepted.

    Examples: watt audit replay receipt.json --model smollm2-135m-instruct
    """
    from worker.audit import desk
    from worker.inference.engine import EngineSettings
    from worker.inference.replayer import ModelReplayer
    from worker.proofs.verdict import Outcome, Tier

    if tier not in _TIERS:
        fail(f"--tier cannot be {tier}", f"Give one of {', '.join(_TIERS)}.")
    with explained():
        opened = dict(desk.read_trace(_bytes(file)) for file in trace or [])
        bundles = [_bundle(file) for file in receipts]
        claims = [desk.claim_of(bundle, opened.get(bundle.receipt.order_hash, ())) for bundle in bundles]
        if len({bundle.node_id for bundle in bundles}) > 1:
            fail("the receipts are of several nodes", "Audit each node's receipts apart.")
        found = _model(model, models_dir)
        _check_model({claim.annex.model for claim in claims}, found)
        limits = desk.limits_of(_bytes(calibration)) if calibration else None
        replayer = ModelReplayer(found, desk.settings_for(claims[0], EngineSettings(threads=threads)))
        report = desk.report(claims, replayer, limits, tier=None if tier == "auto" else Tier(tier))
    _show(report, receipts, as_json=as_json)
    verdicts = [*report.jobs, *([report.pooled] if report.pooled else [])]
    if any(verdict.outcome is not Outcome.ACCEPTED for verdict in verdicts):
        raise typer.Exit(1)


@app.command("open")
def open_command(
    order_hash: Annotated[str, typer.Argument(help="Hash of an order this node answered, 0x-hex.")],
    block: Annotated[
        list[int] | None,
        typer.Option(
            "--block", min=0, help="Number of a block of 32 tokens; all by default.", show_default=False
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print blocks of a trace with their paths, for an auditor. They hold the answer's tokens.

    It is JSON in any case: in lines for people, or with --json in one.

    Examples: watt audit open 0x1f… --block 0 > trace.json
    """
    from marketplace.protocol.hexes import from_hex
    from worker.audit.desk import open_trace
    from worker.ledger import Ledger
    from worker.settings import NodeSettings

    with explained():
        try:
            order = from_hex(order_hash, 32)
        except ValueError:
            fail(f"{order_hash} is no order hash", "Give 0x and 64 hex digits, as the receipt has them.")
        ledger = Ledger(NodeSettings.read(data_dir=data_dir).ledger)
        typer.echo(json.dumps(open_trace(ledger, order, block or []), indent=None if as_json else 2))


@app.command()
def calibrate(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="File to write.")],
    jobs: Annotated[int, typer.Option("--jobs", min=6, help="Honest answers to measure.")] = 240,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=8, help="Longest answer.")] = 64,
    models_dir: Files = None,
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Measure what honest nodes show with a model on this machine, and write the limits.

    Examples: watt audit calibrate --model smollm2-135m-instruct --out limits.json
    """
    from worker.audit.calibrate import Plan
    from worker.audit.calibrate import calibrate as measure
    from worker.inference.engine import EngineSettings
    from worker.proofs.calibration import calibration_hash

    def say(text: str) -> None:
        typer.echo(text, err=True)

    with explained():
        found = _model(model, models_dir)
        _threads(threads)
        plan = Plan(jobs=jobs, max_tokens=max_tokens)
        data = measure(found, EngineSettings(threads=threads), plan, say).encode()
    try:
        out.write_bytes(data)
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}", "Give a file in a folder that exists.")
    found_hash = calibration_hash(data)
    told = {"file": str(out), "calibration": str(found_hash)}
    typer.echo(json.dumps(told) if as_json else f"{out}: {found_hash}")


def _threads(threads: int) -> None:
    from worker.inference.replayer import use_threads

    use_threads(threads)


def _model(name: str, models_dir: Path | None) -> ModelDir:
    from worker.models import find
    from worker.settings import NodeSettings

    home = models_dir or NodeSettings.read().models_home
    return find(name, home, lambda text: typer.echo(text, err=True))


def _check_model(named: set[str], model: ModelDir) -> None:
    from marketplace.protocol.hexes import to_hex

    other = named - {to_hex(model.model_id)}
    if other:
        fail(
            f"the receipt is for model {min(other)}, these files are {to_hex(model.model_id)}",
            "Give the model that the receipt names with --model.",
        )


def _bundle(file: Path) -> Bundle:
    from marketplace.protocol.bundle import Bundle

    try:
        return Bundle.from_json(json.loads(_bytes(file)))
    except ValueError:
        fail(
            f"{file} is not JSON",
            "Save a receipt with `watt receipt show ID --json`, or take one from the API.",
        )


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", "Give the path of an existing file.")


def _show(report: Report, files: list[Path], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
        return
    for file, verdict in zip(files, report.jobs, strict=True):
        _show_one(str(file), verdict)
    if report.pooled:
        _show_one(f"all {report.pooled.jobs} together", report.pooled)


def _show_one(name: str, verdict: Verdict) -> None:
    typer.echo(f"{name}: {verdict.outcome} ({verdict.tier} tier, {verdict.tokens} tokens)")
    for reason in verdict.reasons:
        typer.echo(f"  {reason.code}: {reason.detail}")
    shown: dict[str, Any] = {key: round(value, 5) for key, value in verdict.figures.items()}
    for key, value in shown.items():
        typer.echo(f"  {key.replace('_', ' ')}: {value}")
