"""A buyer's wallet: money into its account in the escrow, and out again. Sends its own transactions."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from marketplace.chain import calls
from marketplace.chain.client import ChainClient
from marketplace.chain.deployment import Deployment
from marketplace.chain.devkeys import is_local
from marketplace.chain.sender import MemoryJournal, Sender
from marketplace.client.connect import connect
from marketplace.client.keyfile import load_key
from marketplace.client.views import system_ms
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.money import format_atoms, parse_atoms
from marketplace.protocol.signing import Signer
from marketplace.protocol.transactions import TxRecord

_FAUCET_TOKENS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What a buyer has: free in its account, in its own hands, and gas to pay transactions with."""

    account_atoms: int
    token_atoms: int
    gas_wei: int


class Sent(StrEnum):
    """What became of a transaction, as far as the RPC node knows."""

    MINED = "mined"
    REVERTED = "reverted"
    WAITING = "waiting"
    UNKNOWN = "unknown"


class BuyerWallet:
    """One buyer key on one chain.

    Args:
        chain: already checked to be the deployment's.
        now_ms: Unix milliseconds, for the transaction journal.
        sleep: seconds between looks at a transaction.
    """

    def __init__(
        self,
        signer: Signer,
        chain: ChainClient,
        now_ms: Callable[[], int] = system_ms,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.signer, self.chain = signer, chain
        self._sender = Sender(chain, signer, MemoryJournal(), now_ms, sleep=sleep)

    @classmethod
    def open(
        cls,
        key: Signer | Path | str,
        rpc_url: str,
        deployment: Path | Deployment,
        passphrase: str | None = None,
    ) -> Self:
        """A wallet of a signer, a key file, or a private key in hex.

        Raises:
            BadRequest: the key file or deployment cannot be read.
            ChainTrouble: the RPC does not answer, or is of another chain.
        """
        if isinstance(key, Path):
            signer = load_key(key, passphrase)
        else:
            signer = Signer(key) if isinstance(key, str) else key
        return cls(signer, connect(rpc_url, deployment))

    @property
    def address(self) -> str:
        """Who this wallet is."""
        return self.signer.address

    @property
    def deployment(self) -> Deployment:
        """Contracts this wallet deals with."""
        return self.chain.deployment

    def balance(self) -> Balance:
        """Money now."""
        return Balance(
            account_atoms=self.chain.account_atoms(self.address),
            token_atoms=self.chain.token_balance_atoms(self.address),
            gas_wei=self.chain.eth_balance_wei(self.address),
        )

    def became_of(self, tx_hash: bytes) -> tuple[Sent, int | None]:
        """What became of a transaction of anybody, and its block."""
        seen = self.chain.tx_receipt(tx_hash)
        if seen is not None:
            return Sent.MINED if seen.ok else Sent.REVERTED, seen.block_number
        return Sent.WAITING if self.chain.knows(tx_hash) else Sent.UNKNOWN, None

    def faucet(self, amount: str) -> TxRecord:
        """Mints test money; on local chains only.

        Raises:
            BadRequest: the chain's money is real, or more than 1,000,000 at once.
        """
        if not is_local(self.deployment.chain_id):
            raise BadRequest(
                ErrorCode.UNSUPPORTED, "Only a local chain has a faucet.", hint="Buy or bridge tokens."
            )
        atoms = self.atoms(amount, most=_FAUCET_TOKENS * 10**self.deployment.token_decimals)
        return self.send(calls.faucet(self.deployment, self.address, atoms))

    def deposit(self, amount: str) -> TxRecord:
        """Moves tokens into the account; approves the escrow first where it must.

        Raises:
            BadRequest: fewer tokens or less gas than that needs.
        """
        atoms = self.atoms(amount, most=self.chain.token_balance_atoms(self.address))
        self.approve(self.deployment.escrow, atoms)
        return self.send(calls.deposit(self.deployment, atoms))

    def withdraw(self, amount: str, to: str | None = None) -> TxRecord:
        """Takes money out of the account at once; what sessions hold stays there.

        Raises:
            BadRequest: more than the account holds.
        """
        atoms = self.atoms(amount, most=self.chain.account_atoms(self.address))
        return self.send(calls.withdraw(self.deployment, atoms, to or self.address))

    def send(self, call: calls.Call) -> TxRecord:
        """Sends a transaction of this wallet and waits for the chain.

        Raises:
            BadRequest: it would revert, or did; or there is too little for the gas.
            ChainTrouble: not confirmed in time; `became_of` its `tx_hash` tells whether to repeat it.
        """
        return self._sender.send_and_wait(f"wallet:{uuid.uuid4()}", call)

    def approve(self, spender: str, atoms: int) -> None:
        """Lets a contract of this deployment take so much, unless it may already."""
        if self.chain.allowance_atoms(self.address, spender) < atoms:
            self.send(calls.approve(self.deployment, spender, atoms))

    def atoms(self, amount: str, *, most: int) -> int:
        """Atoms of an amount between one atom and `most`."""
        atoms, decimals = parse_atoms(amount, self.deployment.token_decimals), self.deployment.token_decimals
        if not 0 < atoms <= most:
            wanted, there = format_atoms(atoms, decimals), format_atoms(most, decimals)
            raise BadRequest(
                ErrorCode.SESSION_UNDERFUNDED if atoms else ErrorCode.INVALID_REQUEST,
                f"{wanted} {self.deployment.token_symbol} cannot move; there is {there}.",
                hint="Name an amount above zero, up to what is there: watt wallet show",
            )
        return atoms
