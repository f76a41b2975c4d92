"""`watt session`: money set aside for one node each, from opening to end."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketplace.cli import config as configs
from marketplace.cli import inputs, screen, shown, wiring
from marketplace.cli.options import DataDir, Gateway, Json, PassphraseFile, Rpc, WalletFile, doc
from marketplace.protocol.errors import BadRequest, ErrorCode

if TYPE_CHECKING:
    from marketplace.client.spending import SessionView
    from marketplace.protocol.messages import Close

SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="As `watt session list` shows it.")]
Direct = Annotated[bool, typer.Option("--direct", help="Send it yourself; needs no gateway, but gas.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this page."""
    sessions = typer.Typer(no_args_is_help=True, help="Money set aside for one node each.")
    sessions.command("list", help=_LIST)(listed)
    sessions.command("show", help=_SHOW)(show)
    sessions.command("open", help=_OPEN)(opened)
    sessions.command("top-up", help=_TOP_UP)(topped_up)
    sessions.command("close", help=_CLOSE)(close)
    sessions.command("expire", help=_EXPIRE)(expire)
    sessions.command("finalise", help=_FINALISE)(finalise)
    app.add_typer(sessions, name="session")


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
        rows = [shown.session_row(session, client) for session in client.sessions()]
    if json:
        screen.emit({"sessions": rows})
        return
    money = config.currency
    columns = ("SESSION", "NODE", "EXPIRES", "DEPOSITED", f"LEFT {money.symbol}")
    lines = []
    for row in rows:
        held, left = money.bare(row["deposited_atoms"]), money.bare(row["left_atoms"])
        ends = screen.when(row["expires_at"])
        lines.append([row["session_id"], str(row["node_id"]), ends, held, left])
    screen.table(columns, lines)


_SHOW = doc(
    "Show a session and what is claimed of it, as the chain has them.",
    "watt session show 0x9ab1…",
    "watt session show 0x9ab1… --json | jq .claim",
)


def show(
    session_id: SessionId,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Shows a session of anybody."""
    wanted = inputs.digest(session_id, "session")
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    seen = wiring.open_sessions(config, passphrase_file).view(wanted)
    if json:
        screen.emit(_as_json(seen))
    else:
        _for_people(seen, config.currency)


_OPEN = doc(
    "Set money aside for one node; `watt run` does it by itself.",
    "watt session open --node 1 --amount 0.5",
    "watt session open --node 1 --amount 0.5 --key 0x71C7…  # for an agent",
    "watt session open --node 1 --amount 0.5 --wallet agent.key  # by one",
    more=["A granted key opens from its buyer's account, inside its caps: watt keys create."],
)


def opened(
    *,
    node: Annotated[
        int, typer.Option("--node", min=1, max=inputs.MOST_NODE, metavar="ID", help="Who alone can earn it.")
    ],
    amount: Annotated[str, typer.Option("--amount", metavar="AMOUNT", help="In token units.")],
    key: Annotated[
        str | None, typer.Option("--key", metavar="ADDRESS", help="Who may order; else you.")
    ] = None,
    hours: Annotated[int, typer.Option("--hours", min=1, max=72, help="Then the rest comes back.")] = 6,
    direct: Direct = False,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Opens a session and waits for the chain."""
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    orderer = None if key is None else inputs.address(key, "--key")
    if direct:
        _open_directly(config, passphrase_file, node, amount, orderer, hours * 3600, json=json)
        return
    with wiring.open_client(config, passphrase_file) as client:
        session = client.open_session(node, amount, key=orderer, lifetime_seconds=hours * 3600)
        row = shown.session_row(session, client)
    shown.session(row, config, json=json)


_TOP_UP = doc(
    "Add money to a session.",
    "watt session top-up 0x9ab1… --amount 0.5",
    "watt session top-up 0x9ab1… --amount 0.5 --direct",
)


def topped_up(
    session_id: SessionId,
    amount: Annotated[str, typer.Option("--amount", metavar="AMOUNT", help="In token units.")],
    *,
    direct: Direct = False,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Raises a session's deposit and waits for the chain."""
    wanted = inputs.digest(session_id, "session")
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    if direct:
        from marketplace.protocol.money import parse_atoms

        own = wiring.open_sessions(config, passphrase_file)
        own.top_up(own.terms(wanted), parse_atoms(amount, config.currency.decimals))
        seen = own.view(wanted)
        screen.emit(_as_json(seen)) if json else _for_people(seen, config.currency)
        return
    with wiring.open_client(config, passphrase_file) as client:
        row = shown.session_row(client.top_up(session_id, amount), client)
    shown.session(row, config, json=json)


_CLOSE = doc(
    "End a session early with its node's signed consent.",
    "watt session close 0x9ab1… --consent consent.json",
    more=['The file holds {"close": {"sessionId", "minPaid"}, "signature"}, signed by the node.'],
)


def close(
    session_id: SessionId,
    consent: Annotated[Path, typer.Option("--consent", metavar="FILE", help="What the node signed.")],
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Closes a session; the rest returns to the account."""
    wanted = inputs.digest(session_id, "session")
    agreed, signature = _consent(consent)
    if agreed.session_id != wanted:
        raise typer.BadParameter("the node agreed to end another session", param_hint="--consent")
    own = wiring.open_sessions(configs.load(data_dir, rpc_url=rpc, wallet=wallet), passphrase_file)
    record = own.close(own.terms(wanted), agreed, signature)
    shown.sent(f"closed session {session_id}", record, {"session_id": session_id}, json=json)


_EXPIRE = doc(
    "Take back what is left of a session whose grace is over.",
    "watt session expire 0x9ab1…",
    more=["Anybody may; gateways do it by themselves. What is claimed waits for its end."],
)


def expire(
    session_id: SessionId,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Expires a session."""
    wanted = inputs.digest(session_id, "session")
    own = wiring.open_sessions(configs.load(data_dir, rpc_url=rpc, wallet=wallet), passphrase_file)
    record = own.expire(own.terms(wanted))
    shown.sent(f"ended session {session_id}", record, {"session_id": session_id}, json=json)


_FINALISE = doc(
    "End the wait of a claim: what nobody disputed is paid.",
    "watt session finalise 0x9ab1…",
    more=["Anybody may, once the challenge window is over."],
)


def finalise(
    session_id: SessionId,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Finalises a claim."""
    wanted = inputs.digest(session_id, "session")
    own = wiring.open_sessions(configs.load(data_dir, rpc_url=rpc, wallet=wallet), passphrase_file)
    record = own.finalise(own.terms(wanted))
    shown.sent(f"finalised the claim on {session_id}", record, {"session_id": session_id}, json=json)


def _open_directly(
    config: configs.Config,
    passphrase_file: Path | None,
    node: int,
    amount: str,
    key: str | None,
    seconds: int,
    *,
    json: bool,
) -> None:
    from marketplace.protocol.money import parse_atoms

    own = wiring.open_sessions(config, passphrase_file)
    atoms = parse_atoms(amount, config.currency.decimals)
    terms = own.open(node, atoms, key=key, seconds=seconds)
    seen = own.view(terms.digest(own.wallet.deployment.domain))
    if json:
        screen.emit(_as_json(seen))
    else:
        _for_people(seen, config.currency)


def _consent(file: Path) -> tuple[Close, bytes]:
    from marketplace.protocol.hexes import from_hex
    from marketplace.protocol.messages import Close

    try:
        data: Any = jsons.loads(inputs.bytes_of(file))
        return Close.from_json(data["close"]), from_hex(data["signature"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, f"{file} is no signed consent ({error}).", hint="Ask the node for one."
        ) from error


def _as_json(seen: SessionView) -> dict[str, Any]:
    from marketplace.protocol.hexes import to_hex

    state, claim = seen.state, seen.claim
    return {
        "session_id": to_hex(seen.session_id),
        "buyer": seen.terms.buyer,
        "key": seen.terms.key,
        "node_id": state.node_id,
        "deposited_atoms": str(state.deposited_atoms),
        "paid_atoms": str(state.paid_atoms),
        "free_atoms": str(seen.free_atoms),
        "through_seq": state.through_seq,
        "expires_at": state.expires_at,
        "returns_at": seen.returns_at,
        "closed": state.closed,
        "claim": claim
        and {
            "pending_atoms": str(claim.pending_atoms),
            "held_atoms": str(claim.held_atoms),
            "through_seq": claim.through_seq,
            "final_at": claim.final_at,
        },
    }


def _for_people(seen: SessionView, money: screen.Currency) -> None:
    from marketplace.protocol.hexes import to_hex

    state, claim = seen.state, seen.claim
    rows = [
        ("session", to_hex(seen.session_id)),
        ("buyer", seen.terms.buyer),
        ("key", seen.terms.key),
        ("node", str(state.node_id)),
        ("deposited", money.show(state.deposited_atoms)),
        ("paid", f"{money.show(state.paid_atoms)} for orders up to {state.through_seq}"),
        ("free", money.show(seen.free_atoms)),
        ("expires", "closed" if state.closed else screen.when(state.expires_at)),
    ]
    if claim:
        pending, held = money.show(claim.pending_atoms), money.show(claim.held_atoms)
        rows.append(("claimed", f"{pending} until {screen.when(claim.final_at)}, {held} disputed"))
    screen.facts(rows)
    if claim:
        screen.note(f"See which jobs: watt dispute claims {to_hex(seen.session_id)}")
