"""`watt jobs`, `job`, `cancel`, `receipt get`: what was done, and where its proof is."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import Annotated, Any

import typer

from marketplace.cli import config as configs
from marketplace.cli import deletions, proofs, screen, wiring
from marketplace.cli.inputs import segment
from marketplace.cli.options import DataDir, Gateway, Json, PassphraseFile, Rpc, WalletFile, doc


def register(app: typer.Typer) -> None:
    """Adds the commands of this page."""
    app.command("jobs", help=_JOBS)(jobs)
    app.command("job", help=_JOB)(job)
    app.command("cancel", help=_CANCEL)(cancel)
    receipts = typer.Typer(no_args_is_help=True, help="Fetch receipts and verify them offline.")
    receipts.command("get", help=_GET)(get)
    proofs.register(receipts)
    receipts.command("deletion", help=deletions.VERIFY)(deletions.verify)
    app.add_typer(receipts, name="receipt")


_JOBS = doc("List this key's jobs, newest first.", "watt jobs", "watt jobs --limit 100 --json")


def jobs(
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="At most this many.")] = 20,
    after: Annotated[str | None, typer.Option("--after", metavar="JOB", help="Older than this one.")] = None,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Lists jobs."""
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    with wiring.open_client(config, passphrase_file) as client:
        rows = client.jobs(limit=limit, after=after)
    if json:
        screen.emit({"jobs": rows})
        return
    names = ("job_id", "phase", "model", "attempts", "end_reason")
    columns = ("JOB", "PHASE", "MODEL", "TRIES", "END")
    screen.table(columns, [[str(row.get(name) or "") for name in names] for row in rows])


_JOB = doc(
    "Show one job: where it stands and what happened.", "watt job job_abc…", "watt job job_abc… --json"
)


def job(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="As `watt jobs` lists it.")],
    gateway: Gateway = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Shows a job."""
    from marketplace.cli.asking import ask

    config = configs.load(data_dir, gateway_url=gateway)
    found = ask(config, "GET", f"/v1/jobs/{segment(job_id)}")
    if json:
        screen.emit(found)
        return
    if found.get("sentence"):
        screen.out(str(found["sentence"]))
    names = ("job_id", "phase", "end_reason", "model", "node_id", "attempts", "receipt_id", "settled_tx")
    shown = [(name, str(found[name])) for name in (*names, "trace_id") if found.get(name) is not None]
    if found.get("cost_atoms") is not None:
        shown.append(("cost", config.currency.show(found["cost_atoms"])))
    screen.facts(shown)
    began = int(found.get("created_at_ms") or 0)
    for line in found.get("timeline") or []:
        screen.out(f"  {_moment(line, began)}")


_CANCEL = doc(
    "End a running job with what it has delivered; only that is paid.",
    "watt cancel job_abc…",
    "watt cancel job_abc… --json",
)


def cancel(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="As `watt jobs` lists it.")],
    gateway: Gateway = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Cancels a job; its node stops at the next step."""
    from marketplace.cli.asking import ask

    found = ask(configs.load(data_dir, gateway_url=gateway), "POST", f"/v1/jobs/{segment(job_id)}/cancel")
    if json:
        screen.emit(found)
        return
    # A job that runs ends a moment later, with its receipt.
    asked = "asked its node to stop" if found.get("ended_at_ms") is None else str(found.get("sentence"))
    screen.done(f"{found['job_id']}: {asked}")


def _moment(line: dict[str, Any], began_ms: int) -> str:
    """One step of a job: how long after the start, what, and the rest as it comes."""
    after = f"+{max(0, int(line['at_ms']) - began_ms)} ms" if line.get("at_ms") else ""
    rest = [f"{k}={v}" for k, v in line.items() if k not in ("event", "at_ms") and v is not None]
    return "  ".join([after.rjust(10), str(line.get("event", "")).ljust(12), *rest])


_GET = doc(
    "Fetch a receipt with everything that verifies it offline.",
    "watt receipt get rcpt_7q2m… --save rcpt.json",
    "watt receipt get rcpt_7q2m… | jq .settlement",
    "watt receipt get rcpt_7q2m… --open --save rcpt.json",
)


def get(
    receipt_id: Annotated[str, typer.Argument(metavar="ID", help="As `watt job` shows it.")],
    *,
    save: Annotated[Path | None, typer.Option("--save", metavar="FILE", help="Write it here.")] = None,
    opened: Annotated[bool, typer.Option("--open", help="Open what your own key sealed.")] = False,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Fetches a receipt bundle; it is JSON with or without --json."""
    from marketplace.cli.asking import ask

    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    if opened:
        with wiring.open_client(config, passphrase_file) as client:
            found = client.receipt(segment(receipt_id))
    else:
        found = ask(config, "GET", f"/v1/receipts/{segment(receipt_id)}")
    if save is not None:
        save.write_text(jsons.dumps(found, indent=2) + "\n")
    if json:
        screen.emit(found)
    elif save is None:
        screen.out(jsons.dumps(found, indent=2))
    else:
        screen.done(f"{save}")
