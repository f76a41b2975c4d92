"""200 jobs of 4 buyers over 3 nodes at once: few settlements, and books that balance to the atom."""

from __future__ import annotations

import asyncio
import copy
import json
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path

from marketplace.chain.devkeys import HARDHAT_KEYS
from marketplace.client import AsyncWattline, BuyerWallet
from marketplace.client.results import Paid
from marketplace.local.commands import CHAT_MODEL, EMBED_MODEL
from tests.e2e.checker import balance_of_receipts, check, fold
from tests.e2e.market import MarketUnderTest, wait_until

BUYERS, JOBS, CHATS = 4, 200, 24
AT_ONCE = 10
FIRST_KEY = 14  # of the development chain; the market itself uses earlier ones
MOST_TRANSACTIONS = 12


async def buy(market: MarketUnderTest) -> list[Paid]:
    """All jobs, from all buyers at once."""
    bought: list[Paid] = []
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await client(market, i)) for i in range(BUYERS)]
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            watt = clients[number % BUYERS]
            # A named node for some, so that all three work whatever the prices are.
            node = market.market.nodes[0].node_id if number % 3 == 0 else None
            async with gate:
                if number < CHATS:
                    bought.append(
                        await watt.chat(f"Count to {number}.", model=CHAT_MODEL, max_tokens=6, node=node)
                    )
                else:
                    bought.append(await watt.embed([f"text {number}"], model=EMBED_MODEL, node=node))

        await asyncio.gather(*(one(number) for number in range(JOBS)))
    return bought


async def client(market: MarketUnderTest, position: int) -> AsyncWattline:
    place, key = market.market, HARDHAT_KEYS[FIRST_KEY + position]
    funds = BuyerWallet.open(key=key, rpc_url=place.rpc_url, deployment=Path(place.deployment))
    await asyncio.to_thread(funds.faucet, "20")
    await asyncio.to_thread(funds.deposit, "20")
    return await AsyncWattline.open(
        gateway_url=place.gateway_url, rpc_url=place.rpc_url, deployment=place.deployment,
        key=key, journal_path=market.data_dir / f"buyer-{position}.db",
    )  # fmt: skip


def test_two_hundred_jobs_settle_in_few_transactions_to_the_atom(market: MarketUnderTest) -> None:
    before = fold(market.evidence())
    bought = asyncio.run(buy(market))
    assert len({done.job_id for done in bought}) == JOBS
    assert {done.node_id for done in bought} == {node.node_id for node in market.market.nodes}

    def all_paid() -> bool:
        found = market.evidence()
        return sum(fold(found).paid.values()) == balance_of_receipts(found)

    wait_until(all_paid, 120, "the settlements", every_seconds=3)
    evidence = market.evidence()
    after = fold(evidence)
    transactions = after.settle_transactions - before.settle_transactions
    cost = sum(done.cost_atoms for done in bought)
    print(f"{JOBS} jobs, {cost} atoms, {len(transactions)} settle transactions")
    assert check(evidence) == []
    assert len(evidence.receipts) >= JOBS
    assert sum(after.paid.values()) == balance_of_receipts(evidence)
    assert len(transactions) <= MOST_TRANSACTIONS

    for done in bought[:3]:
        assert_one_trace_to_the_settlement(market, done)

    planted = copy.deepcopy(evidence)
    planted.earnings[next(iter(planted.earnings))] += 1
    assert check(planted) != []


def assert_one_trace_to_the_settlement(market: MarketUnderTest, done: Paid) -> None:
    """The same id stands in job, receipt annex and the node's record of the transaction that paid."""
    wait_until(lambda: market.get(f"/v1/jobs/{done.job_id}")["phase"] == "settled", 30, "the follower")
    job = market.get(f"/v1/jobs/{done.job_id}")
    assert job["trace_id"] == done.trace_id == json.loads(done.bundle.annex)["trace_id"]
    node = next(n for n in market.market.nodes if n.node_id == done.node_id)
    with closing(sqlite3.connect(f"file:{node.data_dir}/ledger.db?mode=ro", uri=True)) as ledger:
        (traces,) = ledger.execute(
            "SELECT trace_ids FROM chain_transaction WHERE tx_hash = ?",
            (bytes.fromhex(job["settled_tx"][2:]),),
        ).fetchone()
    assert done.trace_id in traces.split(",")
