"""Each forced failure under each client: how often was one logical call charged?

Charges are counted from receipts that nodes signed; that nothing else was paid shows at the end, when the
chain's own log is folded and compared with their sum.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from marketplace.protocol.signing import Signer
from tests.assure.figures import Figure, Part
from tests.e2e.checker import Evidence, SignedReceipt, balance_of_receipts, check, fold
from tests.e2e.market import MarketUnderTest, wait_until
from tests.once.clients import CLIENTS, SDK_KEY, Call, Client, fund_sdk, silent
from tests.once.relay import Fault, Relay, cut, duplicated, killed, unavailable

RETRIES: Final = 2  # of a stock client
_BODY_BYTES: Final = 300  # of an answer, before its connection breaks: past the first words of a stream
_FIRST_MAX_TOKENS: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One way a call's answer is lost.

    Attributes:
        times: how many tries of a call meet it.
        answers: whether every client must still get its answer. OpenAI's clients never repeat a stream that
            has begun: they raise, and the call can be asked for.
    """

    name: str
    make: Callable[[MarketUnderTest], Fault]
    times: int = 1
    streamed: bool = False
    named: bool = False
    answers: bool = True


FAILURES: Final = (
    Failure(name="503", make=lambda _: unavailable, times=RETRIES),
    Failure(name="answer cut", make=lambda _: cut(_BODY_BYTES), times=RETRIES),
    Failure(name="stream cut", make=lambda _: cut(_BODY_BYTES), streamed=True, answers=False),
    Failure(name="kill early", make=lambda market: killed(lambda _: _kill_at_work(market), answered=False)),
    Failure(name="kill late", make=lambda market: killed(lambda _: _kill(market), answered=True)),
    Failure(
        name="kill paid",
        make=lambda market: killed(lambda job: _kill_settled(market, job), answered=True),
    ),
    Failure(name="duplicates", make=lambda _: duplicated, named=True),
)
QUICK: Final = (
    ("503", "openai"),
    ("stream cut", "openai async"),
    ("kill late", "httpx2 with a key"),
    ("duplicates", "wattline"),
)


@dataclass(slots=True)
class Bench:
    """A market, a relay before it, and the receipts seen so far."""

    market: MarketUnderTest
    relay: Relay
    seen: set[bytes] = field(default_factory=set)
    calls: int = 0

    def charges(self, failure: Failure, client: Client) -> tuple[int, bool]:
        """How often one call was charged, and whether it got its answer."""
        self.calls += 1
        self.relay.arm(failure.make(self.market), failure.times)
        call = Call(
            url=self.relay.url,
            market=self.market.market,
            data_dir=self.market.data_dir,
            max_tokens=_FIRST_MAX_TOKENS + self.calls,
            streamed=failure.streamed,
            named=failure.named,
        )
        text = client(call)
        assert self.relay.met, f"no try of the call met {failure.name}"
        assert not self.relay.unmade, f"{failure.name} was not made: {self.relay.unmade}"
        wait_until(lambda: _is_up(self.market), 90, "the gateway")
        wait_until(lambda: not _works(self.market), 150, "jobs to end")
        return len(self._fresh()), bool(text)

    def _fresh(self) -> list[SignedReceipt]:
        """Receipts that cost something and were not there before."""
        found = [r for r in self.market.evidence().receipts if _amount(r) and r.receipt not in self.seen]
        self.seen |= {item.receipt for item in found}
        return found


def run(
    market: MarketUnderTest, cells: Iterable[tuple[str, str]], tell: Callable[[Part], None] = lambda _: None
) -> list[Part]:
    """Runs the cells, a failure's clients one after another; the last part is the chain's word."""
    wanted = list(cells)
    if any(client == "wattline" for _, client in wanted):
        fund_sdk(market.market)
    parts = []
    with Relay(market.market.gateway_url) as relay:
        bench = Bench(market, relay)
        bench._fresh()
        for failure in FAILURES:
            names = [client for name, client in wanted if name == failure.name]
            if names:
                parts.append(_part(bench, failure, names))
                tell(parts[-1])
        parts.append(_books(bench))
    return parts


def everything() -> list[tuple[str, str]]:
    """All cells that can be: the SDK pays for what it has, so that no failure between the two can be made."""
    cells = [(failure.name, client) for failure in FAILURES for client in CLIENTS]
    return [cell for cell in cells if cell != ("kill paid", "wattline")]


def _part(bench: Bench, failure: Failure, clients: list[str]) -> Part:
    started = time.monotonic()
    figures = []
    for name in clients:
        count, answered = bench.charges(failure, CLIENTS[name])
        figures.append(Figure(name=f"{name}: charges of one call", value=count, unit="charges", goal="= 1"))
        if failure.answers:
            value = Figure(name=f"{name}: answers", value=int(answered), unit="answers", goal="= 1")
            figures.append(value)
    return Part(name=failure.name, figures=tuple(figures), seconds=time.monotonic() - started)


def _books(bench: Bench) -> Part:
    """A retry that says nothing is seen to pay twice; then everything on the chain against every receipt."""
    started = time.monotonic()
    twice, _ = bench.charges(FAILURES[0], silent)
    found: list[Evidence] = []

    def settled() -> bool:
        found[:] = [bench.market.evidence()]
        due = balance_of_receipts(found[0])
        return due > 0 and sum(fold(found[0]).paid.values()) == due

    wait_until(settled, 120, "the settlements", every_seconds=1)
    (evidence,) = found
    difference = sum(fold(evidence).paid.values()) - balance_of_receipts(evidence)
    figures = (
        Figure(name="control: charges of retries that say nothing", value=twice, unit="charges", goal="= 3"),
        Figure(name="paid on the chain less receipts", value=difference, unit="atoms", goal="= 0"),
        Figure(name="faults of the books", value=len(check(evidence)), unit="faults", goal="= 0"),
    )
    return Part(name="chain", figures=figures, seconds=time.monotonic() - started)


def _kill(market: MarketUnderTest) -> None:
    market.kill(market.pid("gateway"))


def _kill_at_work(market: MarketUnderTest) -> None:
    wait_until(lambda: _works(market), 60, "an order at a node", every_seconds=0.02)
    _kill(market)


def _kill_settled(market: MarketUnderTest, job_id: str) -> None:
    wait_until(lambda: _job(market, job_id)["phase"] == "settled", 90, "the settlement")
    _kill(market)


def _works(market: MarketUnderTest) -> bool:
    """Whether a session keeps money for a running order."""
    keys = (market.market.key_address, Signer(SDK_KEY).address)
    rows = [row for key in keys for row in market.get(f"/v1/sessions?key={key}")["data"]]
    return any(int(row.get("reserved_atoms", 0)) for row in rows)


def _job(market: MarketUnderTest, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = market.get(f"/v1/jobs/{job_id}")
    return found


def _is_up(market: MarketUnderTest) -> bool:
    try:
        market.get("/readyz")
        return sum(node["connected"] for node in market.get("/v1/nodes")["data"]) == len(market.market.nodes)
    except OSError:
        return False


def _amount(item: SignedReceipt) -> int:
    return int.from_bytes(item.receipt[160:192], "big")
