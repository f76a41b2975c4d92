"""Random jobs over a whole market: what was quoted, what was paid, and what came back, to the atom.

Tasks, lengths, caps and nodes are drawn from one seed. Half of the buyers sign for themselves, half hold a
bearer key and read `usage`. `tests.e2e.ceilings` draws prices, too, and ends every session.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import httpx2

from marketplace.chain.devkeys import HARDHAT_KEYS
from marketplace.client import AsyncWattline, BuyerWallet
from marketplace.client.results import Paid
from marketplace.protocol.money import format_atoms
from tests.e2e.market import MarketUnderTest

BUYERS, AT_ONCE = 4, 10
FIRST_KEY = 14  # of the development chain; the market itself uses earlier ones
DEPOSIT = "20"
WORDS = ("market", "for", "work", "that", "machines", "buy", "of", "each", "other", "and", "pay", "atom")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a call was quoted: each node's ceiling in atoms, and the least of those that would take it now."""

    ceilings: dict[int, int]
    least: int | None

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, bool]]) -> Self:
        """Prices of nodes, their ceilings, and whether each would take it now."""
        told = list(rows)
        fit = [atoms for _, atoms, is_fit in told if is_fit]
        return cls(ceilings={node: atoms for node, atoms, _ in told}, least=min(fit, default=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One call, not yet made; `body` has the fields of its task."""

    number: int
    task: str
    model: str
    body: dict[str, Any]
    node: int | None
    capped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """One call that was made. `paid` is the SDK's own account of it, where the SDK made it."""

    wish: Wish
    buyer: str
    job_id: str
    node_id: int
    cost_atoms: int
    refunded_atoms: int
    quoted: Prices
    paid: Paid | None = None

    @property
    def ceiling_atoms(self) -> int:
        """Most it could cost, as quoted before by the node that did it."""
        return self.quoted.ceilings[self.node_id]

    @property
    def most_atoms(self) -> int:
        """The ceiling, or the cap where one was set."""
        cap = self.quoted.least if self.wish.capped else None
        return self.ceiling_atoms if cap is None else cap


def drawn(
    seed: int, jobs: int, models: Mapping[str, str], nodes: Mapping[str, list[int]], shape: Shape
) -> list[Wish]:
    """Calls of every task that a model is offered for; `models` by task, `nodes` by model."""
    dice = random.Random(seed)  # noqa: S311 - test data
    tasks = sorted(models)
    weights = [shape.share_of_chat if task == "chat" else 1.0 for task in tasks]
    wishes = []
    for number in range(jobs):
        task = dice.choices(tasks, weights)[0]
        model = models[task]
        wishes.append(
            Wish(
                number=number,
                task=task,
                model=model,
                body=_body(task, dice, shape),
                node=dice.choice(nodes[model]) if dice.random() < 0.4 else None,
                capped=dice.random() < 0.3,
            )
        )
    return wishes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How long calls may be. `share_of_chat` is against 1 for each other task."""

    share_of_chat: float
    most_words: int
    most_tokens: int


def _text(dice: random.Random, most: int) -> str:
    return " ".join(dice.choices(WORDS, k=dice.randint(1, most)))


def _body(task: str, dice: random.Random, shape: Shape) -> dict[str, Any]:
    texts = [_text(dice, shape.most_words) for _ in range(dice.randint(1, 4))]
    if task == "chat":
        return {
            "messages": [{"role": "user", "content": texts[0]}],
            "max_tokens": dice.randint(1, shape.most_tokens),
        }
    if task == "classify":
        return {"input": texts, "labels": dice.sample(WORDS, dice.randint(2, 4))}
    if task == "rerank":
        return {"query": _text(dice, 4), "documents": texts}
    return {"input": texts}


class Buyer(Protocol):
    """Somebody with money who asks for prices and buys."""

    name: str

    async def quoted(self, wish: Wish) -> Prices:
        """What it would cost at most, node by node."""

    async def bought(self, wish: Wish, quoted: Prices, max_cost: str | None) -> Bought:
        """The call, made and paid for."""


@dataclass
class Signing:
    """A buyer whose own key signs every order and voucher."""

    watt: AsyncWattline
    name: str

    async def quoted(self, wish: Wish) -> Prices:
        match wish.task:
            case "chat":
                found = await self.watt.quote(
                    wish.body["messages"],
                    model=wish.model,
                    max_tokens=wish.body["max_tokens"],
                    node=wish.node,
                )
            case "embed":
                found = await self.watt.quote_embed(wish.body["input"], model=wish.model, node=wish.node)
            case _:
                found = await self.watt.quote_task(wish.task, wish.body, model=wish.model, node=wish.node)
        return Prices.of((quote.node_id, quote.ceiling_atoms, quote.eligible) for quote in found)

    async def bought(self, wish: Wish, quoted: Prices, max_cost: str | None) -> Bought:
        limits: Any = {"model": wish.model, "node": wish.node, "max_cost": max_cost}
        done: Paid
        match wish.task:
            case "chat":
                done = await self.watt.chat(
                    wish.body["messages"], max_tokens=wish.body["max_tokens"], **limits
                )
            case "embed":
                done = await self.watt.embed(wish.body["input"], **limits)
            case _:
                done = await self.watt.ask(wish.task, wish.body, **limits)
        return Bought(
            wish=wish, buyer=self.name, job_id=done.job_id, node_id=done.node_id, cost_atoms=done.cost_atoms,
            refunded_atoms=done.ceiling_atoms - done.cost_atoms, quoted=quoted, paid=done,
        )  # fmt: skip


@dataclass
class Bearing:
    """A buyer with a bearer key, as stock clients are; what it paid is what `usage` says."""

    http: httpx2.AsyncClient
    name: str
    paths: Mapping[str, str] = field(
        default_factory=lambda: {"chat": "/v1/chat/completions", "embed": "/v1/embeddings"}
    )

    async def quoted(self, wish: Wish) -> Prices:
        own = wish.task in self.paths
        body = wish.body if own else {"task": wish.task, "body": wish.body}
        found = await self._post("/v1/quotes", {"model": wish.model, "node": wish.node} | body)
        return Prices.of(
            (row["node_id"], int(row["ceiling_atoms"]), row["eligible"]) for row in found["quotes"]
        )

    async def bought(self, wish: Wish, quoted: Prices, max_cost: str | None) -> Bought:
        path = self.paths.get(wish.task, f"/v1/{wish.task}")
        done = await self._post(
            path, {"model": wish.model, "node": wish.node, "max_cost": max_cost} | wish.body
        )
        told = done["usage"]["cost_details"]
        assert round(done["usage"]["cost"] * 10**6) == int(told["atoms"])
        return Bought(
            wish=wish, buyer=self.name, job_id=done["job_id"], node_id=done["receipt"]["node"]["node_id"],
            cost_atoms=int(told["atoms"]), refunded_atoms=int(told["refunded_atoms"]), quoted=quoted,
        )  # fmt: skip

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = await self.http.post(path, json={k: v for k, v in body.items() if v is not None})
        assert answer.status_code == 200, (path, body, answer.text)
        return answer.json()


async def buy(market: MarketUnderTest, wishes: list[Wish]) -> list[Bought]:
    """All calls, from all buyers at once; each is quoted before it is made."""
    bought: list[Bought] = []
    async with AsyncExitStack() as stack:
        buyers = [await stack.enter_async_context(_buyer(market, i)) for i in range(BUYERS)]
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(wish: Wish) -> None:
            buyer = buyers[wish.number % BUYERS]
            async with gate:
                quoted = await buyer.quoted(wish)
                least = quoted.least if wish.capped else None
                cap = None if least is None else format_atoms(least, 6)
                bought.append(await buyer.bought(wish, quoted, cap))

        await asyncio.gather(*(one(wish) for wish in wishes))
    return bought


@asynccontextmanager
async def _buyer(market: MarketUnderTest, position: int) -> AsyncIterator[Buyer]:
    place, key = market.market, HARDHAT_KEYS[FIRST_KEY + position]
    funds = BuyerWallet.open(key=key, rpc_url=place.rpc_url, deployment=Path(place.deployment))
    await asyncio.to_thread(funds.faucet, DEPOSIT)
    await asyncio.to_thread(funds.deposit, DEPOSIT)
    watt = await AsyncWattline.open(
        gateway_url=place.gateway_url, rpc_url=place.rpc_url, deployment=place.deployment,
        key=key, journal_path=market.data_dir / f"buyer-{position}.db",
    )  # fmt: skip
    async with watt:
        if position % 2 == 0:
            yield Signing(watt, funds.address)
            return
        made = await watt.create_key(f"buyer {position}")
        for node in place.nodes:
            await watt.open_session(node.node_id, "5", key=made["address"])
        headers = {"authorization": f"Bearer {made['api_key']}"}
        async with httpx2.AsyncClient(base_url=place.gateway_url, headers=headers, timeout=120) as http:
            yield Bearing(http, funds.address)


def faults_of(bought: list[Bought]) -> list[str]:
    """Calls that cost more than they were quoted, or than their cap."""
    faults = []
    for one in bought:
        most = min(one.most_atoms, one.ceiling_atoms)
        if not 0 <= one.cost_atoms <= most:
            faults.append(
                f"job {one.job_id} cost {one.cost_atoms} atoms, quoted {one.ceiling_atoms}, at most {most}"
            )
        if one.refunded_atoms < 0:
            faults.append(f"job {one.job_id} was refunded {one.refunded_atoms} atoms")
    return faults
