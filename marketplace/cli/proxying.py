"""`watt proxy`: the gateway's OpenAI URL on this machine, signing with the buyer's own key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from marketplace.cli import bought, screen, wiring
from marketplace.cli import config as configs
from marketplace.cli.options import (
    SEAL_HELP,
    DataDir,
    Gateway,
    Json,
    Node,
    PassphraseFile,
    Rpc,
    Timeout,
    doc,
)

if TYPE_CHECKING:
    from marketplace.client.aio import AsyncWattline
    from marketplace.client.work import Done
    from marketplace.proxy.calls import Proxy

DEFAULT_PORT: Final = 8403
BUDGET: Final = "proxy"
Seal = Annotated[bool, typer.Option("--seal", envvar="WATT_PROXY_SEAL", help=SEAL_HELP)]


def register(app: typer.Typer) -> None:
    """Adds the command of this page."""
    app.command("proxy", help=_PROXY)(proxy)


_PROXY = doc(
    "Serve the OpenAI URL here, paying with your own key; nobody else holds anything.",
    "watt proxy",
    "watt proxy --key .watt/keys/agent.key --budget 0.50",
    "OPENAI_BASE_URL=http://127.0.0.1:8403/v1 OPENAI_API_KEY=any python agent.py",
    more=(
        "Any bearer value is accepted unless --token is set. The budget counts every call through this"
        " command with this key, across restarts; a higher one raises it.",
    ),
)


def proxy(
    *,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="On 127.0.0.1; 0 for a free one.")
    ] = DEFAULT_PORT,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="WATT_PROXY_TOKEN", help="Bearer value callers must send."),
    ] = None,
    max_cost: Annotated[
        str | None, typer.Option("--max-cost", metavar="AMOUNT", help="Most any call may cost.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="AMOUNT", help="Most all calls may cost together.")
    ] = None,
    seal: Seal = False,
    node: Node = None,
    timeout: Timeout = 120,
    gateway: Gateway = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: Annotated[
        Path | None,
        typer.Option("--key", "--wallet", metavar="FILE", help="Key file that pays (WATT_WALLET)."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Serves until it is stopped."""
    import asyncio

    from marketplace.proxy.calls import Bounds, Proxy
    from marketplace.proxy.serve import serve

    config = configs.load(data_dir, gateway_url=gateway, rpc_url=rpc, wallet=wallet)
    options = wiring.client_options(config, passphrase_file, seal=seal)
    bounds = Bounds(max_cost=max_cost, node=node, timeout_seconds=timeout)

    async def make(client: AsyncWattline) -> Proxy:
        if budget is not None:
            await client.set_budget(budget, name=BUDGET)
        return Proxy(
            client,
            bounds,
            on_paid=lambda done: None if json else _paid(done, config),
            on_faults=lambda bundles: bought.keep_faults(bundles, config),
        )

    def ready(made: Proxy, url: str) -> None:
        told = {"url": url, "key": made.client.desk.key.address, "gateway": config.need("gateway_url")}
        if json:
            screen.emit(told | {"budget": made.budget(), "sealed": seal})
        else:
            _greet(made, url, token)

    asyncio.run(serve(port, lambda: wiring.open_async(options), make, token=token, ready=ready))


def _greet(made: Proxy, url: str, token: str | None) -> None:
    screen.done(f"{url} pays with key {made.client.desk.key.address}; Ctrl-C stops it")
    found = made.budget()
    if found["limit"] is not None:
        screen.note(f"budget {found['limit']} {found['currency']}, {found['left']} of it left")
    if made.client.desk.seal:
        screen.note("sealed: only the node that does a job reads its input and output")
    screen.note(f"OPENAI_BASE_URL={url} OPENAI_API_KEY={'the token' if token else 'any'}")


def _paid(done: Done, config: configs.Config) -> None:
    bundle, money = done.bundle, config.currency
    paid = money.show(bundle.receipt.amount_atoms)
    screen.note(f"paid {paid} · {done.model} · node {bundle.node_id} · {bundle.receipt_id} · ✓ verified")
