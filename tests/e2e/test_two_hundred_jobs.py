"""200 random jobs of 4 buyers over 3 nodes: none above its quote, few settlements, books to the atom."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import secrets
from contextlib import closing

import pysqlite3

from marketplace.client.results import Paid
from marketplace.local.commands import CHAT_MODEL, EMBED_MODEL
from tests.e2e.checker import Evidence, balance_of_receipts, check, fold
from tests.e2e.market import MarketUnderTest, wait_until
from tests.e2e.random_jobs import Bought, Shape, Wish, buy, drawn, faults_of

JOBS = 200
MODELS = {"chat": CHAT_MODEL, "embed": EMBED_MODEL}
SHAPE = Shape(share_of_chat=0.14, most_words=12, most_tokens=6)
MOST_TRANSACTIONS = 12


def wishes(market: MarketUnderTest) -> list[Wish]:
    """Drawn afresh each time; the seed that is printed draws them again."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    nodes = {
        model: [node.node_id for node in market.market.nodes if model in node.models]
        for model in MODELS.values()
    }
    return drawn(seed, JOBS, MODELS, nodes, SHAPE)


def spent_on_the_chain(before: Evidence, after: Evidence, buyer: str) -> int:
    """What left a buyer's account and came back to neither it nor an open session, in atoms."""

    def held(evidence: Evidence) -> int:
        books = fold(evidence)
        still_open = [s for s, owner in books.buyer.items() if owner == buyer and s not in books.closed]
        return evidence.accounts.get(buyer, 0) + sum(books.deposited[s] - books.paid[s] for s in still_open)

    put_in = sum(
        event.args[1]
        for event in after.events[len(before.events) :]
        if (event.name, event.contract) == ("Deposited", after.escrow) and event.args[0] == buyer
    )
    return held(before) + put_in - held(after)


def test_two_hundred_jobs_settle_in_few_transactions_to_the_atom(market: MarketUnderTest) -> None:
    before = market.evidence()
    bought = asyncio.run(buy(market, wishes(market)))
    assert len({done.job_id for done in bought}) == JOBS
    assert {done.node_id for done in bought} == {node.node_id for node in market.market.nodes}
    assert faults_of(bought) == []

    def all_paid() -> bool:
        found = market.evidence()
        return sum(fold(found).paid.values()) == balance_of_receipts(found)

    wait_until(all_paid, 120, "the settlements", every_seconds=3)
    evidence = market.evidence()
    after = fold(evidence)
    transactions = after.settle_transactions - fold(before).settle_transactions
    cost = sum(done.cost_atoms for done in bought)
    print(f"{JOBS} jobs, {cost} atoms, {len(transactions)} settle transactions")
    assert check(evidence) == []
    assert len(evidence.receipts) >= JOBS
    assert sum(after.paid.values()) == balance_of_receipts(evidence)
    assert len(transactions) <= MOST_TRANSACTIONS
    for buyer in {done.buyer for done in bought}:
        said = sum(done.cost_atoms for done in bought if done.buyer == buyer)
        assert spent_on_the_chain(before, evidence, buyer) == said

    for paid in [done.paid for done in bought if done.paid is not None][:3]:
        assert_one_trace_to_the_settlement(market, paid)

    planted = copy.deepcopy(evidence)
    planted.earnings[next(iter(planted.earnings))] += 1
    assert check(planted) != []
    assert faults_of([dear(bought[0])]) != []


def dear(done: Bought) -> Bought:
    """The same job, one atom above what it was quoted."""
    return dataclasses.replace(done, cost_atoms=done.ceiling_atoms + 1)


def assert_one_trace_to_the_settlement(market: MarketUnderTest, done: Paid) -> None:
    """The same id stands in job, receipt annex and the node's record of the transaction that paid."""
    wait_until(lambda: market.get(f"/v1/jobs/{done.job_id}")["phase"] == "settled", 30, "the follower")
    job = market.get(f"/v1/jobs/{done.job_id}")
    assert job["trace_id"] == done.trace_id == json.loads(done.bundle.annex)["trace_id"]
    node = next(n for n in market.market.nodes if n.node_id == done.node_id)
    with closing(pysqlite3.connect(f"file:{node.data_dir}/ledger.db?mode=ro", uri=True)) as ledger:
        (traces,) = ledger.execute(
            "SELECT trace_ids FROM chain_transaction WHERE tx_hash = ?",
            (bytes.fromhex(job["settled_tx"][2:]),),
        ).fetchone()
    assert done.trace_id in traces.split(",")
