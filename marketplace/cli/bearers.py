"""`watt keys bearer`: keys a gateway holds; made with money and limits, shown, revoked."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from marketplace.cli import config as configs
from marketplace.cli import inputs, screen, shown, wiring
from marketplace.cli.options import DataDir, Gateway, Json, PassphraseFile, Rpc, WalletFile, doc
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError


def register(keys: typer.Typer) -> None:
    """Adds the commands of this page."""
    keys.command("bearer", help=_BEARER)(bearer)
    keys.command("bearer-show", help=_SHOW)(show)
    keys.command("bearer-revoke", help=_REVOKE)(revoke)


_BEARER = doc(
    "Make a bearer key and open sessions it can spend from.",
    "watt keys bearer --label my-agent",
    "watt keys bearer --amount 0.5 --node 1 --node 2 --json",
    "watt keys bearer --models 'tiny-*' --budget 0.80",
    more=[
        "The key can spend what its sessions hold, at these nodes, and nothing else. Models, budget and",
        "time are its gateway's to enforce.",
    ],
)


def bearer(
    *,
    label: Annotated[str, typer.Option("--label", help="For your own lists.")] = "",
    amount: Annotated[str, typer.Option("--amount", metavar="AMOUNT", help="For each node.")] = "1",
    node: Annotated[
        list[int] | None,
        typer.Option("--node", min=1, max=inputs.MOST_NODE, metavar="ID", help="Else all online."),
    ] = None,
    models: Annotated[
        str | None, typer.Option("--models", metavar="NAMES", help="It buys only these, as 'tiny-*,bge'.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="AMOUNT", help="Most it may spend in all.")
    ] = None,
    hours: Annotated[int, typer.Option("--hours", min=1, max=72, help="Then the rest comes back.")] = 24,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Makes a gateway-held key with money."""
    from marketplace.protocol.money import parse_atoms

    wanted = inputs.patterns(models, "--models")
    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    for given in (amount, budget or "0"):
        parse_atoms(given, config.currency.decimals)  # No key is made that nothing could be opened for.
    with wiring.open_client(config, passphrase_file) as client:
        chosen = node or [int(row["node_id"]) for row in client.nodes() if row.get("connected")]
        if not chosen:
            raise BadRequest(ErrorCode.NO_NODE, "No node is online.", hint="watt nodes")
        ends = int(time.time()) + hours * 3600
        made = client.create_key(label, models=wanted, budget=budget, expires_at=ends)
        rows: list[dict[str, Any]] = []
        for node_id in chosen:
            screen.note(f"opening a session with node {node_id} …")
            try:
                session = client.open_session(
                    node_id, amount, key=made["address"], lifetime_seconds=hours * 3600
                )
            except WattError:
                # Its secret is nowhere else, and earlier sessions hold money for it.
                screen.note(f"OPENAI_API_KEY {made['api_key']} can spend from {len(rows)} sessions so far")
                raise
            rows.append(shown.session_row(session, client))
    if json:
        screen.emit({"api_key": made["api_key"], "address": made["address"], "sessions": rows})
        return
    base = f"{config.need('gateway_url')}/v1"
    screen.facts([("OPENAI_API_KEY", made["api_key"]), ("OPENAI_BASE_URL", base), ("key", made["address"])])
    screen.note(f"{len(rows)} sessions of {amount} {config.currency.symbol}; shown once, not kept here.")


_SHOW = doc(
    "Show what a bearer key may buy and what it has left.",
    "WATT_API_KEY=sk-watt-… watt keys bearer-show",
    "watt keys bearer-show --json",
)


def show(gateway: Gateway = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Asks the gateway about the bearer key of WATT_API_KEY."""
    from marketplace.cli import asking

    config = configs.load(data_dir, gateway_url=gateway)
    config.need("api_key")
    found = asking.ask(config, "GET", "/v1/keys/me")
    if json:
        screen.emit(found)
        return
    money, spent = config.currency, int(found["spent_last_day_atoms"])
    ends = found["expires_at"]
    screen.facts(
        [
            ("key", f"{found['label']} {found['address']}".strip()),
            ("models", ", ".join(found["models"]) or "any"),
            (
                "budget",
                money.show(found["budget_atoms"]) if found["budget_atoms"] else "what its sessions hold",
            ),
            ("spent", money.show(found["spent_atoms"])),
            ("left", money.show(found["left_atoms"])),
            ("last day", money.show(spent)),
            ("empty in", shown.lasting(found["forecast"])),
            ("expires", screen.when(ends) if ends else "never"),
        ]
    )


_REVOKE = doc(
    "Revoke a bearer key at its gateway; its next call is refused.",
    "WATT_API_KEY=sk-watt-… watt keys bearer-revoke",
    more=["What its sessions still hold comes back when they end."],
)


def revoke(gateway: Gateway = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Revokes the bearer key of WATT_API_KEY."""
    from marketplace.cli import asking

    config = configs.load(data_dir, gateway_url=gateway)
    config.need("api_key")
    address = asking.ask(config, "GET", "/v1/keys/me")["address"]
    asking.ask(config, "DELETE", "/v1/keys/me")
    if json:
        screen.emit({"key": address, "revoked": True})
        return
    screen.done(f"revoked {address} at {config.need('gateway_url')}")
