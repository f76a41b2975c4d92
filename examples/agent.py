"""An agent that buys its own thinking, and accounts for it.

    watt keys create agent --cap 1 --per-session 0.50 --for 24h
    python examples/agent.py "a talk about escrow" --budget 0.01 --key .watt/keys/agent.key

It plans three steps towards a goal and shares its budget among them. For each it compares signed quotes, buys
the same answer from two nodes, verifies both receipts by the chain, and sees whether the nodes agree. Then it
says what it spent, to the atom. Killed and started again with the same goal, it pays for nothing twice.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marketplace.client import Wattline
from marketplace.client.keyfile import load_key
from marketplace.client.payer import grant_path
from marketplace.client.quotes import Quote
from marketplace.client.results import ChatResult
from marketplace.client.verify import failures
from marketplace.protocol.money import format_atoms, parse_atoms

FEWEST_TOKENS = 8


@dataclass(frozen=True)
class Step:
    """One thing to find out; `ask` makes its question of the answers so far."""

    name: str
    ask: Callable[[str, dict[str, str]], str]
    max_tokens: int


PLAN = (
    Step("points", lambda goal, _: f"Name the three most important points of {goal}.", 48),
    Step("draft", lambda goal, done: f"Write one paragraph of {goal}. Use: {done['points']}", 64),
    Step("title", lambda _, done: f"Give this text a short title: {done['draft']}", 16),
)


class Agent:
    """Works on one goal with one client, and never beyond its budget."""

    def __init__(self, watt: Wattline, goal: str, budget: str, model: str | None = None) -> None:
        self.watt, self.goal = watt, goal
        self.decimals = watt.core.desk.deployment.token_decimals
        # The client refuses what could exceed this, and its journal remembers what the goal has cost so far.
        watt.set_budget(budget, name=f"agent:{goal}")
        self.left_atoms = parse_atoms(budget, self.decimals)
        self.model = model or next(str(row["id"]) for row in watt.models() if row["task"] == "chat")
        self.done: dict[str, str] = {}
        self.steps: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        """Takes the steps in order as far as the money goes; gives the report."""
        for number, step in enumerate(PLAN):
            offers, max_tokens = self.offers(step, self.left_atoms // (len(PLAN) - number))
            if not offers:
                self.steps.append({"step": step.name, "skipped": "no node does it for what is left"})
                break
            answers = [self.buy(step, quote, max_tokens) for quote in offers]
            self.judge(step, answers, max_tokens)
        return self.report()

    def offers(self, step: Step, allowance_atoms: int) -> tuple[list[Quote], int]:
        """The cheapest two nodes whose ceilings fit, and how long the answer may be; one node, or none."""
        question, max_tokens = step.ask(self.goal, self.done), step.max_tokens
        while True:
            quotes = self.watt.quote(question, model=self.model, max_tokens=max_tokens)
            able = sorted((q for q in quotes if q.eligible), key=lambda q: (q.ceiling_atoms, q.node_id))
            for count in (2, 1):
                fits = sum(q.ceiling_atoms for q in able[:count]) <= allowance_atoms
                if len(able) >= count and fits and (count == 2 or max_tokens == FEWEST_TOKENS):
                    return able[:count], max_tokens
            if max_tokens == FEWEST_TOKENS:
                return [], 0
            max_tokens = max(FEWEST_TOKENS, max_tokens // 2)

    def buy(self, step: Step, quote: Quote, max_tokens: int) -> ChatResult:
        """One node's answer. Its key makes it one purchase, however often this runs."""
        terms = f"{max_tokens} tokens for {quote.ceiling_atoms}"
        answer = self.watt.chat(
            step.ask(self.goal, self.done),
            model=self.model,
            max_tokens=max_tokens,
            node=quote.node_id,
            max_cost=format_atoms(quote.ceiling_atoms, self.decimals),
            idempotency_key=f"{self.goal}/{step.name}/{quote.node_id}/{terms}",
        )
        self.left_atoms -= answer.cost_atoms
        return answer

    def judge(self, step: Step, answers: Sequence[ChatResult], max_tokens: int) -> None:
        """Keeps the first answer whose receipt holds on the chain too, and says whether the nodes agree."""
        rows, sound = [], []
        for answer in answers:
            wrong = failures(self.watt.verify(answer.bundle.to_json()))
            sound += [] if wrong else [answer]
            rows.append(
                {
                    "node_id": answer.node_id,
                    "cost_atoms": answer.cost_atoms,
                    "receipt_id": answer.receipt_id,
                    "verified": not wrong,
                }
            )
        if not sound:
            raise SystemExit(f"no receipt of step {step.name} holds; their bundles are the evidence")
        self.done[step.name] = sound[0].text
        # Greedy answers of one model are the same on equal machines; where they differ, `watt audit` decides.
        agreed = None if len(sound) < 2 else len({answer.text for answer in sound}) == 1
        found = {"step": step.name, "max_tokens": max_tokens, "agreed": agreed, "bought": rows}
        self.steps.append(found | {"text": sound[0].text})

    def report(self) -> dict[str, Any]:
        """What was found out, from whom, and what it cost; the sum is of signed receipts."""
        bought = [row for step in self.steps for row in step.get("bought", [])]
        spent = sum(row["cost_atoms"] for row in bought)
        counted = self.watt.spending()
        return {
            "goal": self.goal,
            "steps": self.steps,
            "nodes": sorted({row["node_id"] for row in bought}),
            "spent_atoms": spent,
            "spent": format_atoms(spent, self.decimals),
            "left_atoms": counted.left_atoms,
            # The journal counted on its own what every order under this budget cost.
            "books_agree": counted.spent_atoms == spent,
        }


def show(report: dict[str, Any], currency: str) -> None:
    """The report for people."""
    for step in report["steps"]:
        if "skipped" in step:
            print(f"{step['step']}: skipped, {step['skipped']}")
            continue
        word = {True: "agree", False: "differ", None: "one opinion only"}[step["agreed"]]
        print(f"{step['step']} ({word}): {step['text'].strip()}")
        for row in step["bought"]:
            proof = "✓ verified" if row["verified"] else "✗ not verified"
            print(f"  node {row['node_id']}  {row['cost_atoms']} atoms  {row['receipt_id']}  {proof}")
    left = report["left_atoms"]
    print(f"spent {report['spent']} {currency} = {report['spent_atoms']} atoms, {left} atoms left")


def main() -> int:
    """Finds the market, opens the client, runs the agent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("goal")
    parser.add_argument("--budget", default="0.01", help="in token units, for the whole goal")
    parser.add_argument("--key", type=Path, required=True, help="key file of `watt keys create`")
    parser.add_argument("--market", type=Path, default=Path(".watt/market.json"), help="of `watt up`")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    wish = parser.parse_args()
    market, grant = json.loads(wish.market.read_text()), grant_path(wish.key)
    with Wattline.open(
        gateway_url=market["gateway_url"],
        rpc_url=market["rpc_url"],
        deployment=Path(market["deployment"]),
        key=load_key(wish.key),
        grant=grant if grant.exists() else None,
        journal_path=wish.key.with_suffix(".journal.db"),
    ) as watt:
        report = Agent(watt, wish.goal, wish.budget).run()
        currency = watt.core.desk.deployment.token_symbol
    if wish.json:
        print(json.dumps(report))
    else:
        show(report, currency)
    return 0 if report["books_agree"] else 1


if __name__ == "__main__":
    sys.exit(main())
