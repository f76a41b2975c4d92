"""Contracts and test money of a local market."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2

from marketplace.chain import calls
from marketplace.chain.calls import Call
from marketplace.chain.client import ChainClient
from marketplace.chain.deploy import DeployParams, deploy
from marketplace.chain.deployment import Deployment
from marketplace.chain.devkeys import HARDHAT_KEYS
from marketplace.chain.sender import MemoryJournal, Sender
from marketplace.local.market import SessionEntry, Wallet
from marketplace.local.probes import ask, http_json
from marketplace.protocol.errors import Broken, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Open
from marketplace.protocol.signing import Signer

ONE: Final = 1_000_000
PURSE_ATOMS: Final = 1_000 * ONE
DEPOSIT_ATOMS: Final = 100 * ONE
SESSION_ATOMS: Final = 5 * ONE
_SESSION_SECONDS: Final = 12 * 3_600
_OPEN_WITHIN_SECONDS: Final = 600
_DEPLOYER, _RELAYER, _FIRST_OWNER, _FIRST_BUYER, _TREASURY = 0, 1, 2, 8, 19


def wallet(index: int) -> Wallet:
    """One of the development chain's funded wallets."""
    key = HARDHAT_KEYS[index]
    return Wallet(address=Signer(key).address, private_key=key)


def relayer() -> Wallet:
    """Sends the gateway's transactions."""
    return wallet(_RELAYER)


def owner(position: int) -> Wallet:
    """Provider of the node at a position, from 0."""
    return wallet(_FIRST_OWNER + position)


def buyers(count: int = 3) -> list[Wallet]:
    """Wallets of buyers; the first is the demo's."""
    return [wallet(_FIRST_BUYER + i) for i in range(count)]


def deploy_local(rpc_url: str, path: Path) -> Deployment:
    """Contracts on a fresh development chain."""
    params = DeployParams.local(wallet(_TREASURY).address)
    return deploy(rpc_url, Signer(HARDHAT_KEYS[_DEPLOYER]), params, path=path)


def fund(client: ChainClient, addresses: list[str]) -> None:
    """Gives each address a purse of test dollars."""
    bank = _sender(client, HARDHAT_KEYS[_DEPLOYER])
    for address in addresses:
        bank.send_and_wait(f"faucet:{address}", calls.faucet(client.deployment, address, PURSE_ATOMS))


def deposit(client: ChainClient, buyer: Wallet, amount_atoms: int) -> None:
    """Puts part of a purse into the buyer's account."""
    sender, here = _sender(client, buyer.private_key), client.deployment
    steps: list[tuple[str, Call]] = [
        ("approve", calls.approve(here, here.escrow, amount_atoms)),
        ("deposit", calls.deposit(here, amount_atoms)),
    ]
    for name, call in steps:
        sender.send_and_wait(f"{name}:{buyer.address}", call)


@dataclass(slots=True)
class Opening:
    """An API key of the gateway and the sessions it may spend from."""

    gateway_url: str
    deployment: Deployment
    buyer: Wallet
    api_key: str = field(default="", repr=False)
    key_address: str = ""
    sessions: list[SessionEntry] = field(default_factory=list)

    def create_key(self) -> None:
        """Asks the gateway for a key; it can spend nothing until a session names it."""
        made = self._post("/v1/keys", {"label": "demo"})
        self.api_key, self.key_address = made["api_key"], made["address"]

    def open(self, node_ids: list[int], amount_atoms: int) -> None:
        """Signs one session a node for the key and hands them to the gateway."""
        for node_id in node_ids:
            terms = self._terms(node_id, amount_atoms)
            signature = Signer(self.buyer.private_key).sign(terms, self.deployment.domain)
            made = self._post("/v1/sessions", {"open": terms.to_json(), "signature": to_hex(signature)})
            self.sessions.append(
                SessionEntry(
                    session_id=made["session_id"],
                    node_id=node_id,
                    deposited_atoms=amount_atoms,
                    expires_at=terms.expires_at,
                )
            )

    def waiting(self) -> Iterator[str]:
        """Ids of sessions the gateway does not yet know as open."""
        for session in self.sessions:
            known = http_json(f"{self.gateway_url}/v1/sessions/{session.session_id}")
            if not isinstance(known, dict) or known.get("status") != "open":
                yield session.session_id

    def _terms(self, node_id: int, amount_atoms: int) -> Open:
        now = int(time.time())
        longest = self.deployment.max_session_seconds - _OPEN_WITHIN_SECONDS
        return Open(
            buyer=self.buyer.address,
            key=self.key_address,
            node_id=node_id,
            amount_atoms=amount_atoms,
            open_before=now + _OPEN_WITHIN_SECONDS,
            expires_at=now + min(_SESSION_SECONDS, longest),
            salt=secrets.token_bytes(32),
        )

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = ask("POST", self.gateway_url + path, json=body)
        except httpx2.HTTPError as error:
            raise Broken(ErrorCode.NOT_READY, f"the gateway does not answer {path}: {error}") from error
        if not answer.is_success:
            raise Broken(ErrorCode.INTERNAL, f"{path} answered {answer.status_code}: {answer.text[:300]}")
        found: dict[str, Any] = answer.json()
        return found


def _sender(client: ChainClient, key: str) -> Sender:
    return Sender(client, Signer(key), MemoryJournal(), _now_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
