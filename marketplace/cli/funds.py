"""`watt wallet`, `session`, `keys`: a buyer's money and who may spend it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketplace.cli import config as configs
from marketplace.cli import screen, wiring
from marketplace.cli.options import DataDir, Gateway, Json, PassphraseFile, Rpc, WalletFile, doc
from marketplace.protocol.errors import BadRequest, ErrorCode

if TYPE_CHECKING:
    from marketplace.client.journal import Session
    from marketplace.client.sync import Wattline
    from marketplace.protocol.transactions import TxRecord

Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="In token units, as in 2.50.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this page."""
    wallets = typer.Typer(no_args_is_help=True, help="Make a wallet, put money in, take money out.")
    wallets.command("new", help=_NEW)(new)
    wallets.command("show", help=_SHOW)(show)
    wallets.command("deposit", help=_DEPOSIT)(deposit)
    wallets.command("withdraw", help=_WITHDRAW)(withdraw)
    app.add_typer(wallets, name="wallet")
    sessions = typer.Typer(no_args_is_help=True, help="Money set aside for one node each.")
    sessions.command("list", help=_LIST)(listed)
    sessions.command("open", help=_OPEN)(opened)
    sessions.command("topup", help=_TOPUP)(topped_up)
    app.add_typer(sessions, name="session")
    keys = typer.Typer(no_args_is_help=True, help="Bearer keys for OpenAI clients.")
    keys.command("create", help=_CREATE)(create)
    app.add_typer(keys, name="keys")


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


_SHOW = doc("Show the wallet's address and money.", "watt wallet show", "watt wallet show --json")


def show(
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Shows balances from the chain."""
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    held = wiring.open_wallet(config, passphrase_file)
    balance, money = held.balance(), config.currency
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
            }
        )
        return
    screen.facts(
        [
            ("address", held.address),
            ("account", f"{money.show(balance.account_atoms)} free to spend or withdraw"),
            ("in hand", f"{money.show(balance.token_atoms)} not deposited"),
            ("gas", f"{balance.gas_wei} wei"),
        ]
    )


_DEPOSIT = doc(
    "Move tokens into your account, where sessions take them from.",
    "watt wallet deposit 5",
    "watt wallet deposit 5 --faucet",
)


def deposit(
    amount: Amount,
    faucet: Annotated[bool, typer.Option("--faucet", help="Mint it first; local chains only.")] = False,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Deposits; approves the escrow first where it must."""
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    held = wiring.open_wallet(config, passphrase_file)
    if faucet:
        held.faucet(amount)
    _sent("deposited", amount, held.deposit(amount), config, json=json)


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
    target = None if to is None else _address(to, "--to")
    held = wiring.open_wallet(config, passphrase_file)
    _sent("withdrawn", amount, held.withdraw(amount, target), config, json=json)


_LIST = doc("List your key's open sessions.", "watt session list", "watt session list --json")


def listed(
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Lists sessions as the chain has them."""
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    with wiring.open_client(config, passphrase_file) as client:
        rows = [_row(session, client) for session in client.sessions()]
    if json:
        screen.emit({"sessions": rows})
        return
    money = config.currency
    columns = ("SESSION", "NODE", "EXPIRES", "DEPOSITED", f"LEFT {money.symbol}")
    shown = []
    for row in rows:
        held, left = money.bare(row["deposited_atoms"]), money.bare(row["left_atoms"])
        ends = screen.when(row["expires_at"])
        shown.append([row["session_id"], str(row["node_id"]), ends, held, left])
    screen.table(columns, shown)


_OPEN = doc(
    "Set money aside for one node; `watt run` does it by itself.",
    "watt session open --node 1 --amount 0.5",
    "watt session open --node 1 --amount 0.5 --key 0x71C7…  # for an agent",
)


def opened(
    *,
    node: Annotated[int, typer.Option("--node", metavar="ID", help="Who alone can earn it.")],
    amount: Annotated[str, typer.Option("--amount", metavar="AMOUNT", help="In token units.")],
    key: Annotated[
        str | None, typer.Option("--key", metavar="ADDRESS", help="Who may order; else you.")
    ] = None,
    hours: Annotated[int, typer.Option("--hours", min=1, max=72, help="Then the rest comes back.")] = 6,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Opens a session and waits for the chain."""
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    orderer = None if key is None else _address(key, "--key")
    with wiring.open_client(config, passphrase_file) as client:
        row = _row(client.open_session(node, amount, key=orderer, lifetime_seconds=hours * 3600), client)
    _session_shown(row, config, json=json)


_TOPUP = doc("Add money to a session.", "watt session topup 0x9ab1… --amount 0.5")


def topped_up(
    session_id: Annotated[str, typer.Argument(metavar="SESSION", help="As `watt session list` shows it.")],
    amount: Annotated[str, typer.Option("--amount", metavar="AMOUNT", help="In token units.")],
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Raises a session's deposit and waits for the chain."""
    if not session_id.startswith("0x") or len(session_id) != 66:
        raise typer.BadParameter("a session id is 0x and 64 hex digits", param_hint="SESSION")
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    with wiring.open_client(config, passphrase_file) as client:
        row = _row(client.top_up(session_id, amount), client)
    _session_shown(row, config, json=json)


_CREATE = doc(
    "Make a bearer key and open sessions it can spend from.",
    "watt keys create --label my-agent",
    "watt keys create --amount 0.5 --node 1 --node 2 --json",
    more=["The key can spend what its sessions hold, at these nodes, and nothing else."],
)


def create(
    *,
    label: Annotated[str, typer.Option("--label", help="For your own lists.")] = "",
    amount: Annotated[str, typer.Option("--amount", metavar="AMOUNT", help="For each node.")] = "1",
    node: Annotated[list[int] | None, typer.Option("--node", metavar="ID", help="Else all online.")] = None,
    hours: Annotated[int, typer.Option("--hours", min=1, max=72, help="Then the rest comes back.")] = 24,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Makes a gateway-held key with money."""
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    with wiring.open_client(config, passphrase_file) as client:
        chosen = node or [int(row["node_id"]) for row in client.nodes() if row.get("connected")]
        if not chosen:
            raise BadRequest(ErrorCode.NO_NODE, "No node is online.", hint="watt nodes")
        made = client.create_key(label)
        rows = []
        for node_id in chosen:
            screen.note(f"opening a session with node {node_id} …")
            session = client.open_session(node_id, amount, key=made["address"], lifetime_seconds=hours * 3600)
            rows.append(_row(session, client))
    if json:
        screen.emit({"api_key": made["api_key"], "address": made["address"], "sessions": rows})
        return
    base = f"{config.need('gateway_url')}/v1"
    screen.facts([("OPENAI_API_KEY", made["api_key"]), ("OPENAI_BASE_URL", base), ("key", made["address"])])
    screen.note(f"{len(rows)} sessions of {amount} {config.currency.symbol}; shown once, not kept here.")


def _row(session: Session, client: Wattline) -> dict[str, Any]:
    from marketplace.protocol.hexes import to_hex

    left = client.core.desk.journal.left_atoms(session.session_id)
    return {
        "session_id": to_hex(session.session_id),
        "node_id": session.node_id,
        "key": session.key,
        "deposited_atoms": str(session.deposited_atoms),
        "left_atoms": str(left),
        "expires_at": session.expires_at,
    }


def _session_shown(row: dict[str, Any], config: configs.Config, *, json: bool) -> None:
    if json:
        screen.emit(row)
        return
    money = config.currency
    screen.facts(
        [
            ("session", row["session_id"]),
            ("node", str(row["node_id"])),
            ("key", row["key"]),
            ("deposited", money.show(row["deposited_atoms"])),
            ("expires", screen.when(row["expires_at"])),
        ]
    )


def _sent(what: str, amount: str, record: TxRecord, config: configs.Config, *, json: bool) -> None:
    from marketplace.protocol.hexes import to_hex
    from marketplace.protocol.money import parse_atoms

    money = config.currency
    atoms = parse_atoms(amount, money.decimals)
    if json:
        shown = {what: money.bare(atoms), "atoms": str(atoms), "currency": money.symbol}
        screen.emit(shown | {"tx_hash": to_hex(record.tx_hash), "block": record.block_number})
        return
    screen.done(f"{what} {money.show(atoms)} in block {record.block_number}, {to_hex(record.tx_hash)}")


def _new_passphrase(file: Path | None) -> str:
    import os
    import sys

    if file is not None:
        return file.read_text().rstrip("\n")
    if os.environ.get("WATT_PASSPHRASE"):
        return os.environ["WATT_PASSPHRASE"]
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "give --passphrase-file, WATT_PASSPHRASE or --plain", param_hint="passphrase"
        )
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True))


def _address(text: str, option: str) -> str:
    from marketplace.protocol.hexes import checksum

    try:
        return checksum(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no address", param_hint=option) from error
