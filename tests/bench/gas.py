"""What calls of the contracts cost: whole transactions on a local chain, sent as the market sends them.

Every figure is `gasUsed` of a real transaction: the base of 21,000, calldata and the EIP-2930 access list
that our own client adds are in it. The token is OpenZeppelin's ERC-20 (TestDollar). Keys, salts and the
chain's clock are fixed, so the same code gives the same figures to the unit. *Steady* means that balances and
counters are not zero any more: what a market pays from the second time on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from marketplace.chain import calls, disputes, models, till
from marketplace.chain.calls import Call, SignedJob
from marketplace.chain.disputes import Evidence
from marketplace.chain.tokens import token_domain
from marketplace.protocol import nodelist
from marketplace.protocol.batches import batch_of
from marketplace.protocol.hexes import keccak
from marketplace.protocol.messages import KeyGrant, Offer, Open, Order, Receipt, Voucher
from marketplace.protocol.quotes import Quote
from marketplace.protocol.signing import Signer
from marketplace.protocol.tokens import TransferWithAuthorization
from tests.assure.figures import Figure, Part, table
from tests.assure.report import write
from tests.hardhat import Chain, HardhatNode, deploy_on, key

ROOT: Final = Path(__file__).resolve().parents[2]
SNAPSHOT: Final = Path(__file__).with_name("gas.json")
START: Final = 1_900_000_000
DOLLAR: Final = 10**6
MANY: Final = 100

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


def accounts(bench: Bench) -> Iterator[Figure]:
    """In and out of an account."""
    here, chain = bench.chain.deployment, bench.chain
    chain.send(BUYER, calls.faucet(here, BUYER.address, 1_000_000 * DOLLAR))
    chain.send(BUYER, calls.approve(here, here.escrow, 2**128 - 1))
    yield _gas("deposit, first", bench.used(BUYER, calls.deposit(here, 100 * DOLLAR)))
    yield _gas("deposit, steady", bench.used(BUYER, calls.deposit(here, 100_000 * DOLLAR)))
    withdrawal = calls.withdraw(here, DOLLAR, BUYER.address)
    yield _gas("withdraw, steady", bench.used(BUYER, withdrawal))


def one_job(bench: Bench, node_id: int) -> Iterator[Figure]:
    """One job alone: a session is opened for it and settled once."""
    here, domain = bench.chain.deployment, bench.chain.deployment.domain
    warm = bench.opened(node_id)
    bench.used(SETTLER, bench.settle([(warm, AGENT)], 1, DOLLAR))
    terms = bench.terms(node_id)
    opening = bench.used(BUYER, calls.open_sessions(here, [(terms, b"")]))
    settling = bench.used(SETTLER, bench.settle([(terms, AGENT)], 1, 123_456))
    yield _gas("open, sent by the buyer", opening)
    yield _gas("settle one session, its first time", settling)
    yield _gas("one job alone, sent by the buyer", opening + settling, "≤ 100000")
    yield _gas("grant a key, by transaction", bench.used(BUYER, calls.set_key(here, bench.grant())))
    relayed = 0
    for _ in range(2):
        terms = bench.terms(node_id)
        call = calls.open_sessions(here, [(terms, AGENT.sign(terms, domain))])
        relayed = bench.used(RELAYER, call)
    yield _gas("open, relayed for a key", relayed)
    settling = bench.used(SETTLER, bench.settle([(terms, AGENT)], 1, 123_456))
    yield _gas("one job alone, relayed for a key", relayed + settling, "≤ 115000")
    top_up = calls.top_up(here, terms, 60 * DOLLAR)
    yield _gas("top up a session from the account", bench.used(BUYER, top_up), "≤ 50000")
    listed = [node_id, *range(1_000, 1_015)]
    grant = bench.grant(nodes_root=nodelist.root(listed), nonce=7)
    call = calls.set_key_by_signature(here, grant, BUYER.sign(grant, domain))
    yield _gas("grant a key, relayed, with a list of nodes", bench.used(RELAYER, call))
    terms = bench.terms(node_id)
    signature = AGENT.sign(terms, domain) + nodelist.proof(listed, node_id)
    call = calls.open_sessions(here, [(terms, signature)])
    yield _gas("open, relayed for a key with 16 nodes listed", bench.used(RELAYER, call))
    yield _gas("revoke a key", bench.used(BUYER, calls.revoke_key(here, AGENT.address)))


def one_session(bench: Bench, node_id: int) -> Iterator[Figure]:
    """A session settled again and again; the number of jobs makes no difference."""
    terms = bench.opened(node_id)
    bench.used(SETTLER, bench.settle([(terms, AGENT)], 1, DOLLAR))
    few = bench.settle([(terms, AGENT)], 2, 2 * DOLLAR + 1)
    before = bench.used(SETTLER, few)
    yield _gas("settle one session, steady", before, "≤ 42000")
    many = bench.settle([(terms, AGENT)], 1_000_002, 3 * DOLLAR + 1)
    after = bench.used(SETTLER, many)
    calldata = _calldata_gas(many.data) - _calldata_gas(few.data)
    yield _gas("growth of it from 1 job to 1,000,000 jobs", after - before, "≤ 100")
    yield _gas("  of which for longer numbers in calldata", calldata)
    yield Figure(name="new storage slots per job", value=_new_slots(bench, terms), goal="= 0")


def many_sessions(bench: Bench, node_id: int) -> Iterator[Figure]:
    """One transaction over a hundred sessions."""
    here = bench.chain.deployment
    sessions: list[tuple[Open, Signer]] = []
    for number in range(MANY):
        buyer, agent = Signer(keccak(b"buyer%d" % number)), Signer(keccak(b"agent%d" % number))
        bench.chain.node.set_balance(buyer.address, 10**18)
        bench.chain.fund(buyer, 60 * DOLLAR)
        sessions.append((bench.opened(node_id, buyer=buyer, agent=agent), agent))
    bench.used(SETTLER, bench.settle(sessions, 1, DOLLAR))
    whole = bench.used(SETTLER, bench.settle(sessions, 1_000, 3_456_789))
    yield _gas("settle 100 sessions of 100 buyers, each", _each(whole), "≤ 13500")

    same = [bench.opened(node_id, dollars=5) for _ in range(MANY)]
    bench.used(SETTLER, bench.batch(same, 1, DOLLAR))
    whole = bench.used(SETTLER, bench.batch(same, 1_000, 3_456_789))
    yield _gas("batch of one key, 100 sessions, one node, each", _each(whole), "≤ 6500")
    whole = bench.used(SETTLER, bench.batch(same, 1_001_000, 3_456_790))
    yield _gas("  the same for 1,000,000 jobs more each", _each(whole))

    apart = [bench.opened(bench.chain.add_node(OWNER, NODE, SETTLER), dollars=5) for _ in range(MANY - 1)]
    apart.append(bench.opened(node_id, dollars=5))
    bench.used(SETTLER, bench.batch(apart, 1, DOLLAR))
    whole = bench.used(SETTLER, bench.batch(apart, 1_000, 3_456_789))
    yield _gas("batch of one key, 100 sessions, 100 nodes, each", _each(whole), "≤ 12000")
    yield _gas("collect a node's earnings", bench.used(RELAYER, calls.collect(here, [node_id])))


def disputes_of(bench: Bench, node_id: int) -> Iterator[Figure]:
    """Claims, and faults that two signatures prove."""
    here, chain = bench.chain.deployment, bench.chain
    domain = here.domain
    chain.send(OWNER, calls.faucet(here, OWNER.address, 1_000 * DOLLAR))
    chain.send(OWNER, calls.approve(here, here.registry, 1_000 * DOLLAR))
    chain.send(OWNER, calls.stake(here, 1_000 * DOLLAR))
    offer = _offer(node_id)
    for count in (1, 10):
        terms = bench.opened(node_id)
        jobs = [bench.job(terms, seq, offer) for seq in range(1, count + 1)]
        yield _gas(f"claim {count} receipts", bench.used(SETTLER, calls.claim(here, terms, jobs)))
    for again in ("first", "steady"):
        terms = bench.opened(node_id)
        job = bench.job(terms, 1, offer)
        evidence = Evidence(
            terms=terms, order=job.order, receipt=job.receipt, signature=job.receipt_signature
        )
        second = bench.job(terms, 1, offer, atoms=2 * DOLLAR)
        call = disputes.prove_two_receipts(here, evidence, second.receipt, second.receipt_signature)
        goal = "≤ 90000" if again == "steady" else ""
        yield _gas(f"prove two receipts for one order, {again}", bench.used(RELAYER, call), goal)
        job = bench.job(terms, 2, offer, atoms=4 * DOLLAR)
        dear = Evidence(terms=terms, order=job.order, receipt=job.receipt, signature=job.receipt_signature)
        goal = "≤ 90000" if again == "steady" else ""
        overcharge = bench.used(RELAYER, disputes.prove_overcharge(here, dear, offer))
        yield _gas(f"prove an overcharge, {again}", overcharge, goal)
    award = disputes.pay_award(here, evidence.order.digest(domain))
    yield _gas("pay a proof's award", bench.used(RELAYER, award))


def names_of(bench: Bench) -> Iterator[Figure]:
    """Models, published and named; nothing of it touches money."""
    here, first, second = bench.chain.deployment, keccak(b"first model"), keccak(b"second model")
    place = "https://models.example/tiny"
    yield _gas("publish a model", bench.used(OWNER, models.publish(here, first, place)))
    bench.used(OWNER, models.publish(here, second, place))
    yield _gas("release a version, new name", bench.used(OWNER, models.release(here, "tiny", "1.0", first)))
    yield _gas("release a version, own name", bench.used(OWNER, models.release(here, "tiny", "1.1", second)))
    bench.used(OWNER, models.point(here, "tiny", "latest", first))
    yield _gas("point a channel elsewhere", bench.used(OWNER, models.point(here, "tiny", "latest", second)))


def payments_of(bench: Bench, node_id: int) -> Iterator[Figure]:
    """One job of somebody without an account: all that its relayer pays for."""
    here, now = bench.chain.deployment, bench.chain.now()
    quote = Quote(
        node_id=node_id,
        offer_hash=keccak(b"offer"),
        request_hash=keccak(b"request"),
        key=AGENT.address,
        amount_atoms=DOLLAR,
        pay_before=now + 600,
        expires_at=now + 900,
        salt=keccak(b"quote"),
    )
    signed = TransferWithAuthorization(
        payer=BUYER.address,
        to=till.receiver_of(here, quote),
        value_atoms=DOLLAR,
        valid_after=0,
        valid_before=now + 600,
        nonce=keccak(b"nonce"),
    )
    paid = till.Paid(
        payer=BUYER.address,
        value_atoms=DOLLAR,
        valid_after=0,
        valid_before=now + 600,
        nonce=signed.nonce,
        signature=BUYER.sign(signed, token_domain(bench.chain.client, here.token)),
    )
    yield _gas("take a payment without an account", bench.used(RELAYER, till.pay(here, quote, paid)))
    bench.chain.node.increase_time(900 + here.grace_seconds)
    yield _gas("refund what it left", bench.used(RELAYER, till.refund(here, quote)))


def measure() -> list[Figure]:
    """Every figure, on a fresh chain of their own."""
    with _bench() as bench:
        node_id = bench.chain.add_node(OWNER, NODE, SETTLER)
        figures = [*accounts(bench), *one_job(bench, node_id), *one_session(bench, node_id)]
        figures += many_sessions(bench, node_id)
        figures += [*disputes_of(bench, node_id), *names_of(bench)]
        return [*figures, *payments_of(bench, node_id)]


def main(arguments: Iterable[str]) -> int:
    """Prints the table and writes `build/gas.json`; 0 when every goal is met."""
    parser = argparse.ArgumentParser(prog="scripts/gas", description=__doc__)
    parser.add_argument("--accept", action="store_true", help="make these the figures that tests expect")
    options = parser.parse_args(list(arguments))
    part = Part(name="gas", figures=tuple(measure()), seconds=0)
    print(table([part]))
    print(f"written to {write('gas', [part]).relative_to(ROOT)}")
    if options.accept:
        exact = {figure.name: figure.value for figure in part.figures}
        SNAPSHOT.write_text(json.dumps(exact, indent=1, ensure_ascii=False) + "\n")
    return 0 if part.met else 1


@contextmanager
def _bench() -> Iterator[Bench]:
    with HardhatNode() as node:
        node.set_next_timestamp(START)
        yield Bench(deploy_on(node))


def _offer(node_id: int) -> Offer:
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


def _new_slots(bench: Bench, terms: Open) -> int:
    """Storage words that a settlement of a thousand jobs more makes non-zero."""
    chain = bench.chain
    record = chain.send(SETTLER, bench.settle([(terms, AGENT)], 1_001_002, 4 * DOLLAR))
    trace = chain.node.rpc.read("debug_traceTransaction", "0x" + record.tx_hash.hex())
    before = hex((record.block_number or 0) - 1)
    stored = {log["stack"][-1] for log in trace["structLogs"] if log["op"] == "SSTORE"}
    assert stored
    words = [_storage(chain, "0x" + slot.removeprefix("0x").rjust(64, "0"), before) for slot in stored]
    return words.count(0)


def _storage(chain: Chain, slot: str, block: str) -> int:
    return int(chain.node.rpc.read("eth_getStorageAt", chain.deployment.escrow, slot, block), 16)


def _calldata_gas(data: bytes) -> int:
    return sum(16 if byte else 4 for byte in data)


def _each(whole: int) -> float:
    return whole / MANY


def _gas(name: str, value: float, goal: str = "") -> Figure:
    return Figure(name=name, value=value, unit="gas", goal=goal)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
