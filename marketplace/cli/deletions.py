"""`watt delete` and `watt receipt deletion`: have a job's content deleted, and check the record of it."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from marketplace.cli import config as configs
from marketplace.cli import inputs, screen
from marketplace.cli.exits import Exit
from marketplace.cli.options import DataDir, Gateway, Json, PassphraseFile, WalletFile, Yes, doc
from marketplace.protocol.errors import BadRequest, ErrorCode


def register(app: typer.Typer) -> None:
    """Adds the command that deletes; the one that checks is among `watt receipt`."""
    app.command("delete", help=_DELETE)(delete)


_DELETE: Final = doc(
    "Delete a job's input and output at the gateway.",
    "watt delete job_abc… --save deletion.json",
    "watt delete job_abc… --yes --json",
    more=[
        "Hashes, amounts and the receipt stay. Keep a copy first (watt receipt get ID",
        "--save FILE) if you may dispute the job: without its content nobody can.",
    ],
)


def delete(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="As `watt jobs` lists it.")],
    *,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write the record here.")
    ] = None,
    yes: Yes = False,
    gateway: Gateway = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Deletes a job's content."""
    from marketplace.cli.asking import Caller

    path = f"/v1/jobs/{inputs.segment(job_id)}"
    inputs.be_sure("Delete its input and output? It can then no longer be disputed.", yes=yes)
    config = configs.load(data_dir, gateway_url=gateway, wallet=wallet)
    found = Caller(config=config, passphrase_file=passphrase_file).ask("DELETE", path)
    if save is not None:
        save.write_text(jsons.dumps(found, indent=2) + "\n")
    if json:
        screen.emit(found)
        return
    screen.done(f"{job_id}: input and output deleted")
    screen.note(str(found.get("note", "")))


VERIFY: Final = doc(
    "Check the signed record of a deletion; works without a network.",
    "watt receipt deletion deletion.json",
    "watt receipt deletion deletion.json --signer 0x71C7…",
    more=[
        "FILE is what `watt delete --save` or `watt job ID --json` wrote. --signer is the",
        "gateway's own key, gateway_signer of GET /v1/chain; without it the record only",
        "shows that whoever it names has signed it.",
    ],
)


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="With the record of a deletion.")],
    signer: Annotated[
        str | None, typer.Option("--signer", metavar="ADDRESS", help="Key of the gateway you trust.")
    ] = None,
    json: Json = False,
) -> None:
    """Checks a record; exits 1 when it does not hold."""
    from marketplace.protocol.deletion import SignedDeletion

    wanted = inputs.address(signer, "--signer") if signer else None
    found = SignedDeletion.from_json(_json(file))
    signed_by = found.signer()
    ok = signed_by is not None and signed_by == (wanted or found.claimed_signer)
    made = found.deletion
    if json:
        screen.emit(
            {
                "verified": ok,
                "job_id": made.job_id,
                "key": made.key,
                "reason": made.reason,
                "deleted_at_ms": made.deleted_at_ms,
                "signer": signed_by,
                "receipt_ids": list(made.receipt_ids),
                "order_hashes": list(made.order_hashes),
            }
        )
    else:
        mark = "✓" if ok else "✗"
        screen.out(f"{mark} signed by {signed_by or 'nobody'}")
        screen.facts(
            [
                ("job", made.job_id),
                ("reason", made.reason),
                ("deleted", screen.when(made.deleted_at_ms // 1000)),
                ("receipts", ", ".join(made.receipt_ids)),
            ]
        )
    if not ok:
        raise typer.Exit(Exit.FAILED)


def _json(file: Path) -> Any:
    try:
        return jsons.loads(inputs.bytes_of(file))
    except ValueError as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, f"{file} is not JSON.", hint="watt delete ID --save FILE"
        ) from error
