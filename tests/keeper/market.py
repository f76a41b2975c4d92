"""A buyer, a provider with one node, and sessions between them, on a real chain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from marketplace.chain import calls
from marketplace.chain.calls import Call
from marketplace.keeper.follow import Follower
from marketplace.keeper.reconcile import Reconciler
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Open, Voucher
from marketplace.protocol.phases import JobPhase
from marketplace.protocol.transactions import TxRecord
from marketplace.registry import rules
from marketplace.store import events as chain_log
from marketplace.store import projection
from marketplace.store.engine import Store
from marketplace.store.tables import JobRow, OrderRow, ReceiptRow, Tx
from tests.hardhat import Chain, key

OWNER, NODE_KEY, SETTLER, BUYER, SESSION_KEY, RELAYER = (key(number) for number in range(1, 7))


class PowerCutError(BaseException):
    """Ends a turn as a power cut would: nobody catches it."""


@dataclass
class Cut:
    """A probe that cuts the power at its n-th call; -1 never does."""

    at: int = -1
    points: list[str] = field(default_factory=list)

    def __call__(self, point: str) -> None:
        self.points.append(point)
        if len(self.points) - 1 == self.at:
            raise PowerCutError(point)


@dataclass
class Told:
    """Remembers what a follower told; also proves that it was told inside the fold's transaction."""

    calls: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, tx: Tx, session_id: str, after_seq: int) -> None:
        assert tx.in_transaction()
        self.calls.append((session_id, after_seq))


class Market:
    """Short ways to what happens on-chain; each mines one block."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.node_id = chain.add_node(OWNER, NODE_KEY, SETTLER)
        chain.fund(BUYER, 10_000_000)
        chain.send(BUYER, calls.approve(chain.deployment, chain.deployment.escrow, 10**12))
        chain.send(BUYER, calls.faucet(chain.deployment, BUYER.address, 10**9))

    def deposit(self, atoms: int = 1000) -> TxRecord:
        return self.chain.send(BUYER, calls.deposit(self.chain.deployment, atoms))

    def open(self, atoms: int = 5000) -> Open:
        return self.chain.open_session(BUYER, SESSION_KEY, self.node_id, atoms)

    def settle(self, terms: Open, seq: int, atoms: int) -> TxRecord:
        return self.chain.send(SETTLER, self.settle_call(terms, seq, atoms))

    def settle_call(self, terms: Open, seq: int, atoms: int) -> Call:
        domain = self.chain.deployment.domain
        voucher = Voucher(
            session_id=terms.digest(domain), through_seq=seq, amount_atoms=atoms, receipts_root=bytes(32)
        )
        return calls.settle(self.chain.deployment, [(voucher, SESSION_KEY.sign(voucher, domain))])

    def id_of(self, terms: Open) -> str:
        return to_hex(terms.digest(self.chain.deployment.domain))

    def everything(self) -> Open:
        """At least one event of almost every kind."""
        here = self.chain.deployment
        first, second = self.open(), self.open(700)
        self.chain.send(BUYER, calls.top_up(here, first, 6000))
        self.chain.send(BUYER, calls.withdraw(here, 17, BUYER.address))
        self.settle(first, 2, 150)
        self.settle(first, 2, 150)
        self.settle(second, 1, 33)
        self.chain.send(OWNER, calls.collect(here, [self.node_id]))
        self.settle(first, 5, 400)
        self.chain.send(OWNER, calls.rotate_node_key(here, self.node_id, key(8).address, b"\x02" * 32))
        self.chain.send(OWNER, calls.request_unstake(here, 3))
        return first


def mirror(store: Store) -> dict[str, Any]:
    """What the store says the chain has; leaves out what the market promised."""
    with store.reading() as db:
        buyers, sessions, nodes = projection.known_keys(db)
        return {
            "events": chain_log.all_events(db),
            "cursor": chain_log.cursor(db),
            "accounts": projection.accounts(db, buyers),
            "sessions": {k: v for k, v in projection.sessions(db, sessions).items() if v["opened_block"]},
            "nodes": {k: v for k, v in projection.nodes(db, nodes).items() if v["epoch"]},
        }


def assert_is_the_chain(store: Store, chain: Chain, fresh: Store) -> None:
    """The store is what a follower would make of the chain from nothing, and what the contracts say."""
    follower = Follower(chain.client, fresh, Told())
    follower.step()
    assert mirror(store) == mirror(fresh)
    found = Reconciler(chain.client, store, follower.read_anew, Told()).step()
    assert found.block_number == chain.client.head().number
    assert found.differences == []


def plant_job(store: Store, session_id: str, seq: int, phase: JobPhase) -> str:
    """A job with its order and receipt, as dispatch leaves them."""
    job_id, order_hash = f"job_{session_id[44:50]}_{seq}", f"0x{seq:02x}{session_id[4:]}"
    common = {"job_id": job_id, "session_id": session_id, "seq": seq, "message": b"", "signature": b""}
    with store.transaction() as db:
        db.add(
            JobRow(
                job_id=job_id,
                key=SESSION_KEY.address,
                held=True,
                task="chat",
                model_id="0x",
                model_name="m",
                payload=b"",
                trace_id="t",
                phase=phase.value,
                order_hash=order_hash,
                created_at_ms=0,
                deadline_ms=0,
            )
        )
        db.add(
            OrderRow(
                **common,
                order_hash=order_hash,
                attempt=1,
                node_id=1,
                signer="0x",
                offer_hash="0x",
                salt=b"",
                max_amount_atoms=1,
                state="receipted",
                issued_at_ms=0,
                lease_until_ms=0,
            )
        )
        db.add(
            ReceiptRow(
                **common,
                order_hash=order_hash,
                receipt_id=job_id,
                annex=b"",
                amount_atoms=1,
                status=1,
                received_at_ms=0,
            )
        )
    return job_id


def job(store: Store, job_id: str) -> tuple[str, str | None]:
    with store.reading() as db:
        row = db.get(JobRow, job_id)
        assert row is not None
        return row.phase, row.settled_tx


def serving(store: Store, node_id: int, min_stake_atoms: int) -> bool:
    with store.reading() as db:
        columns = projection.nodes(db, {node_id})[node_id]
    return rules.is_serving(
        epoch=columns["epoch"], stake_atoms=columns["stake_atoms"], min_stake_atoms=min_stake_atoms
    )
