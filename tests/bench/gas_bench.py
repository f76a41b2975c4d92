"""The market that costs are measured on: one provider, fixed keys, salts and clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from marketplace.chain import calls
from marketplace.chain.calls import Call, SignedJob
from marketplace.protocol.batches import batch_of
from marketplace.protocol.hexes import keccak
from marketplace.protocol.messages import KeyGrant, Offer, Open, Order, Receipt, Voucher
from marketplace.protocol.signing import Signer
from tests.assure.figures import Figure
from tests.hardhat import Chain, key

START: Final = 1_900_000_000
DOLLAR: Final = 10**6

BUYER, OWNER, SETTLER, RELAYER = key(1), key(2), key(3), key(4)
AGENT = Signer(keccak(b"agent"))
NODE = Signer(keccak(b"node"))


@dataclass
class Bench:
    """A market with one provider, and the transactions it is measured by."""

    chain: Chain
    salts: Iterator[int] = field(default_factory=lambda: iter(range(1, 1_000_000)))

    def used(self, sender: Signer, call: Call) -> int:
        """Gas of a call."""
        record = self.chain.send(sender, call)
        seen = self.chain.client.tx_receipt(record.tx_hash)
        assert seen is not None
        assert seen.ok
        return seen.gas_used

    def terms(self, node_id: int, *, buyer: Signer = BUYER, agent: Signer = AGENT, dollars: int = 50) -> Open:
        """Terms of a session of a day."""
        return Open(
            buyer=buyer.address,
            key=agent.address,
            node_id=node_id,
            amount_atoms=dollars * DOLLAR,
            open_before=START + 40_000,
            expires_at=START + 80_000,
            salt=keccak(next(self.salts).to_bytes(32, "big")),
        )

    def opened(self, node_id: int, **parties: Any) -> Open:
        """A session that is open, paid for by its buyer's signature."""
        terms = self.terms(node_id, **parties)
        buyer = parties.get("buyer", BUYER)
        signed = buyer.sign(terms, self.chain.deployment.domain)
        self.chain.send(RELAYER, calls.open_sessions(self.chain.deployment, [(terms, signed)]))
        return terms

    def voucher(self, terms: Open, seq: int, atoms: int) -> Voucher:
        """An acceptance of everything up to `seq`."""
        session_id = terms.digest(self.chain.deployment.domain)
        root = keccak(b"receipts")
        return Voucher(session_id=session_id, through_seq=seq, amount_atoms=atoms, receipts_root=root)

    def settle(self, sessions: Sequence[tuple[Open, Signer]], seq: int, atoms: int) -> Call:
        """One settlement of the sessions' vouchers."""
        domain = self.chain.deployment.domain
        vouchers = [(self.voucher(terms, seq, atoms), agent) for terms, agent in sessions]
        return calls.settle(self.chain.deployment, [(v, agent.sign(v, domain)) for v, agent in vouchers])

    def batch(self, sessions: Sequence[Open], seq: int, atoms: int) -> Call:
        """One batch of the agent over its sessions."""
        vouchers = [self.voucher(terms, seq, atoms) for terms in sessions]
        signature = AGENT.sign(batch_of(vouchers), self.chain.deployment.domain)
        nodes = {terms.node_id for terms in sessions}
        return calls.settle_batch(self.chain.deployment, vouchers, AGENT.address, signature, nodes)

    def grant(self, **caps: Any) -> KeyGrant:
        """A grant of the agent that allows all that is measured."""
        values = {
            "buyer": BUYER.address,
            "key": AGENT.address,
            "per_session_atoms": 100 * DOLLAR,
            "per_day_atoms": 10_000 * DOLLAR,
            "total_atoms": 100_000 * DOLLAR,
            "expires_at": START + 80_000,
            "nodes_root": bytes(32),
            "nonce": 1,
            "valid_until": START + 40_000,
        }
        return KeyGrant(**(values | caps))

    def job(self, terms: Open, seq: int, offer: Offer, atoms: int = DOLLAR) -> SignedJob:
        """An order and its receipt, both signed."""
        domain = self.chain.deployment.domain
        order = Order(
            session_id=terms.digest(domain),
            seq=seq,
            offer_hash=offer.digest(domain),
            request_hash=keccak(b"request"),
            max_amount_atoms=5 * DOLLAR,
            issued_at_ms=START * 1000,
            deadline_ms=(START + 60) * 1000,
            reply_key=keccak(b"reply"),
        )
        receipt = Receipt(
            order_hash=order.digest(domain),
            response_hash=keccak(b"response"),
            exec_hash=keccak(b"annex"),
            units_in=120,
            units_out=300,
            amount_atoms=atoms,
            started_at_ms=START * 1000 + 50,
            finished_at_ms=START * 1000 + 900,
            energy_millijoules=4_000,
            status=1,
        )
        return SignedJob(
            order=order,
            order_signature=AGENT.sign(order, domain),
            receipt=receipt,
            receipt_signature=NODE.sign(receipt, domain),
        )


def offer_of(node_id: int) -> Offer:
    """What its jobs are priced by."""
    return Offer(
        node_id=node_id,
        model_id=keccak(b"model"),
        price_per_job_atoms=DOLLAR,
        price_in_per_million_atoms=DOLLAR,
        price_out_per_million_atoms=2 * DOLLAR,
        max_latency_ms=0,
        late_discount_bps=0,
        max_millijoules_per_million_out=0,
        valid_until=START + 40_000,
        salt=keccak(b"offer"),
    )


def gas_of(name: str, value: float, goal: str = "") -> Figure:
    """A cost."""
    return Figure(name=name, value=value, unit="gas", goal=goal)
