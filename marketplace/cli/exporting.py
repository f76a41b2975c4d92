"""`watt export`: every receipt or payment of a key, as CSV or JSON."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marketplace.cli import config as configs
from marketplace.cli import inputs, screen
from marketplace.cli.options import DataDir, Gateway, Json, PassphraseFile, WalletFile, doc
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError

if TYPE_CHECKING:
    from marketplace.cli.asking import Caller


class Kind(StrEnum):
    """What can be exported."""

    RECEIPTS = "receipts"
    PAYMENTS = "payments"


class Format(StrEnum):
    """How it can be written."""

    CSV = "csv"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Adds the command of this page."""
    app.command("export", help=_EXPORT)(export)


_EXPORT = doc(
    "Export every receipt or payment of a key.",
    "watt export receipts --format csv --out receipts.csv",
    "watt export receipts --since 2026-11-01 | jq .totals",
    "watt export payments --since-block 1200",
    more=[
        "Receipts say what each job charged; payments what moved on the chain, into",
        "sessions, to nodes and back. Amounts are in atoms and in the token's units.",
        "Whose: WATT_API_KEY's if it is set, else those of the key `watt run` uses.",
    ],
)


def export(
    kind: Annotated[Kind, typer.Argument(help="receipts or payments.")],
    *,
    form: Annotated[Format | None, typer.Option("--format", help="csv or json; else as --out ends.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="Receipts from then on: 2026-11-01 (UTC).")
    ] = None,
    since_block: Annotated[
        int, typer.Option("--since-block", min=0, metavar="N", help="Payments from this block on.")
    ] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Else stdout.")] = None,
    gateway: Gateway = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Exports; what is written to stdout is the export itself."""
    from marketplace.cli.asking import Caller

    style = form or (Format.CSV if out and out.suffix == ".csv" else Format.JSON)
    if json and out is None and style is Format.CSV:
        raise typer.BadParameter("--json and --format csv on stdout exclude each other; give --out")
    if since is not None and kind is Kind.PAYMENTS:
        raise typer.BadParameter("payments carry blocks, not times; use --since-block")
    params = {"kind": kind.value, "format": style.value, "since_block": str(since_block)}
    if since is not None:
        params["since_ms"] = str(inputs.moment_ms(since, "--since"))
    config = configs.load(data_dir, gateway_url=gateway, wallet=wallet)
    caller = Caller(config=config, passphrase_file=passphrase_file)
    if out is None:
        caller.download("/v1/export", params, sys.stdout.buffer)
        sys.stdout.flush()
        return
    written = _save(caller, params, out)
    if json:
        screen.emit({"file": str(out), "kind": kind.value, "format": style.value, "bytes": written})
    else:
        screen.done(f"{out}: {written} bytes")


def _save(caller: Caller, params: dict[str, str], out: Path) -> int:
    """Writes beside the file first, so that a broken export never looks like a whole one."""
    part = out.with_name(out.name + ".part")
    try:
        with part.open("wb") as file:
            written = caller.download("/v1/export", params, file)
        part.replace(out)
    except OSError as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, f"{out} cannot be written ({error.strerror}).", hint="--out FILE"
        ) from error
    except WattError:
        part.unlink(missing_ok=True)
        raise
    return written
