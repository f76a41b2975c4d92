"""`watt keys`: keys that may spend a buyer's money, inside caps the escrow enforces."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketplace.cli import asking, bearers, inputs, screen, shown, wiring
from marketplace.cli import config as configs
from marketplace.cli.options import DataDir, Gateway, Json, PassphraseFile, Rpc, WalletFile, doc
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode

if TYPE_CHECKING:
    from marketplace.client.caps import Caps, HeldKey
    from marketplace.client.keys import BuyerKeys
    from marketplace.client.payer import Grant
    from marketplace.client.wallet import BuyerWallet
    from marketplace.protocol.transactions import TxRecord


def register(app: typer.Typer) -> None:
    """Adds the commands of this page."""
    keys = typer.Typer(no_args_is_help=True, help="Keys that spend your money, so far and no further.")
    keys.command("create", help=_CREATE)(create)
    keys.command("list", help=_LIST)(listed)
    keys.command("show", help=_SHOW)(show)
    keys.command("revoke", help=_REVOKE)(revoke)
    keys.command("submit", help=_SUBMIT)(submit)
    bearers.register(keys)
    app.add_typer(keys, name="keys")


_CREATE = doc(
    "Make a key for an agent and let it spend so much of your account.",
    "watt keys create agent --cap 5",
    "watt keys create agent --cap 5 --per-session 0.50 --per-day 1 --for 24h",
    "watt keys create agent --cap 5 --nodes 1,2,3 --models 'tiny-*'",
    "watt keys create agent --cap 5 --gasless > grant.json",
    "watt keys create agent --cap 5 --address 0x71C7…  # a key it made itself",
    more=[
        "The agent runs with --wallet and the printed file; the escrow holds it to the caps.",
        "Run again with the same name: the same key, new caps. --gasless sends nothing.",
        "A name stays its key's until that is revoked. Money, time and nodes are the escrow's to enforce;",
        "models its gateway's and its own client's: the chain knows none.",
    ],
)


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="For your own lists.")],
    *,
    cap: Annotated[str, typer.Option("--cap", metavar="AMOUNT", help="Most it may spend in all.")],
    per_session: Annotated[
        str | None,
        typer.Option("--per-session", metavar="AMOUNT", help="Most one session holds; else --cap."),
    ] = None,
    per_day: Annotated[
        str | None, typer.Option("--per-day", metavar="AMOUNT", help="Most a day (UTC); else --cap.")
    ] = None,
    lasting: Annotated[str, typer.Option("--for", metavar="TIME", help="As 90m, 24h, 7d.")] = "24h",
    nodes: Annotated[
        str | None, typer.Option("--nodes", metavar="IDS", help="It may pay only these, as 1,2,3.")
    ] = None,
    models: Annotated[
        str | None, typer.Option("--models", metavar="NAMES", help="It buys only these, as 'tiny-*,bge'.")
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="ADDRESS", help="Of a key that exists elsewhere.")
    ] = None,
    gasless: Annotated[bool, typer.Option("--gasless", help="Print a signed grant.")] = False,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Grants a key by transaction, or by a signature for others to send."""
    from marketplace.client.keys import BuyerKeys

    inputs.name(name)
    node_ids, lasting_seconds = inputs.node_ids(nodes, "--nodes"), inputs.seconds(lasting, "--for")
    wanted = inputs.patterns(models, "--models")
    outside = None if address is None else inputs.address(address, "--address")
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    held = wiring.open_wallet(config, passphrase_file)
    caps = _caps(held, (per_session or cap, per_day or cap, cap), lasting_seconds, node_ids)
    made = _files(config, held, name, outside, node_ids, wanted)
    keys = BuyerKeys(held)
    _tell_gateway(config, keys, made)
    if gasless:
        from marketplace.client.relay import to_json

        signed = keys.sign_grant(made.grant.key, caps)
        made.keep_signed(signed.message.nonce)
        screen.emit(to_json(signed))
        screen.note(f"Anybody can send it within a day: watt keys submit FILE; {made.where()}")
        return
    record = _granted(keys, made, caps)
    facts: dict[str, Any] = {"name": name, "key": made.grant.key, "models": list(wanted)}
    facts["key_file"] = made.key_file and str(made.key_file)
    shown.sent(f"{name} is key {made.grant.key}; granted", record, facts | _caps_json(caps), json=json)
    if not json:
        screen.note(made.where())


_LIST = doc("List your keys and what each may still spend.", "watt keys list", "watt keys list --json")


def listed(
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Lists every key this buyer ever granted, from the chain."""
    from marketplace.client.keys import BuyerKeys

    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    found = BuyerKeys(wiring.open_wallet(config, passphrase_file)).list()
    names = {grant.key: grant.name for grant in _grants(config)}
    if json:
        screen.emit({"keys": [_key_json(held, names.get(held.key, "")) for held in found]})
        return
    money = config.currency
    columns = ("NAME", "KEY", "LEFT TODAY", f"LEFT {money.symbol}", "EXPIRES")
    lines = []
    for held in found:
        ends = screen.when(held.state.expires_at) if held.is_live else "over"
        today, left = money.bare(held.left_today_atoms), money.bare(held.left_atoms)
        lines.append([names.get(held.key, ""), held.key, today, left, ends])
    screen.table(columns, lines)


_SHOW = doc(
    "Show what a key may still spend, how fast it does, and its open sessions.",
    "watt keys show agent",
    "watt keys show 0x71C7… --json",
)


def show(
    key: Annotated[str, typer.Argument(metavar="NAME|ADDRESS", help="As `watt keys list` shows it.")],
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Shows one key, live from the chain."""
    from marketplace.client.keys import BuyerKeys

    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    address = _address(config, key)
    keys = BuyerKeys(wiring.open_wallet(config, passphrase_file))
    grant = next((found for found in _grants(config) if found.key == address), None)
    held, use = keys.held(address), keys.use(address)
    shown.key(_key_json(held, grant.name if grant else "") | shown.use_of(use, grant), config, json=json)


_REVOKE = doc(
    "Take everything from a key at once.",
    "watt keys revoke agent",
    "watt keys revoke 0x71C7…",
    more=[
        "Gateways and its own client refuse it from then on; what its open sessions hold is the most",
        "anybody can still take. No old grant brings the key back.",
    ],
)


def revoke(
    key: Annotated[str, typer.Argument(metavar="NAME|ADDRESS", help="As `watt keys list` shows it.")],
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Revokes a key, and waits until its gateway knows."""
    from marketplace.client.keys import BuyerKeys

    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    address = _address(config, key)
    record = BuyerKeys(wiring.open_wallet(config, passphrase_file)).revoke(address)
    told = asking.has_read(config, record.block_number or 0)
    shown.sent(f"revoked {address}", record, {"key": address, "gateway_refuses": told}, json=json)
    if not json and told is not None:
        screen.note(
            "its gateway refuses it" if told else "its gateway refuses it once it has read that block"
        )


_SUBMIT = doc(
    "Send a grant that somebody else signed; you pay the gas.",
    "watt keys submit grant.json",
    "cat grant.json | watt keys submit -",
)


def submit(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Of --gasless; - reads stdin.")],
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Relays a signed grant."""
    from marketplace.client import relay

    signed = relay.from_json(inputs.text_of(file))
    if not isinstance(signed, relay.SignedGrant):
        raise typer.BadParameter("this is a deposit: watt wallet submit", param_hint="FILE")
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    record = relay.submit(wiring.open_wallet(config, passphrase_file), signed)
    its = signed.message
    shown.sent(f"granted {its.key} of {its.buyer}", record, {"buyer": its.buyer, "key": its.key}, json=json)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A key and where it is kept; no file where it exists elsewhere, no `before` for its first grant."""

    grant: Grant
    before: Grant | None
    key_file: Path | None
    grant_file: Path

    def keep(self) -> None:
        """Writes the grant down, once the escrow has it."""
        self.grant.save(self.grant_file)

    def keep_signed(self, nonce: int) -> None:
        """Writes it beside what holds until then: nobody may ever send it."""
        now = replace(self.before or self.grant, models=self.grant.models)
        now.with_signed(self.grant.node_ids, nonce).save(self.grant_file)

    def where(self) -> str:
        if self.key_file is None:
            return f"Give its holder {self.grant_file}, to keep beside the key file."
        return f"The agent runs with --wallet {self.key_file}"


def _files(
    config: configs.Config,
    held: BuyerWallet,
    name: str,
    outside: str | None,
    node_ids: tuple[int, ...],
    models: tuple[str, ...],
) -> _Made:
    """The key of a name, made where there is none.

    Raises:
        BadRequest: the name is another key's, which could then no longer be revoked by it.
    """
    import secrets

    from marketplace.client.keyfile import load_key, save_raw
    from marketplace.client.payer import Grant, grant_path
    from marketplace.protocol.signing import Signer

    key_file = configs.keys_dir(config) / f"{name}.key"
    path = grant_path(key_file)
    before = Grant.load(path) if path.exists() else None
    address = outside or (load_key(key_file).address if key_file.exists() else None)
    if before is not None and (before.buyer, before.key) != (held.address, address):
        _must_be_free(held, before)
    if address is None:
        fresh = Signer(secrets.token_bytes(32))
        save_raw(fresh, key_file)
        address = fresh.address
    domain = held.deployment.domain
    grant = Grant(name=name, buyer=held.address, key=address, node_ids=node_ids, domain=domain, models=models)
    same = before and (before.buyer, before.key, before.domain) == (grant.buyer, grant.key, domain)
    return _Made(
        grant=grant,
        before=before if same else None,
        key_file=None if outside else key_file,
        grant_file=path,
    )


def _tell_gateway(config: configs.Config, keys: BuyerKeys, made: _Made) -> None:
    """Lets the gateway hold the key to its models too, where there is one and something to tell."""
    from marketplace.client.problems import GatewayProblem, GatewayTrouble

    models, before = made.grant.models, made.before.models if made.before else ()
    if not (models or before) or not asking.names_gateway(config):
        return
    headers = {"x-watt-visit": keys.visit(time.time_ns() // 1_000_000)}
    try:
        asking.ask(config, "PUT", f"/v1/grants/{made.grant.key}", {"models": list(models)}, headers=headers)
    except (GatewayProblem, GatewayTrouble) as error:
        screen.note(f"the gateway does not hold it to these models ({error.detail}); its own client does")


def _must_be_free(held: BuyerWallet, named: Grant) -> None:
    """Passes where the key of this name was revoked, and no grant signed since can bring it back."""
    if named.buyer != held.address or named.domain != held.deployment.domain:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"the name {named.name} is of key {named.key} of {named.buyer} at {named.domain.escrow}",
            hint="Take another name.",
        )
    state = held.chain.key(named.buyer, named.key)
    if state.expires_at or state.nonce <= named.signed_nonce:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"the name {named.name} is of key {named.key}, which is not revoked",
            hint=f"Take another name, or revoke that key first: watt keys revoke {named.name}",
        )


def _granted(keys: BuyerKeys, made: _Made, caps: Caps) -> TxRecord:
    """Grants, then writes down what the escrow has."""
    nonce = keys.held(made.grant.key).state.nonce + 1
    try:
        record = keys.grant(made.grant.key, caps)
    except ChainTrouble as trouble:
        # What was sent may still be mined, and the key would be live without name and list.
        if "tx_hash" in trouble.values:
            made.keep_signed(nonce)
        raise
    made.keep()
    return record


def _caps(
    held: BuyerWallet, amounts: tuple[str, str, str], lasting_seconds: int, node_ids: tuple[int, ...]
) -> Caps:
    from marketplace.client.caps import Caps
    from marketplace.protocol.money import parse_atoms

    per_session, per_day, total = (parse_atoms(a, held.deployment.token_decimals) for a in amounts)
    return Caps(
        per_session_atoms=per_session,
        per_day_atoms=per_day,
        total_atoms=total,
        expires_at=held.chain.head().timestamp + lasting_seconds,
        node_ids=node_ids,
    )


def _caps_json(caps: Caps) -> dict[str, Any]:
    return {
        "per_session_atoms": str(caps.per_session_atoms),
        "per_day_atoms": str(caps.per_day_atoms),
        "total_atoms": str(caps.total_atoms),
        "expires_at": caps.expires_at,
        "nodes": list(caps.node_ids),
    }


def _key_json(held: HeldKey, name: str) -> dict[str, Any]:
    state = held.state
    return {
        "name": name,
        "key": held.key,
        "live": held.is_live,
        "left_today_atoms": str(held.left_today_atoms),
        "left_atoms": str(held.left_atoms),
        "per_session_atoms": str(state.per_session_atoms),
        "per_day_atoms": str(state.per_day_atoms),
        "total_atoms": str(state.total_atoms),
        "expires_at": state.expires_at,
        "listed": state.is_listed,
    }


def _grants(config: configs.Config) -> list[Grant]:
    """Grants made from here, by name."""
    from marketplace.client.payer import Grant

    return [Grant.load(path) for path in sorted(configs.keys_dir(config).glob("*.grant.json"))]


def _address(config: configs.Config, key: str) -> str:
    """Of a key by its name or address."""
    if key.startswith("0x"):
        return inputs.address(key, "KEY")
    name = inputs.name(key)
    for grant in _grants(config):
        if grant.name == name:
            return grant.key
    raise BadRequest(ErrorCode.NOT_FOUND, f"No key is called {name}.", hint="watt keys list")
