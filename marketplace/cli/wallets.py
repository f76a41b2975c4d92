"""`watt wallet`: a buyer's money, in and out of its account."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marketplace.cli import config as configs
from marketplace.cli import inputs, screen, shown, wiring
from marketplace.cli.options import Amount, DataDir, Json, PassphraseFile, Rpc, WalletFile, doc

if TYPE_CHECKING:
    from marketplace.client.wallet import BuyerWallet, Sent


def register(app: typer.Typer) -> None:
    """Adds the commands of this page."""
    wallets = typer.Typer(no_args_is_help=True, help="Make a wallet, put money in, take money out.")
    wallets.command("new", help=_NEW)(new)
    wallets.command("show", help=_SHOW)(show)
    wallets.command("deposit", help=_DEPOSIT)(deposit)
    wallets.command("submit", help=_SUBMIT)(submit)
    wallets.command("withdraw", help=_WITHDRAW)(withdraw)
    app.add_typer(wallets, name="wallet")


_NEW = doc(
    "Make a wallet: an encrypted key file only you can read.",
    "watt wallet new",
    "watt wallet new --out agent.key --plain",
)


def new(
    target: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to keep it.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Not encrypted; for machines.")] = False,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Makes a wallet file; never replaces one."""
    import secrets

    from marketplace.client.keyfile import save_keystore, save_raw
    from marketplace.protocol.signing import Signer

    path, signer = target or configs.own_wallet(), Signer(secrets.token_bytes(32))
    if plain:
        save_raw(signer, path)
    else:
        save_keystore(signer, path, _new_passphrase(passphrase_file))
    if json:
        screen.emit({"address": signer.address, "path": str(path), "encrypted": not plain})
        return
    screen.facts([("address", signer.address), ("path", str(path))])
    screen.note("Back the file up: without it and its passphrase the money is gone.")


_SHOW = doc(
    "Show the wallet's address and money.",
    "watt wallet show",
    "watt wallet show --json",
    "watt wallet show --tx 0x5e1f…  # was it mined?",
)


def show(
    tx: Annotated[
        str | None, typer.Option("--tx", metavar="HASH", help="And what became of a transaction.")
    ] = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Shows balances from the chain."""
    wanted = None if tx is None else inputs.digest(tx, "transaction")
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    held = wiring.open_wallet(config, passphrase_file)
    balance, money = held.balance(), config.currency
    sent, block = (None, None) if wanted is None else held.became_of(wanted)
    if json:
        amounts = {"account_atoms": str(balance.account_atoms), "token_atoms": str(balance.token_atoms)}
        screen.emit(
            {
                "address": held.address,
                **amounts,
                "account": money.bare(balance.account_atoms),
                "token": money.bare(balance.token_atoms),
                "currency": money.symbol,
                "gas_wei": str(balance.gas_wei),
                **({"transaction": {"tx_hash": tx, "state": sent, "block": block}} if sent else {}),
            }
        )
        return
    rows = [
        ("address", held.address),
        ("account", f"{money.show(balance.account_atoms)} free to spend or withdraw"),
        ("in hand", f"{money.show(balance.token_atoms)} not deposited"),
        ("gas", f"{balance.gas_wei} wei"),
    ]
    if sent:
        rows.append(("sent", _fate(sent, block)))
    screen.facts(rows)


_DEPOSIT = doc(
    "Move tokens into your account, where sessions take them from.",
    "watt wallet deposit 5",
    "watt wallet deposit 5 --faucet",
    "watt wallet deposit 5 --permit",
    "watt wallet deposit 5 --gasless > deposit.json",
    more=["--gasless sends nothing: whoever runs `watt wallet submit` on its output pays the gas."],
)


def deposit(
    amount: Amount,
    *,
    faucet: Annotated[bool, typer.Option("--faucet", help="Mint it first; local chains only.")] = False,
    permit: Annotated[bool, typer.Option("--permit", help="One transaction instead of two.")] = False,
    gasless: Annotated[bool, typer.Option("--gasless", help="Print a signed deposit.")] = False,
    valid: Annotated[str, typer.Option("--valid", metavar="TIME", help="Of --gasless, as 1h.")] = "1h",
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Deposits by transactions, by a permit, or by an authorization for others to send."""
    if permit and gasless:
        raise typer.BadParameter("choose one of --permit and --gasless", param_hint="--gasless")
    valid_seconds = inputs.seconds(valid, "--valid")
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    held = wiring.open_wallet(config, passphrase_file)
    if faucet:
        held.faucet(amount)
    if gasless:
        _print_deposit(held, amount, valid_seconds)
        return
    from marketplace.client.gasless import deposit_with_permit

    record = deposit_with_permit(held, amount) if permit else held.deposit(amount)
    shown.moved("deposited", amount, record, config, json=json)


def _fate(sent: Sent, block: int | None) -> str:
    if sent == "waiting":
        return "not mined yet; look again later"
    if sent == "unknown":
        return "not known to this RPC; its node may have dropped it"
    return f"{sent.value} in block {block}"


def _print_deposit(held: BuyerWallet, amount: str, valid_seconds: int) -> None:
    import secrets

    from marketplace.client.gasless import sign_deposit
    from marketplace.client.relay import to_json

    signed = sign_deposit(held, amount, valid_seconds=valid_seconds, nonce=secrets.token_bytes(32))
    screen.emit(to_json(signed))
    screen.note(
        f"Anybody can send it until {screen.when(signed.message.valid_before)}: watt wallet submit FILE"
    )


_SUBMIT = doc(
    "Send a deposit that somebody else signed; you pay the gas.",
    "watt wallet submit deposit.json",
    "cat deposit.json | watt wallet submit -",
    more=["The money can only reach the account of whoever signed."],
)


def submit(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Of --gasless; - reads stdin.")],
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Relays a signed deposit."""
    from marketplace.client import relay

    signed = relay.from_json(inputs.text_of(file))
    if not isinstance(signed, relay.SignedDeposit):
        raise typer.BadParameter("this is a key grant: watt keys submit", param_hint="FILE")
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    record = relay.submit(wiring.open_wallet(config, passphrase_file), signed)
    its, money = signed.message, config.currency
    facts = {"buyer": its.payer, "atoms": str(its.value_atoms), "currency": money.symbol}
    shown.sent(f"deposited {money.show(its.value_atoms)} of {its.payer}", record, facts, json=json)


_WITHDRAW = doc(
    "Take money out of your account at once.",
    "watt wallet withdraw 2.5",
    "watt wallet withdraw 2.5 --to 0x71C7…",
)


def withdraw(
    amount: Amount,
    to: Annotated[str | None, typer.Option("--to", metavar="ADDRESS", help="Else to yourself.")] = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Withdraws what no session holds."""
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    target = None if to is None else inputs.address(to, "--to")
    held = wiring.open_wallet(config, passphrase_file)
    shown.moved("withdrawn", amount, held.withdraw(amount, target), config, json=json)


def _new_passphrase(file: Path | None) -> str:
    import os
    import sys

    if file is not None:
        return inputs.passphrase_of(file)
    if os.environ.get("WATT_PASSPHRASE"):
        return os.environ["WATT_PASSPHRASE"]
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "give --passphrase-file, WATT_PASSPHRASE or --plain", param_hint="passphrase"
        )
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True))
