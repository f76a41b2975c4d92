"""`watt node`: run a node, look at it, watch it, drain it, settle, count earnings and claims."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.common import AsJson, DataDir, Timeout, explained, fail, read_settings, wait

if TYPE_CHECKING:
    from worker.settings import NodeSettings

app = typer.Typer(no_args_is_help=True, help="Run a provider's node and get paid for inference.")


@app.command()
def start(
    data_dir: DataDir = None,
    rpc_url: Annotated[
        str | None, typer.Option(help="The chain's JSON-RPC. [WATT_NODE_RPC_URL]", show_default=False)
    ] = None,
    deployment_path: Annotated[
        Path | None,
        typer.Option("--deployment", help="Deployment file. [WATT_NODE_DEPLOYMENT_PATH]", show_default=False),
    ] = None,
    gateway_url: Annotated[
        str | None,
        typer.Option(
            "--gateway", help="Gateway link, ws://…/v1/link. [WATT_NODE_GATEWAY_URL]", show_default=False
        ),
    ] = None,
) -> None:
    """Start the node and its workers; Ctrl-C settles and stops it.

    Keys are made in the data folder the first time. The provider's own key comes from WATT_NODE_OWNER_KEY,
    models and prices from WATT_NODE_MODELS, such as [{"model":"all-minilm-l6-v2","price_per_job_atoms":100}].

    Example: watt node start --deployment deployment.json --gateway ws://127.0.0.1:8402/v1/link
    """
    from worker.main import run_daemon

    with explained():
        settings = read_settings(
            data_dir=data_dir, rpc_url=rpc_url, deployment_path=deployment_path, gateway_url=gateway_url
        )
        raise typer.Exit(run_daemon(settings))


@app.command()
def status(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the node's id, models, orders and vouchers.

    Example: watt node status --json
    """
    with explained():
        found = _status(read_settings(data_dir=data_dir))
    _print(found, as_json=as_json)


@app.command()
def top(
    data_dir: DataDir = None,
    as_json: AsJson = False,
    every: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between looks.")] = 1.0,
) -> None:
    """Show the node live: queue, batch, tokens/s, first token, memory, temperature, energy; Ctrl-C ends it.

    Example: watt node top --json
    """
    from worker.cli.top import show

    with explained():
        show(read_settings(data_dir=data_dir), as_json=as_json, seconds=every)


@app.command()
def drain(data_dir: DataDir = None, timeout: Timeout = 900, as_json: AsJson = False) -> None:
    """Take no more orders, finish and settle what runs, then stop the node.

    Example: watt node drain --timeout 120
    """
    from worker.ledger import Ledger
    from worker.node.facts import Notes, read_running

    with explained():
        settings = read_settings(data_dir=data_dir)
        running = read_running(_run_file(settings))
        Notes(Ledger(settings.ledger)).ask_drain()
        if not wait(lambda: not _alive(running.pid), timeout):
            late = f"the node still runs after {timeout} s"
            fail(late, "Wait, or stop it with Ctrl-C in its terminal.", "not_ready")
    typer.echo(json.dumps({"drained": True, "pid": running.pid}) if as_json else "drained and stopped")


@app.command()
def settle(data_dir: DataDir = None, timeout: Timeout = 120, as_json: AsJson = False) -> None:
    """Settle every voucher that pays anything, now.

    Example: watt node settle
    """
    from worker.ledger import Ledger
    from worker.node.facts import read_running
    from worker.node.loops import SettleTrigger
    from worker.node.queue import TaskQueue

    with explained():
        settings = read_settings(data_dir=data_dir)
        running = read_running(_run_file(settings))
        ledger = Ledger(settings.ledger)
        queue = TaskQueue(running.broker_url, running.queue)
        trigger = SettleTrigger(ledger, queue, every_ms=settings.settle_every_ms)
        request = trigger.settle_all()
        if not wait(lambda: trigger.done(request), timeout):
            late = f"not answered within {timeout} s"
            fail(late, "See the node's log; the request stays queued.", "not_ready")
        found = _earnings(settings)
    _print(found, as_json=as_json)


@app.command()
def earnings(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show what was earned, is vouchered, is owed, is claimed, and was settled. Amounts are atoms.

    Example: watt node earnings --json
    """
    with explained():
        found = _earnings(read_settings(data_dir=data_dir))
    _print(found, as_json=as_json)


@app.command()
def claims(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show what was claimed without a voucher: pending, held, final at. Amounts are atoms.

    Example: watt node claims --json
    """
    with explained():
        found = _claims(read_settings(data_dir=data_dir))
    if as_json:
        typer.echo(json.dumps({"claims": found}, indent=2))
        return
    for claim in found:
        _print(claim | {"final_at": _time(claim["final_at"])}, as_json=False)
        typer.echo()
    if not found:
        typer.echo("no claims")


def _status(settings: NodeSettings) -> dict[str, Any]:
    from marketplace.protocol.hexes import to_hex
    from worker.ledger import Ledger
    from worker.node.facts import Notes

    ledger = Ledger(settings.ledger)
    notes = Notes(ledger)
    return {
        "node_id": notes.node_id,
        "running": _is_running(settings),
        "metrics_url": _metrics_url(settings),
        "draining": notes.draining,
        "models": [
            {"name": model.name, "task": model.task, "model_id": to_hex(model.model_id)}
            for model in notes.served()
        ],
        "orders": {state.value: number for state, number in ledger.orders.counts().items()},
        "unsettled_vouchers": len(ledger.vouchers.unsettled()),
        "data_dir": str(settings.data_dir),
    }


def _earnings(settings: NodeSettings) -> dict[str, Any]:
    from worker.ledger import Ledger

    ledger = Ledger(settings.ledger)
    vouchers, claims = ledger.vouchers.all(), ledger.claims.all()
    sessions = ledger.sessions.many({v.session_id for v in vouchers} | {c.session_id for c in claims})
    settled = sum(session.paid_atoms for session in sessions.values())
    totals = ledger.receipts.totals()
    return {
        "jobs": totals["receipts"],
        "billed_atoms": totals["receipts_atoms"],
        "waived_atoms": totals["waived_atoms"],
        "owed_without_voucher_atoms": totals["open_atoms"] - ledger.claims.covered_atoms(),
        "claimed_atoms": sum(claim.pending_atoms for claim in claims),
        "held_atoms": sum(claim.held_atoms for claim in claims),
        "vouchered_atoms": sum(voucher.amount_atoms for voucher in vouchers),
        "settled_atoms": settled,
        "given_up_sessions": sum(1 for voucher in vouchers if voucher.settled and voucher.skipped),
    }


def _claims(settings: NodeSettings) -> list[dict[str, Any]]:
    from marketplace.protocol.hexes import to_hex
    from worker.ledger import Ledger

    return [
        {
            "session_id": to_hex(claim.session_id),
            "stage": claim.stage.value,
            "through_seq": claim.through_seq,
            "claimed_atoms": claim.claimed_atoms,
            "pending_atoms": claim.pending_atoms,
            "held_atoms": claim.held_atoms,
            "paid_since_atoms": claim.paid_atoms,
            "final_at": claim.final_at,
        }
        for claim in Ledger(settings.ledger).claims.all()
    ]


def _time(unix_seconds: int) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat() if unix_seconds else "not on the chain yet"


def _run_file(settings: NodeSettings) -> Path:
    return settings.data_dir / "run" / "daemon.json"


def _metrics_url(settings: NodeSettings) -> str | None:
    from marketplace.protocol.errors import BadRequest
    from worker.node.facts import read_running

    try:
        port = read_running(_run_file(settings)).metrics_port
    except BadRequest:
        return None
    return f"http://127.0.0.1:{port}/metrics" if port else None


def _is_running(settings: NodeSettings) -> bool:
    from marketplace.protocol.errors import BadRequest
    from worker.node.facts import read_running

    try:
        read_running(_run_file(settings))
    except BadRequest:
        return False
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        if isinstance(value, list):
            shown = ", ".join(f"{item['name']} ({item['task']})" for item in value) or "none"
        typer.echo(f"{name.replace('_', ' ')}: {shown}")
