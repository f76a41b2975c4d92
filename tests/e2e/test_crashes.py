"""kill -9 of worker, node and gateway in the middle of a job: nothing is lost, nothing is paid twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from openai import OpenAI

from marketplace.local.commands import CHAT_MODEL, EMBED_MODEL
from tests.assure.figures import table
from tests.e2e.checker import SignedReceipt, balance_of_receipts, check, fold
from tests.e2e.market import MarketUnderTest, wait_until
from tests.once.matrix import QUICK, run

FINISHED = {"delivered", "acknowledged", "settled"}
PROMPT = [{"role": "user", "content": "Write a long story about a lighthouse keeper and the sea."}]


class StreamedCall:
    """One streamed completion in a thread; knows when its first words have come."""

    def __init__(self, market: MarketUnderTest, max_tokens: int) -> None:
        self.started = threading.Event()
        self.text = ""
        self.error: Exception | None = None
        self._openai = OpenAI(
            base_url=f"{market.market.gateway_url}/v1", api_key=market.market.api_key, max_retries=0
        )
        self._max_tokens = max_tokens
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Waits for its end."""
        self._thread.join(180)
        assert not self._thread.is_alive(), "the stream never ended"

    def _run(self) -> None:
        try:
            for chunk in self._openai.chat.completions.create(
                model=CHAT_MODEL, messages=PROMPT, stream=True, max_tokens=self._max_tokens, temperature=0
            ):  # type: ignore[call-overload]
                if chunk.choices and chunk.choices[0].delta.content:
                    self.text += chunk.choices[0].delta.content
                    self.started.set()
        except Exception as error:  # noqa: BLE001 - whatever broke the stream is part of the test's outcome
            self.error = error


def jobs(market: MarketUnderTest) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = market.get("/v1/jobs", authorization=f"Bearer {market.market.api_key}")[
        "data"
    ]
    return rows


def running_on(market: MarketUnderTest) -> str:
    """Name of the node that has the newest job."""
    node_id = market.get(f"/v1/jobs/{jobs(market)[0]['job_id']}")["node_id"]
    return next(node.name for node in market.market.nodes if node.node_id == node_id)


def finished_and_paid_once(market: MarketUnderTest) -> dict[str, Any]:
    """The newest job, once it is done and the chain has paid every receipt; the books must balance."""
    wait_until(lambda: jobs(market)[0]["phase"] in FINISHED, 120, "the job")
    job: dict[str, Any] = market.get(f"/v1/jobs/{jobs(market)[0]['job_id']}")

    def paid() -> bool:
        evidence = market.evidence()
        due = balance_of_receipts(evidence)
        return due > 0 and sum(fold(evidence).paid.values()) == due

    wait_until(paid, 90, "the settlement")
    evidence = market.evidence()
    assert check(evidence) == []
    charges = [r for r in evidence.receipts if r.job_id == job["job_id"] and amount_of(r)]
    assert len(charges) == 1
    return job


def amount_of(receipt: SignedReceipt) -> int:
    return int.from_bytes(receipt.receipt[160:192], "big")


def kill_worker(market: MarketUnderTest) -> None:
    (worker,) = market.workers(running_on(market), "infer")
    market.kill(worker)


def kill_node(market: MarketUnderTest) -> None:
    """The daemon and everything below it, at once."""
    name = running_on(market)
    victims = [market.pid(name), *market.workers(name, "infer"), *market.workers(name, "settle")]
    for pid in victims:
        market.kill(pid)


@pytest.mark.parametrize("crash", [kill_worker, kill_node])
def test_job_survives_kill_of_what_runs_it(
    fragile: MarketUnderTest, crash: Callable[[MarketUnderTest], None]
) -> None:
    call = StreamedCall(fragile, max_tokens=160)
    assert call.started.wait(60), call.error
    crash(fragile)
    call.join()
    job = finished_and_paid_once(fragile)
    wait_until(lambda: connected(fragile) == 3, 120, "the nodes")
    whole = job["result"]["text"]
    # What the buyer saw is what was paid for: no word twice, none missing, unless the stream said so.
    assert whole.startswith(call.text) if call.error else whole == call.text


def test_accepted_job_survives_kill_of_the_gateway(fragile: MarketUnderTest) -> None:
    call = StreamedCall(fragile, max_tokens=160)
    assert call.started.wait(60), call.error
    before = fragile.pid("gateway")
    fragile.kill(before)
    call.join()
    assert call.error is not None
    wait_until(lambda: fragile.pid("gateway") != before and answers(fragile), 60, "the gateway")
    job = finished_and_paid_once(fragile)
    assert job["result"]["text"].startswith(call.text)
    again = OpenAI(base_url=f"{fragile.market.gateway_url}/v1", api_key=fragile.market.api_key)
    wait_until(lambda: connected(fragile) == 3, 30, "the nodes")
    assert again.embeddings.create(model=EMBED_MODEL, input="still here").usage.prompt_tokens > 0


def test_each_failure_charges_one_call_once(fragile: MarketUnderTest) -> None:
    """The quick form of `scripts/once`."""
    parts = run(fragile, QUICK)
    assert all(part.met for part in parts), table(parts)


def connected(market: MarketUnderTest) -> int:
    return sum(node["connected"] for node in market.get("/v1/nodes")["data"])


def answers(market: MarketUnderTest) -> bool:
    try:
        market.get("/readyz")
    except OSError:
        return False
    return True
