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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from marketplace.chain import calls, disputes, models
from marketplace.chain.disputes import Evidence
from marketplace.protocol import nodelist
from marketplace.protocol.hexes import keccak
from marketplace.protocol.messages import Open
from marketplace.protocol.signing import Signer
from tests.assure.figures import Figure, Part, table
from tests.assure.report import write
from tests.bench.gas_bench import (
    AGENT,
    BUYER,
    DOLLAR,
    NODE,
    OWNER,
    RELAYER,
    SETTLER,
    START,
    Bench,
    gas_of,
    offer_of,
)
from tests.bench.gas_payments import payments_of
from tests.hardhat import Chain, HardhatNode, deploy_on

ROOT: Final = Path(__file__).resolve().parents[2]
SNAPSHOT: Final = Path(__file__).with_name("gas.json")
MANY: Final = 100


def accounts(bench: Bench) -> Iterator[Figure]:
    """In and out of an account."""
    here, chain = bench.chain.deployment, bench.chain
    chain.send(BUYER, calls.faucet(here, BUYER.address, 1_000_000 * DOLLAR))
    chain.send(BUYER, calls.approve(here, here.escrow, 2**128 - 1))
    yield gas_of("deposit, first", bench.used(BUYER, calls.deposit(here, 100 * DOLLAR)))
    yield gas_of("deposit, steady", bench.used(BUYER, calls.deposit(here, 100_000 * DOLLAR)))
    withdrawal = calls.withdraw(here, DOLLAR, BUYER.address)
    yield gas_of("withdraw, steady", bench.used(BUYER, withdrawal))


def one_job(bench: Bench, node_id: int) -> Iterator[Figure]:
    """One job alone: a session is opened for it and settled once."""
    here, domain = bench.chain.deployment, bench.chain.deployment.domain
    warm = bench.opened(node_id)
    bench.used(SETTLER, bench.settle([(warm, AGENT)], 1, DOLLAR))
    terms = bench.terms(node_id)
    opening = bench.used(BUYER, calls.open_sessions(here, [(terms, b"")]))
    settling = bench.used(SETTLER, bench.settle([(terms, AGENT)], 1, 123_456))
    yield gas_of("open, sent by the buyer", opening)
    yield gas_of("settle one session, its first time", settling)
    yield gas_of("one job alone, sent by the buyer", opening + settling, "≤ 100000")
    yield gas_of("grant a key, by transaction", bench.used(BUYER, calls.set_key(here, bench.grant())))
    relayed = 0
    for _ in range(2):
        terms = bench.terms(node_id)
        call = calls.open_sessions(here, [(terms, AGENT.sign(terms, domain))])
        relayed = bench.used(RELAYER, call)
    yield gas_of("open, relayed for a key", relayed)
    settling = bench.used(SETTLER, bench.settle([(terms, AGENT)], 1, 123_456))
    yield gas_of("one job alone, relayed for a key", relayed + settling, "≤ 115000")
    top_up = calls.top_up(here, terms, 60 * DOLLAR)
    yield gas_of("top up a session from the account", bench.used(BUYER, top_up), "≤ 50000")
    listed = [node_id, *range(1_000, 1_015)]
    grant = bench.grant(nodes_root=nodelist.root(listed), nonce=7)
    call = calls.set_key_by_signature(here, grant, BUYER.sign(grant, domain))
    yield gas_of("grant a key, relayed, with a list of nodes", bench.used(RELAYER, call))
    terms = bench.terms(node_id)
    signature = AGENT.sign(terms, domain) + nodelist.proof(listed, node_id)
    call = calls.open_sessions(here, [(terms, signature)])
    yield gas_of("open, relayed for a key with 16 nodes listed", bench.used(RELAYER, call))
    yield gas_of("revoke a key", bench.used(BUYER, calls.revoke_key(here, AGENT.address)))


def one_session(bench: Bench, node_id: int) -> Iterator[Figure]:
    """A session settled again and again; the number of jobs makes no difference."""
    terms = bench.opened(node_id)
    bench.used(SETTLER, bench.settle([(terms, AGENT)], 1, DOLLAR))
    few = bench.settle([(terms, AGENT)], 2, 2 * DOLLAR + 1)
    before = bench.used(SETTLER, few)
    yield gas_of("settle one session, steady", before, "≤ 42000")
    many = bench.settle([(terms, AGENT)], 1_000_002, 3 * DOLLAR + 1)
    after = bench.used(SETTLER, many)
    calldata = _calldata_gas(many.data) - _calldata_gas(few.data)
    yield gas_of("growth of it from 1 job to 1,000,000 jobs", after - before, "≤ 100")
    yield gas_of("  of which for longer numbers in calldata", calldata)
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
    yield gas_of("settle 100 sessions of 100 buyers, each", _each(whole), "≤ 13500")

    same = [bench.opened(node_id, dollars=5) for _ in range(MANY)]
    bench.used(SETTLER, bench.batch(same, 1, DOLLAR))
    whole = bench.used(SETTLER, bench.batch(same, 1_000, 3_456_789))
    yield gas_of("batch of one key, 100 sessions, one node, each", _each(whole), "≤ 6500")
    whole = bench.used(SETTLER, bench.batch(same, 1_001_000, 3_456_790))
    yield gas_of("  the same for 1,000,000 jobs more each", _each(whole))

    apart = [bench.opened(bench.chain.add_node(OWNER, NODE, SETTLER), dollars=5) for _ in range(MANY - 1)]
    apart.append(bench.opened(node_id, dollars=5))
    bench.used(SETTLER, bench.batch(apart, 1, DOLLAR))
    whole = bench.used(SETTLER, bench.batch(apart, 1_000, 3_456_789))
    yield gas_of("batch of one key, 100 sessions, 100 nodes, each", _each(whole), "≤ 12000")
    yield gas_of("collect a node's earnings", bench.used(RELAYER, calls.collect(here, [node_id])))


def disputes_of(bench: Bench, node_id: int) -> Iterator[Figure]:
    """Claims, and faults that two signatures prove."""
    here, chain = bench.chain.deployment, bench.chain
    domain = here.domain
    chain.send(OWNER, calls.faucet(here, OWNER.address, 1_000 * DOLLAR))
    chain.send(OWNER, calls.approve(here, here.registry, 1_000 * DOLLAR))
    chain.send(OWNER, calls.stake(here, 1_000 * DOLLAR))
    offer = offer_of(node_id)
    for count in (1, 10):
        terms = bench.opened(node_id)
        jobs = [bench.job(terms, seq, offer) for seq in range(1, count + 1)]
        yield gas_of(f"claim {count} receipts", bench.used(SETTLER, calls.claim(here, terms, jobs)))
    for again in ("first", "steady"):
        terms = bench.opened(node_id)
        job = bench.job(terms, 1, offer)
        evidence = Evidence(
            terms=terms, order=job.order, receipt=job.receipt, signature=job.receipt_signature
        )
        second = bench.job(terms, 1, offer, atoms=2 * DOLLAR)
        call = disputes.prove_two_receipts(here, evidence, second.receipt, second.receipt_signature)
        goal = "≤ 90000" if again == "steady" else ""
        yield gas_of(f"prove two receipts for one order, {again}", bench.used(RELAYER, call), goal)
        job = bench.job(terms, 2, offer, atoms=4 * DOLLAR)
        dear = Evidence(terms=terms, order=job.order, receipt=job.receipt, signature=job.receipt_signature)
        goal = "≤ 90000" if again == "steady" else ""
        overcharge = bench.used(RELAYER, disputes.prove_overcharge(here, dear, offer))
        yield gas_of(f"prove an overcharge, {again}", overcharge, goal)
    award = disputes.pay_award(here, evidence.order.digest(domain))
    yield gas_of("pay a proof's award", bench.used(RELAYER, award))


def names_of(bench: Bench) -> Iterator[Figure]:
    """Models, published and named; nothing of it touches money."""
    here, first, second = bench.chain.deployment, keccak(b"first model"), keccak(b"second model")
    place = "https://models.example/tiny"
    yield gas_of("publish a model", bench.used(OWNER, models.publish(here, first, place)))
    bench.used(OWNER, models.publish(here, second, place))
    yield gas_of("release a version, new name", bench.used(OWNER, models.release(here, "tiny", "1.0", first)))
    yield gas_of(
        "release a version, own name", bench.used(OWNER, models.release(here, "tiny", "1.1", second))
    )
    bench.used(OWNER, models.point(here, "tiny", "latest", first))
    yield gas_of("point a channel elsewhere", bench.used(OWNER, models.point(here, "tiny", "latest", second)))


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


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
