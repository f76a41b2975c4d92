"""Does any job cost more than it was quoted? Random jobs at random prices on a market of their own.

When all is paid, the chain's clock is set past the end of every session, each is ended, and what is left of
every buyer's account is compared, to the atom, with what went in and with what the calls said they cost.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from unittest.mock import patch

from marketplace.chain.devkeys import HARDHAT_KEYS
from marketplace.client import BuyerWallet
from marketplace.client.spending import OwnSessions
from marketplace.local import commands
from marketplace.local.commands import EMBED_MODEL, NodePlan, Priced
from marketplace.local.probes import rpc
from tests.assure.figures import Figure, Part, table
from tests.assure.report import ROOT, write
from tests.bench.models import random_llama
from tests.e2e.checker import Evidence, balance_of_receipts, check, fold
from tests.e2e.conftest import CALM
from tests.e2e.market import MarketUnderTest, stop_when_told, wait_until
from tests.e2e.random_jobs import BUYERS, FIRST_KEY, Bought, Shape, buy, drawn, faults_of

NAME: Final = "jobs"
JOBS: Final = 1_000
TASKS: Final = ("chat", "classify", "rerank", "embed")
_SHAPE: Final = Shape(share_of_chat=2, most_words=40, most_tokens=32)
_SETTLE_SECONDS: Final = 300


def plans(dice: random.Random, models: dict[str, str]) -> tuple[NodePlan, ...]:
    """Three nodes that sell some of the tasks each, every task at two of them, at prices of no pattern."""

    def priced(task: str) -> Priced:
        return Priced(
            model=models[task],
            task=task,
            price_per_job_atoms=dice.choice([0, 1, dice.randint(2, 5_000)]),
            price_in_per_million_atoms=dice.choice([0, 1, dice.randint(2, 20_000_000)]),
            price_out_per_million_atoms=0
            if task == "embed"
            else dice.choice([1, dice.randint(2, 50_000_000)]),
            max_latency_ms=dice.choice([0, 1, 400]),
            late_discount_bps=dice.choice([0, 1, 3_333, 10_000]),
        )

    sold = [set(TASKS) - {TASKS[0]}, set(TASKS) - {TASKS[1], TASKS[3]}, set(TASKS) - {TASKS[2]}]
    return tuple(
        NodePlan(f"node-{n}", tuple(priced(task) for task in sorted(tasks)))
        for n, tasks in enumerate(sold, 1)
    )


def tiny_models(folder: Path) -> dict[str, str]:
    """A model for each task; those that generate are random and small, and no two alike."""
    widths = {"chat": 64, "classify": 128, "rerank": 192}
    made = {
        task: str(random_llama(folder / f"tiny-{task}", layers=2, hidden=width, inner=2 * width))
        for task, width in widths.items()
    }
    return made | {"embed": EMBED_MODEL}


def main(arguments: Iterable[str]) -> int:
    """Buys, settles, closes and compares; 0 when every figure is met."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.ceilings", description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="a fresh one when not given")
    options = parser.parse_args(list(arguments))
    print(f"seed {options.seed}", flush=True)
    stop_when_told()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wattline-jobs-") as folder:
        models = tiny_models(Path(folder) / "models")
        with patch.object(commands, "NODES", plans(random.Random(options.seed), models)):  # noqa: S311
            figures = _on_a_market(Path(folder) / "market", models, options.jobs, options.seed)
    part = Part(name=NAME, figures=tuple(figures), seconds=time.monotonic() - began)
    print(table([part]))
    print(f"written to {write(NAME, [part]).relative_to(ROOT)}")
    return 0 if part.met else 1


def _on_a_market(folder: Path, models: dict[str, str], jobs: int, seed: int) -> list[Figure]:
    market = MarketUnderTest(folder, CALM | {"WATT_NODE_SETTLE_MAX_AGE_MS": "10000"})
    market.start()
    try:
        return _bought_and_closed(market, models, jobs, seed)
    finally:
        market.stop()


def _bought_and_closed(market: MarketUnderTest, models: dict[str, str], jobs: int, seed: int) -> list[Figure]:
    names = {task: Path(model).name for task, model in models.items()}
    nodes = {
        name: [n.node_id for n in market.market.nodes if any(Path(m).name == name for m in n.models)]
        for name in names.values()
    }
    began = time.monotonic()
    bought = asyncio.run(buy(market, drawn(seed, jobs, names, nodes, _SHAPE)))
    seconds = time.monotonic() - began
    wait_until(lambda: _all_paid(market.evidence()), _SETTLE_SECONDS, "the settlements", every_seconds=3)
    close_all(market)
    return figures_of(bought, market.evidence(), seed, seconds)


def _all_paid(found: Evidence) -> bool:
    return sum(fold(found).paid.values()) == balance_of_receipts(found)


def close_all(market: MarketUnderTest) -> None:
    """Sets the chain's clock past every session's end and ends our buyers'. No market goes on after that."""
    place = market.market
    wallets = [
        BuyerWallet.open(key=key, rpc_url=place.rpc_url, deployment=Path(place.deployment))
        for key in HARDHAT_KEYS[FIRST_KEY : FIRST_KEY + BUYERS]
    ]
    spending = [OwnSessions(wallet) for wallet in wallets]
    books = fold(market.evidence())
    owned = {session: buyer for session, buyer in books.buyer.items() if session not in books.closed}
    terms = [
        (one, one.terms(bytes.fromhex(session[2:])))
        for session, buyer in owned.items()
        for one in spending
        if one.wallet.address == buyer
    ]
    end = max(found.expires_at for _, found in terms) + wallets[0].deployment.grace_seconds + 1
    rpc(place.rpc_url, "evm_setNextBlockTimestamp", end)
    rpc(place.rpc_url, "evm_mine")
    for one, found in terms:
        one.expire(found)


def figures_of(bought: list[Bought], evidence: Evidence, seed: int, seconds: float) -> list[Figure]:
    """What the calls said, against what the chain says."""
    books = fold(evidence)
    cost = Counter[str]()
    for one in bought:
        cost[one.buyer] += one.cost_atoms
    put_in = Counter[str]()
    for event in evidence.events:
        if event.name == "Deposited" and event.contract == evidence.escrow:
            put_in[event.args[0]] += event.args[1]
    ours = [session for session, buyer in books.buyer.items() if buyer in cost]
    paid = sum(books.paid[session] for session in ours)
    differences = [put_in[buyer] - spent - evidence.accounts[buyer] for buyer, spent in cost.items()]
    faults, differs = faults_of(bought), check(evidence)
    total = sum(cost.values())
    return [
        Figure(name="jobs bought", value=len({one.job_id for one in bought}), goal=f"≥ {len(bought)}"),
        Figure(
            name="jobs above their quoted ceiling or cap",
            value=len(faults),
            goal="= 0",
            why=tuple(faults[:10]),
        ),
        Figure(
            name="quoted ceilings, all jobs", value=sum(one.ceiling_atoms for one in bought), unit="atoms"
        ),
        Figure(name="usage.cost, all jobs", value=total, unit="atoms"),
        Figure(name="usage.cost - paid on the chain", value=total - paid, unit="atoms", goal="= 0"),
        Figure(
            name="accounts: before - cost - after", value=max(map(abs, differences)), unit="atoms", goal="= 0"
        ),
        Figure(name="sessions of these buyers", value=len(ours)),
        Figure(name="sessions left open", value=len(set(ours) - books.closed), goal="= 0"),
        Figure(name="differences the checker finds", value=len(differs), goal="= 0", why=tuple(differs[:10])),
        Figure(name="settle transactions", value=len(books.settle_transactions)),
        Figure(name="seconds of buying", value=round(seconds, 1), unit="s"),
        Figure(name="seed", value=seed),
    ]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
