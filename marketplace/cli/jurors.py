"""`watt juror`: a staked provider's place in the court."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from marketplace.cli import config as configs
from marketplace.cli import inputs, screen, shown, wiring
from marketplace.cli.options import Amount, DataDir, Json, PassphraseFile, Rpc, WalletFile, doc

if TYPE_CHECKING:
    from marketplace.chain.disputes import Verdict

Case = Annotated[str, typer.Argument(metavar="CASE", help="As `watt dispute show` names it.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this page."""
    jurors = typer.Typer(no_args_is_help=True, help="Judge disputed jobs; for providers with stake.")
    jurors.command("show", help=_SHOW)(show)
    jurors.command("enrol", help=_ENROL)(enrol)
    jurors.command("resign", help=_RESIGN)(resign)
    jurors.command("commit", help=_COMMIT)(commit)
    jurors.command("reveal", help=_REVEAL)(reveal)
    jurors.command("withdraw", help=_WITHDRAW)(withdraw)
    app.add_typer(jurors, name="juror")


_SHOW = doc("Show your money in the court.", "watt juror show", "watt juror show --json")


def show(
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Shows balance, deposits behind seats, and whether draws can hit you."""
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    found, money = wiring.open_disputes(config, passphrase_file).juror(), config.currency
    if json:
        amounts = {"balance_atoms": str(found.balance_atoms), "locked_atoms": str(found.locked_atoms)}
        screen.emit({**amounts, "enrolled": found.is_enrolled, "currency": money.symbol})
        return
    locked = f"{money.bare(found.locked_atoms)} of it behind seats"
    enrolled = "yes" if found.is_enrolled else "no"
    screen.facts([("balance", f"{money.show(found.balance_atoms)}, {locked}"), ("enrolled", enrolled)])


_ENROL = doc(
    "Join the pool of jurors, or add to your deposit.",
    "watt juror enrol 20",
    "watt juror enrol 0  # joins again with what is there",
)


def enrol(
    amount: Amount,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Enrols."""
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    record = wiring.open_disputes(config, passphrase_file).enrol(amount)
    shown.moved("enrolled with", amount, record, config, json=json)


_RESIGN = doc("Leave the pool; seats stay until their cases end.", "watt juror resign")


def resign(
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Resigns."""
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    shown.sent("resigned", wiring.open_disputes(config, passphrase_file).resign(), {}, json=json)


_COMMIT = doc(
    "Hand a sealed verdict in: guilty, clear, or who withheld evidence.",
    "watt juror commit 0x5be1… guilty",
    "watt juror commit 0x5be1… node-withheld",
    more=[
        "guilty · clear · challenger-withheld · node-withheld. Nothing to keep: this wallet opens it again."
    ],
)


def commit(
    case: Case,
    verdict: Annotated[str, typer.Argument(metavar="VERDICT", help="What you found.")],
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Commits to a verdict."""
    case_id, found = inputs.digest(case, "case"), _verdict(verdict)
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    record = wiring.open_disputes(config, passphrase_file).commit(case_id, found)
    shown.sent("sealed the verdict", record, {"case": case}, json=json)


_REVEAL = doc(
    "Open the verdict you sealed, once all are in.",
    "watt juror reveal 0x5be1…",
    "watt juror reveal 0x5be1… --json",
)


def reveal(
    case: Case,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Reveals a verdict."""
    case_id = inputs.digest(case, "case")
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    verdict, record = wiring.open_disputes(config, passphrase_file).reveal(case_id)
    word = _word(verdict)
    shown.sent(f"opened the verdict: {word}", record, {"case": case, "verdict": word}, json=json)


_WITHDRAW = doc("Take money out of the court: bonds that came back, fees, awards.", "watt juror withdraw 3.5")


def withdraw(
    amount: Amount,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Withdraws what stands behind no seat."""
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    record = wiring.open_disputes(config, passphrase_file).withdraw(amount)
    shown.moved("withdrawn", amount, record, config, json=json)


def _word(verdict: Verdict) -> str:
    return verdict.name.lower().replace("_", "-")


def _verdict(text: str) -> Verdict:
    from marketplace.chain.disputes import Verdict

    known = {_word(verdict): verdict for verdict in Verdict if verdict is not Verdict.NONE}
    if text not in known:
        raise typer.BadParameter(f"must be one of {', '.join(known)}", param_hint="VERDICT")
    return known[text]
