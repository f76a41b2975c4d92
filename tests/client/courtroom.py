"""A node, its buyer and five jurors on a real chain, with jobs signed as in life."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from marketplace.chain import calls
from marketplace.chain.calls import SignedJob
from marketplace.client.bundle import Bundle
from marketplace.client.disputes import Disputes
from marketplace.client.journal import Journal, Session, SessionUse
from marketplace.client.wallet import BuyerWallet
from marketplace.protocol.hexes import keccak
from marketplace.protocol.messages import Offer, Open, Order, Receipt
from marketplace.protocol.signing import Signer
from tests.hardhat import Chain, key

BUYER, OWNER, SETTLER, JURORS = key(8), key(2), key(3), [key(i) for i in range(10, 15)]
NODE_KEY = Signer(keccak(b"node of the courtroom"))
PRICE_ATOMS = 1_000
MAX_ATOMS = 10 * PRICE_ATOMS


@dataclass
class Courtroom:
    """One session of 1,000,000 atoms between BUYER and a node of OWNER."""

    chain: Chain
    node_id: int = field(init=False)
    terms: Open = field(init=False)

    def __post_init__(self) -> None:
        self.chain.fund(BUYER, 20_000_000)
        self.chain.send(BUYER, calls.faucet(self.chain.deployment, BUYER.address, 20_000_000))
        self.node_id = self.chain.add_node(OWNER, NODE_KEY, SETTLER)
        self.terms = self.chain.open_session(BUYER, BUYER, self.node_id, 1_000_000)

    @property
    def session_id(self) -> bytes:
        return self.terms.digest(self.chain.deployment.domain)

    def wallet(self, signer: Signer) -> BuyerWallet:
        return BuyerWallet(signer, self.chain.client, self.chain.now_ms)

    def disputes(self, signer: Signer = BUYER) -> Disputes:
        return Disputes(self.wallet(signer))

    def staked(self) -> int:
        return self.chain.client.provider(OWNER.address).staked_atoms

    def account(self) -> int:
        return self.chain.client.account_atoms(BUYER.address)

    def bundle(self, seq: int = 1, amount: int = PRICE_ATOMS, response: bytes = b"an answer") -> Bundle:
        """One finished job; the price of its offer is `PRICE_ATOMS`."""
        domain, now = self.chain.deployment.domain, self.chain.now_ms()
        offer = Offer(
            node_id=self.node_id,
            model_id=keccak(b"model"),
            price_per_job_atoms=PRICE_ATOMS,
            price_in_per_million_atoms=0,
            price_out_per_million_atoms=0,
            max_latency_ms=0,
            late_discount_bps=0,
            max_millijoules_per_million_out=0,
            valid_until=now // 1000 + 600,
            salt=bytes(32),
        )
        order = Order(
            session_id=self.session_id,
            seq=seq,
            offer_hash=offer.digest(domain),
            request_hash=keccak(b"request"),
            max_amount_atoms=MAX_ATOMS,
            issued_at_ms=now,
            deadline_ms=now + 60_000,
            reply_key=b"\x01" * 32,
        )
        receipt = Receipt(
            order_hash=order.digest(domain),
            response_hash=keccak(response),
            exec_hash=keccak(b"annex"),
            units_in=1,
            units_out=1,
            amount_atoms=amount,
            started_at_ms=now,
            finished_at_ms=now,
            energy_millijoules=0,
            status=1,
        )
        return Bundle(
            domain=domain,
            offer=offer,
            offer_signature=NODE_KEY.sign(offer, domain),
            order=order,
            order_signature=BUYER.sign(order, domain),
            key=BUYER.address,
            receipt=receipt,
            receipt_signature=NODE_KEY.sign(receipt, domain),
            annex=b"annex",
            salt=bytes(32),
            payload=b"request",
            chunks=(response,),
            node_id=self.node_id,
            signer=NODE_KEY.address,
            epoch=1,
            settlement=None,
            trace_id="00" * 16,
            job_id="",
            receipt_id="",
        )

    def again(self, bundle: Bundle) -> Bundle:
        """The same order with another answer, signed by the node a second time."""
        other = dataclasses.replace(bundle.receipt, response_hash=keccak(b"another answer"))
        signature = NODE_KEY.sign(other, bundle.domain)
        return dataclasses.replace(bundle, receipt=other, receipt_signature=signature)

    def claim(self, *bundles: Bundle) -> None:
        """The node claims these jobs without a voucher."""
        jobs = [
            SignedJob(
                order=b.order,
                order_signature=b.order_signature,
                receipt=b.receipt,
                receipt_signature=b.receipt_signature,
            )
            for b in bundles
        ]
        self.chain.send(SETTLER, calls.claim(self.chain.deployment, self.terms, jobs))

    def enrol_jurors(self) -> None:
        """Jurors with enough stake to be drawn soon."""
        here = self.chain.deployment
        stake = 80_000_000
        for juror in JURORS:
            self.chain.send(juror, calls.register(here, ""))
            self.chain.send(juror, calls.faucet(here, juror.address, 2 * stake))
            self.chain.send(juror, calls.approve(here, here.registry, stake))
            self.chain.send(juror, calls.stake(here, stake))
            self.disputes(juror).enrol("5")

    def seat_jurors(self, case_id: bytes) -> list[Signer]:
        """Draws until three sit."""
        by_address = {juror.address: juror for juror in JURORS}
        for _ in range(8):
            self.chain.node.mine(2)
            self.disputes().advance(case_id)
            seats = self.disputes().show(case_id).seats
            if len(seats) == 3:
                return [by_address[seat.juror] for seat in seats]
        raise AssertionError("no three jurors were drawn")


def journal_with(room: Courtroom, *jobs: Bundle, path: Path | str = ":memory:") -> Journal:
    """A buyer's journal with these orders, of which nothing came back."""
    journal = Journal(path)
    journal.put_session(
        Session(
            session_id=room.session_id,
            key=BUYER.address,
            node_id=room.node_id,
            terms=room.terms,
            deposited_atoms=room.terms.amount_atoms,
            expires_at=room.terms.expires_at,
            key_epoch=1,
            signer=NODE_KEY.address,
            use=SessionUse.OPEN,
        )
    )
    for job in jobs:
        seq = journal.take_seat(room.session_id, job.order.max_amount_atoms, job.order.deadline_ms)
        assert seq == job.order.seq
        journal.write_order(job.order, job.order_signature)
    return journal
