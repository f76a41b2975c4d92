"""Real clients, each in an environment of its own, against a running market: answers, costs, receipts, books.

What they are charged is counted from receipts that nodes signed; that nothing else was paid shows at the end,
when the chain's own log is folded and compared with what the clients were told.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx2

from marketplace.chain.client import ChainClient
from marketplace.chain.deployment import Deployment
from marketplace.chain.devkeys import HARDHAT_KEYS
from marketplace.client import BuyerWallet
from marketplace.client.anchors import check_on_chain
from marketplace.client.bundle import Bundle
from marketplace.local.commands import CHAT_MODEL, EMBED_MODEL
from tests.assure.figures import Figure, Part
from tests.clients.environments import NoEnvironment, command, python, variables
from tests.clients.sales import Answered, Sale, faults
from tests.e2e.checker import Evidence, balance_of_receipts, check, fold
from tests.e2e.market import MarketUnderTest, wait_until

QUESTIONS: Final = {
    "first": "What is the capital of France? Answer in one sentence.",
    "second": "What is the capital of Italy? Answer in one sentence.",
}
_RIGHT: Final = {"first": "Paris", "second": "Rome"}
_TEXTS: Final = ["a cat", "a kitten", "an escrow"]
_MAX_TOKENS: Final = 16
_WALLET: Final = HARDHAT_KEYS[16]  # of the x402 client; the market itself uses earlier ones
_SECONDS: Final = 300

_MODELS: Final = ("chat", "stream", "embeddings")
_BATCH: Final = tuple(f"batches {name}" for name in QUESTIONS)
_OPENAI: Final = (*_MODELS, "responses", "responses stream", "files", *_BATCH)
_TOOLS: Final = ("run", "run an offer", "run embeddings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One client: where its packages are pinned, and the program that makes these calls with it."""

    name: str
    environment: str
    program: str
    calls: tuple[str, ...]
    options: tuple[str, ...] = ()


CLIENTS: Final = (
    *(
        Client(name=name, environment=place, program="openai_python.py", calls=_OPENAI, options=options)
        for place in ("openai-2", "openai-3")
        for name, options in ((place, ()), (f"{place} async", ("--async",)))
    ),
    Client(name="openai-js", environment="openai-js", program="openai_node.mjs", calls=_OPENAI),
    Client(name="langchain", environment="langchain", program="langchain_chat.py", calls=_MODELS),
    Client(name="x402", environment="x402", program="x402_client.py", calls=_MODELS),
    Client(name="mcp", environment="mcp", program="mcp_client.py", calls=_TOOLS),
    Client(name="mcp stdio", environment="mcp", program="mcp_client.py", calls=_TOOLS, options=("--stdio",)),
)
# Those whose packages the tests have themselves.
QUICK: Final = tuple(client for client in CLIENTS if client.name in ("openai-3 async", "x402", "mcp"))


@dataclass(slots=True)
class Counter:
    """Where the clients buy, and all that they bought so far."""

    market: MarketUnderTest
    installed: bool
    expected: dict[str, Answered] = field(default_factory=dict)
    sales: list[Sale] = field(default_factory=list)

    def serve(self, client: Client) -> Part:
        """One client's calls, each with what is wrong with it."""
        started = time.monotonic()
        try:
            told, complaint = self._run(client)
        except NoEnvironment as error:
            told, complaint = [], f"no environment: {error}"
        except subprocess.TimeoutExpired:
            told, complaint = [], f"the program did not end within {_SECONDS} s"
        version = next((line["version"] for line in told if "version" in line), "")
        sales = [self._completed(line) for line in told if "call" in line]
        self.sales += sales
        return Part(
            name=f"{client.name} ({version})",
            figures=figures_of(client.calls, sales, self.expected, complaint),
            seconds=time.monotonic() - started,
        )

    def plainly(self) -> Part:
        """The same questions in bare HTTP: what every client is held against."""
        started, place = time.monotonic(), self.market.market
        headers = {"authorization": f"Bearer {place.api_key}"}
        with httpx2.Client(base_url=place.gateway_url, headers=headers, timeout=_SECONDS) as http:
            chats = "/v1/chat/completions"
            sales = [_plain(http, chats, _chat(name), f"chat {name}", name) for name in QUESTIONS]
            texts = {"model": EMBED_MODEL, "input": _TEXTS}
            sales.append(_plain(http, "/v1/embeddings", texts, "embeddings", "texts"))
        self.expected = {sale.asked: sale.answer for sale in sales}
        self.expected["lines"] = _lines()
        self.sales += sales
        calls = [sale.call for sale in sales]
        return Part(
            name="plain HTTP",
            figures=(*figures_of(calls, sales, self.expected, ""), _sense(self.expected)),
            seconds=time.monotonic() - started,
        )

    def _run(self, client: Client) -> tuple[list[dict[str, Any]], str]:
        """What a client's program told, and the last word of one that failed."""
        if self.installed:
            arguments = python(Path(sys.executable), client.program)
        else:
            arguments = command(client.environment, client.program)
        ran = subprocess.run(
            [*arguments, *client.options],
            input=json.dumps(self._request()),
            env=variables(),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        told = [json.loads(line) for line in ran.stdout.splitlines()]
        last = ran.stderr.strip().splitlines()[-1:] or ["no word"]
        return told, f"the program ended with {ran.returncode}: {last[0]}" if ran.returncode else ""

    def _request(self) -> dict[str, Any]:
        """What every program is told; it takes what its client needs."""
        place = self.market.market
        watt = str(Path(sys.executable).with_name("watt"))
        return QUESTIONS | {
            "gateway_url": place.gateway_url,
            "api_key": place.api_key,
            "chat_model": CHAT_MODEL,
            "embed_model": EMBED_MODEL,
            "texts": _TEXTS,
            "lines": _lines(),
            "max_tokens": _MAX_TOKENS,
            "chain_id": place.chain_id,
            "token": Deployment.load(Path(place.deployment)).token,
            "wallet": _WALLET,
            "mcp_command": [watt, "mcp", "--budget", "1", "--data-dir", str(self.market.data_dir)],
        }

    def _completed(self, line: dict[str, Any]) -> Sale:
        """A call with what its client drops, by the job it leads to."""
        key = {"authorization": f"Bearer {self.market.market.api_key}"}
        if name := line.get("idempotency_key"):
            (job,) = self.market.get(f"/v1/jobs?idempotency_key={name}", **key)["data"]
        elif "job" in line:
            job = self.market.get(f"/v1/jobs/{line['job']}")
        else:
            return Sale.of(line)
        receipt = self.market.get(f"/v1/receipts/{job['receipt_id']}")
        return Sale.of({"atoms": job["cost_atoms"], "receipt": receipt} | line)


def run(
    market: MarketUnderTest,
    clients: Sequence[Client],
    *,
    installed: bool = False,
    tell: Callable[[Part], None] = lambda _: None,
) -> list[Part]:
    """Runs the clients one after another; the last part is the chain's word.

    `installed` takes the packages of the tests themselves, instead of an environment for each client.
    """
    before = {item.receipt for item in market.evidence().receipts}
    if any(client.environment == "x402" for client in clients):
        place = market.market
        wallet = BuyerWallet.open(key=_WALLET, rpc_url=place.rpc_url, deployment=Path(place.deployment))
        wallet.faucet("5")
    counter, parts = Counter(market, installed), []
    for make in (counter.plainly, *(lambda client=client: counter.serve(client) for client in clients)):
        parts.append(make())
        tell(parts[-1])
    return [*parts, _books(market, before, counter.sales)]


def figures_of(
    calls: Iterable[str], sales: Iterable[Sale], expected: dict[str, Answered], complaint: str
) -> tuple[Figure, ...]:
    """A figure for each call, and what was paid for all of them; a call that was not made is a fault."""
    found = []
    for call in calls:
        made = [sale for sale in sales if sale.call == call]
        wrong = [fault for sale in made for fault in faults(sale, expected)]
        if not made:
            wrong = [complaint or "no such call was made"]
        found.append(_faults(call, wrong))
    found.append(_faults("program", [complaint] if complaint else []))
    paid = sum(sale.paid_atoms for sale in sales)
    return (*found, Figure(name="paid", value=paid, unit="atoms"))


def _faults(name: str, sentences: Sequence[str]) -> Figure:
    return Figure(name=name, value=len(sentences), unit="faults", goal="= 0", why=tuple(sentences))


def _lines() -> str:
    """A file of calls for a batch, each named after its question."""
    rows = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": _chat(name)}
        for name in QUESTIONS
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _chat(question: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTIONS[question]}]
    return {"model": CHAT_MODEL, "messages": messages, "max_tokens": _MAX_TOKENS, "temperature": 0}


def _plain(http: httpx2.Client, path: str, body: dict[str, Any], call: str, asked: str) -> Sale:
    answer = http.post(path, json=body)
    answer.raise_for_status()
    told = answer.json()
    text = told["choices"][0]["message"]["content"] if "choices" in told else None
    return Sale(
        call=call,
        asked=asked,
        answer=text or [row["embedding"] for row in told["data"]],
        cost=told["usage"]["cost"],
        atoms=told["usage"]["cost_details"]["atoms"],
        receipt=told["receipt"],
    )


def _sense(expected: dict[str, Answered]) -> Figure:
    """Whether plain calls are answered as a person would, in so far as small models can."""
    wrong = [f"{name}: {expected[name]}" for name, word in _RIGHT.items() if word not in expected[name]]
    cat, kitten, escrow = expected["texts"]
    if _dot(cat, kitten) <= _dot(cat, escrow):
        wrong.append("a cat is nearer to an escrow than to a kitten")
    return _faults("sense", wrong)


def _dot(a: Iterable[float], b: Iterable[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _books(market: MarketUnderTest, before: set[bytes], sales: Sequence[Sale]) -> Part:
    """What clients were told they paid, against receipts, against the chain."""
    started = time.monotonic()
    found: list[Evidence] = []

    def paid() -> bool:
        market.settle()
        found[:] = [market.evidence()]
        return sum(fold(found[0]).paid.values()) == balance_of_receipts(found[0])

    wait_until(paid, 120, "the settlements")
    (evidence,) = found
    fresh = replace(evidence, receipts=[item for item in evidence.receipts if item.receipt not in before])
    told, signed = sum(sale.paid_atoms for sale in sales), balance_of_receipts(evidence)
    beyond = balance_of_receipts(fresh) - told
    unsettled = sum(fold(evidence).paid.values()) - signed
    sold = [sale for sale in sales if sale.receipt is not None]
    figures = (
        Figure(name="paid calls", value=len(sold), unit="calls"),
        Figure(name="paid", value=told, unit="atoms"),
        Figure(name="receipts less what clients were told", value=beyond, unit="atoms", goal="= 0"),
        Figure(name="paid on the chain less receipts", value=unsettled, unit="atoms", goal="= 0"),
        _faults("receipts the chain does not confirm", _unconfirmed(market, sold)),
        _faults("the books", check(evidence)),
    )
    return Part(name="chain", figures=figures, seconds=time.monotonic() - started)


def _unconfirmed(market: MarketUnderTest, sold: Iterable[Sale]) -> list[str]:
    """What the chain itself says otherwise of receipts: contracts, node keys, sessions, payment."""
    deployment = Deployment.load(Path(market.market.deployment))
    chain = ChainClient(market.market.rpc_url, deployment)
    found = []
    for receipt in (sale.receipt for sale in sold if sale.receipt is not None):
        path = f"/v1/receipts/{receipt['id']}"
        wait_until(lambda path=path: market.get(path).get("settlement") is not None, 60, "the settlement")
        checks = check_on_chain(Bundle.from_json(market.get(path)), chain, deployment.domain)
        found += [f"{receipt['id']}: {item.name}: {item.detail}" for item in checks if not item.ok]
    return found
