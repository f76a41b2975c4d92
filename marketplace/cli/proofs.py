"""`watt receipt verify`: one receipt check by check, or a file of many."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketplace.cli import config as configs
from marketplace.cli import inputs, screen, wiring
from marketplace.cli.exits import Exit
from marketplace.cli.options import DataDir, Json, Rpc, doc
from marketplace.protocol.errors import BadRequest, ErrorCode

if TYPE_CHECKING:
    from marketplace.chain.client import ChainClient
    from marketplace.client.verify import Check


def register(receipts: typer.Typer) -> None:
    """Adds the command of this page."""
    receipts.command("verify", help=_VERIFY)(verify)


_VERIFY = doc(
    "Verify a receipt, check by check; works without a network.",
    "watt receipt verify rcpt.json",
    "watt receipt verify rcpt.json --chain",
    "watt receipt verify rcpt.json --rpc http://127.0.0.1:8545",
    "watt receipt verify out.receipts.jsonl",
    more=[
        "Whether the key was a registered node's and whether it was paid, only the chain can say.",
        "A .jsonl file has a bundle a line; each is checked, none may be there twice, and the sum is shown.",
    ],
)


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Bundle of `watt receipt get`, or many.")],
    chain: Annotated[bool, typer.Option("--chain", help="Ask the known chain too.")] = False,
    rpc: Rpc = None,
    deployment: Annotated[
        Path | None, typer.Option("--deployment", metavar="FILE", help="Contracts you trust.")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Verifies receipt bundles."""
    # Offline nothing of the market is read, so that a receipt outlives it.
    view = None
    if chain or rpc:
        view = wiring.open_chain(configs.load(data_dir, rpc_url=rpc, deployment=deployment))
    if file.suffix == ".jsonl":
        good = _verify_many(_bundles(file), view, json=json)
    else:
        good = _verify_one(_bundle(inputs.bytes_of(file), str(file)), view, json=json)
    if not good:
        raise typer.Exit(Exit.FAILED)


def _verify_one(data: Any, chain: ChainClient | None, *, json: bool) -> bool:
    from marketplace.client.verify import passed

    checks = _checks(data, chain)
    if json:
        screen.emit({"verified": passed(checks), "checks": _rows(checks)})
    else:
        _show(checks)
    return passed(checks)


def _verify_many(bundles: list[Any], chain: ChainClient | None, *, json: bool) -> bool:
    """Each receipt by itself; listed twice, it must not be summed twice."""
    from marketplace.client.bundle import Bundle
    from marketplace.client.verify import Check, failures, passed
    from marketplace.protocol.ids import receipt_id

    seen: dict[str, int] = {}
    found: list[dict[str, Any]] = []
    for line, data in enumerate(bundles, 1):
        name, atoms, checks = "", 0, _checks(data, chain)
        if passed(checks):
            bundle = Bundle.from_json(data)
            name, atoms = receipt_id(bundle.receipt.digest(bundle.domain)), bundle.receipt.amount_atoms
            if seen.setdefault(name, line) != line:
                checks.append(Check("once", ok=False, detail=f"the same receipt as in line {seen[name]}"))
        good = passed(checks)
        paid_atoms = str(atoms if good else 0)
        told = {"line": line, "receipt_id": name, "verified": good, "paid_atoms": paid_atoms}
        found.append({**told, "failed": _rows(failures(checks))})
    bad = [row for row in found if not row["verified"]]
    paid = sum(int(row["paid_atoms"]) for row in found)
    if json:
        totals = {"verified": not bad, "count": len(found), "failed": len(bad), "paid_atoms": str(paid)}
        screen.emit(totals | {"receipts": found})
        return not bad
    for row in bad:
        reasons = "; ".join(f"{check['name']}: {check['detail']}" for check in row["failed"])
        screen.out(f"✗ line {row['line']}  {reasons}")
    screen.out(f"{'✗' if bad else '✓'} {len(found) - len(bad)} of {len(found)} verified, {paid} atoms paid")
    return not bad


def _checks(data: Any, chain: ChainClient | None) -> list[Check]:
    from marketplace.client.verify import passed, verify_receipt

    checks = verify_receipt(data)
    return _with_chain(data, checks, chain) if chain is not None and passed(checks) else checks


def _with_chain(data: Any, checks: list[Check], chain: ChainClient) -> list[Check]:
    from marketplace.client.anchors import check_on_chain
    from marketplace.client.bundle import Bundle
    from marketplace.client.verify import CHAIN_CHECKS

    made = check_on_chain(Bundle.from_json(data), chain, chain.deployment.domain)
    return [check for check in checks if check.name not in CHAIN_CHECKS] + made


def _show(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    marks = {True: "✓", False: "✗", None: "·"}
    for check in checks:
        screen.out(f"{marks[check.ok]} {check.name.ljust(width)}  {check.detail}")


def _rows(checks: list[Check]) -> list[dict[str, Any]]:
    return [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks]


def _bundles(file: Path) -> list[Any]:
    lines = inputs.bytes_of(file).splitlines()
    found = [
        _bundle(line, f"line {number} of {file}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not found:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{file} has no receipt.", hint="watt map writes some.")
    return found


def _bundle(raw: bytes, name: str) -> Any:
    try:
        return jsons.loads(raw)
    except ValueError as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, f"{name} is not JSON.", hint="watt receipt get ID --save FILE"
        ) from error
