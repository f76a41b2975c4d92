"""Makes clients and wallets out of settings. Loads the SDK, and web3 where the chain is read."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marketplace.cli.config import Config, journal_path, own_wallet
from marketplace.cli.inputs import passphrase_of
from marketplace.protocol.errors import BadRequest, ErrorCode

if TYPE_CHECKING:
    from marketplace.chain.client import ChainClient
    from marketplace.client.aio import AsyncWattline
    from marketplace.client.disputes import Disputes
    from marketplace.client.gateway import Gateway
    from marketplace.client.payer import Grant
    from marketplace.client.spending import OwnSessions
    from marketplace.client.sync import Wattline
    from marketplace.client.wallet import BuyerWallet
    from marketplace.protocol.signing import Signer


def open_client(config: Config, passphrase_file: Path | None = None, *, seal: bool = False) -> Wattline:
    """A client that can spend: needs a key, a chain and a deployment."""
    from marketplace.client.sync import Wattline

    return Wattline.open(**client_options(config, passphrase_file, seal=seal))


async def open_async(options: dict[str, Any]) -> AsyncWattline:
    """The same for a program with an event loop, of its `client_options`."""
    from marketplace.client.aio import AsyncWattline

    return await AsyncWattline.open(**options)


def client_options(
    config: Config, passphrase_file: Path | None = None, *, seal: bool = False
) -> dict[str, Any]:
    """What opens a client that can spend; may ask for the passphrase of its key."""
    return {
        "gateway_url": config.need("gateway_url"),
        "rpc_url": config.need("rpc_url"),
        "deployment": Path(config.need("deployment")),
        "key": signer(config, passphrase_file),
        "grant": grant(config),
        "journal_path": journal_path(config),
        "seal": seal,
    }


def open_gateway(config: Config) -> Gateway:
    """The gateway alone, for questions that need no key."""
    from marketplace.client.gateway import Gateway
    from marketplace.client.views import Surroundings

    return Gateway(config.need("gateway_url"), Surroundings(), api_key=config.get("api_key"))


def open_chain(config: Config) -> ChainClient:
    """The chain alone, for checking receipts."""
    from marketplace.client.connect import connect

    return connect(config.need("rpc_url"), Path(config.need("deployment")))


def open_wallet(config: Config, passphrase_file: Path | None = None) -> BuyerWallet:
    """The buyer's wallet."""
    from marketplace.client.wallet import BuyerWallet

    key = signer(config, passphrase_file)
    return BuyerWallet.open(key, config.need("rpc_url"), Path(config.need("deployment")))


def open_sessions(config: Config, passphrase_file: Path | None = None) -> OwnSessions:
    """Sessions by transactions of one's own; a granted key pays from its buyer's account."""
    from marketplace.client.payer import Payer
    from marketplace.client.spending import OwnSessions

    wallet, held = open_wallet(config, passphrase_file), grant(config)
    if held is None:
        return OwnSessions(wallet)
    now = held.at(wallet.chain.key(held.buyer, held.key).nodes_root)
    return OwnSessions(wallet, Payer.granted(wallet.signer, now, wallet.deployment.domain))


def open_disputes(config: Config, passphrase_file: Path | None = None) -> Disputes:
    """The court; sessions opened from here are known by the journal."""
    from marketplace.client.disputes import Disputes
    from marketplace.client.journal import Journal

    path = journal_path(config)
    journal = Journal(path) if path.exists() else None
    return Disputes(open_wallet(config, passphrase_file), journal)


def grant(config: Config) -> Grant | None:
    """The grant beside the named key file; None where the key is a buyer's own."""
    from marketplace.client.payer import grant_of

    wallet = config.get("wallet")
    return grant_of(Path(wallet)) if wallet else None


def signer(config: Config, passphrase_file: Path | None = None) -> Signer:
    """The buyer's key: a named wallet, else a private key, else the wallet in its usual place.

    Raises:
        BadRequest: there is none, or it does not open.
    """
    from marketplace.protocol.signing import Signer

    wallet, secret = config.get("wallet"), config.get("private_key")
    if wallet is None and secret is not None:
        try:
            return Signer(secret)
        except ValueError as error:
            raise BadRequest(ErrorCode.INVALID_REQUEST, "WATT_PRIVATE_KEY is no private key.") from error
    from marketplace.client.keyfile import load_key

    path = Path(wallet) if wallet else own_wallet()
    return load_key(path, passphrase(path, passphrase_file))


def passphrase(wallet: Path, file: Path | None) -> str | None:
    """The passphrase of a keystore: file, WATT_PASSPHRASE, else asked for on a terminal."""
    from marketplace.client.keyfile import is_keystore

    if file is not None:
        return passphrase_of(file)
    if "WATT_PASSPHRASE" in os.environ:
        return os.environ["WATT_PASSPHRASE"]
    if not is_keystore(wallet) or not sys.stdin.isatty():
        return None
    import typer

    return str(typer.prompt(f"Passphrase of {wallet}", hide_input=True, err=True))
