"""`watt deploy`: the contracts onto a chain, with an address book and what explorers verify them by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketplace.cli import config as configs
from marketplace.cli import inputs, screen, wiring
from marketplace.cli.options import DataDir, Json, PassphraseFile, Rpc, WalletFile, Yes, doc
from marketplace.protocol.errors import BadRequest, ErrorCode

if TYPE_CHECKING:
    from marketplace.chain.addressbook import AddressBook
    from marketplace.chain.deploy import Plan
    from marketplace.chain.networks import Network


def register(app: typer.Typer) -> None:
    """Adds the commands of this page."""
    app.command("deploy", help=_DEPLOY)(deploy)


_DEPLOY = doc(
    "Put the contracts on a chain: checked first, written down after.",
    "watt deploy --network local",
    "watt deploy --network base-sepolia --rpc URL --treasury 0x71C7… --dry-run",
    "watt deploy --network my-chain.toml --rpc URL --wallet deployer.json",
    more=[
        "Keeps an address book, which WATT_DEPLOYMENT_PATH can name, and a folder verify/ beside it.",
        "Where the book names contracts that stand, nothing is sent. --dry-run never sends.",
    ],
)


def deploy(
    *,
    network: Annotated[
        str, typer.Option("--network", metavar="NAME|FILE.toml", help="Which chain, and with what.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and stop.")] = False,
    treasury: Annotated[
        str | None, typer.Option("--treasury", metavar="ADDRESS", help="Gets the fees; locally: you.")
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Address book; else in your data folder.")
    ] = None,
    yes: Yes = False,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Deploys, or says what it would do."""
    from marketplace.chain import addressbook, networks
    from marketplace.chain import deploy as deploying
    from marketplace.chain.ethereum import Ethereum
    from marketplace.chain.rpc import Rpc as Endpoint

    wanted = networks.load(network)
    named = None if treasury is None else inputs.address(treasury, "--treasury")
    config = configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    deployer, url = wiring.signer(config, passphrase_file), config.need("rpc_url")
    path = target or addressbook.usual_path(wanted.chain_id)
    chain, receiver = Ethereum(Endpoint(url)), _treasury(wanted, named, deployer.address)
    if deploying.standing(url, chain, path) is not None:
        _finish(addressbook.AddressBook.load(path), path, fresh=False, json=json)
        return
    plan = deploying.plan_network(chain, deployer.address, wanted, receiver)
    if dry_run:
        _show_plan(plan, wanted, path, json=json)
        return
    if not json:
        _show_plan(plan, wanted, path, json=False)
    if not _is_local(plan.chain_id):
        inputs.be_sure(f"Deploy on chain {plan.chain_id} for up to {plan.most_wei} wei?", yes=yes)
    book = deploying.publish(url, deployer, wanted, receiver, path)
    _finish(book, path, fresh=True, json=json)


def _treasury(network: Network, named: str | None, deployer: str) -> str:
    found = named or network.treasury or (deployer if _is_local(network.chain_id) else None)
    if found is None:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"nobody is named to receive the fees on {network.name}",
            hint="Name an address you keep safe: --treasury ADDRESS",
        )
    return found


def _is_local(chain_id: int) -> bool:
    from marketplace.chain.devkeys import is_local

    return is_local(chain_id)


def _show_plan(plan: Plan, network: Network, path: Path, *, json: bool) -> None:
    from dataclasses import asdict

    if json:
        screen.emit(
            {
                "network": network.name,
                "chain_id": plan.chain_id,
                "deployer": plan.deployer,
                "contracts": plan.addresses,
                "parameters": asdict(plan.params),
                "gas": plan.gas,
                "most_wei": str(plan.most_wei),
                "balance_wei": str(plan.balance_wei),
                "book": str(path),
                "dry_run": True,
            }
        )
        return
    rows = [("network", f"{network.name}, chain {plan.chain_id}"), ("deployer", plan.deployer)]
    rows += [("treasury", plan.params.treasury), ("token", plan.params.token or "a test dollar")]
    rows += list(plan.addresses.items())
    rows += [("gas", f"at most {plan.gas}, {plan.most_wei} wei of {plan.balance_wei}"), ("book", str(path))]
    screen.facts(rows)


def _finish(book: AddressBook, path: Path, *, fresh: bool, json: bool) -> None:
    from marketplace.chain.verification import write_inputs

    folder = path.parent / "verify" / str(book.deployment.chain_id)
    try:
        write_inputs(book, folder)
    except OSError as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"the contracts stand and {path} names them, but {folder} cannot be written ({error.strerror})",
            hint="Make room for it, then run this again: nothing is sent twice.",
        ) from error
    contracts: dict[str, Any] = {name: item.address for name, item in book.contracts.items()}
    if json:
        facts = {"network": book.network, "chain_id": book.deployment.chain_id, "deployer": book.deployer}
        places = {"book": str(path), "verify": str(folder)}
        screen.emit({**facts, "contracts": contracts, "fresh": fresh, **places})
        return
    screen.facts([*contracts.items(), ("book", str(path)), ("verify", str(folder))])
    screen.done(f"{'deployed' if fresh else 'already deployed'} on chain {book.deployment.chain_id}")
