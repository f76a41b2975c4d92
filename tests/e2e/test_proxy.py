"""`watt proxy` with an agent's key: a stock client, a kill in mid-answer, an agent, and the books."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIConnectionError, OpenAI

from marketplace.client import verify_receipt
from marketplace.client.verify import failures
from marketplace.local.commands import CHAT_MODEL, EMBED_MODEL
from tests.e2e.checker import check
from tests.e2e.market import MarketUnderTest
from tests.e2e.test_command_line import Terminal
from tests.house.tree import ROOT

QUESTION: Any = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


class ProxyUnderTest:
    """One `watt proxy` process at a time, on one key and journal."""

    def __init__(self, home: Path, key: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("WATT")}
        self._environment = kept | {"WATT_HOME": str(home)}
        self._key = key
        self.start()

    def start(self) -> None:
        """Returns once it is ready."""
        command = [str(Path(sys.executable).with_name("watt")), "proxy", "--port", "0", "--json"]
        self.process = subprocess.Popen(
            [*command, "--key", self._key, "--budget", "0.2"],
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.url: str = json.loads(line)["url"]
        self.openai = OpenAI(base_url=self.url, api_key="any", max_retries=0)

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self._ended()

    def stop(self) -> int:
        """Stops it in peace; its exit code."""
        self.process.terminate()
        return self._ended()

    def _ended(self) -> int:
        code = self.process.wait(60)
        self.openai.close()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def get(self, path: str) -> Any:
        """JSON of one of its pages."""
        with urllib.request.urlopen(self.url + path, timeout=60) as response:  # noqa: S310
            return json.load(response)


@pytest.fixture(scope="module")
def key(market: MarketUnderTest) -> str:
    made = Terminal(market.data_dir).json("keys", "create", "proxied", "--cap", "1", "--for", "1h")
    return str(made["key_file"])


@pytest.fixture(scope="module")
def proxy(market: MarketUnderTest, key: str) -> Iterator[ProxyUnderTest]:
    made = ProxyUnderTest(market.data_dir, key)
    yield made
    assert made.stop() == 0


def test_stock_client_buys_with_the_key_of_this_machine(proxy: ProxyUnderTest) -> None:
    answer: Any = proxy.openai.chat.completions.create(
        model=CHAT_MODEL, messages=QUESTION, max_tokens=16, temperature=0
    )
    assert "Paris" in answer.choices[0].message.content
    vectors: Any = proxy.openai.embeddings.create(model=EMBED_MODEL, input=["a cat", "a kitten"])
    assert [len(row.embedding) for row in vectors.data] == [384, 384]
    spent = 0
    for bought in (answer, vectors):
        assert failures(verify_receipt(bought.receipt)) == []
        spent += int(bought.usage.cost_details["atoms"])
    assert proxy.get("/budget")["spent_atoms"] == str(spent)


def test_killed_in_the_middle_of_an_answer_it_pays_for_one(proxy: ProxyUnderTest) -> None:
    before = {job["job_id"] for job in proxy.get("/jobs")["data"]}
    call: Any = {"model": CHAT_MODEL, "messages": QUESTION, "max_tokens": 32, "temperature": 0}
    named = {"extra_headers": {"Idempotency-Key": "the-only-one"}}
    stream = proxy.openai.chat.completions.create(**call, **named, stream=True)
    first = next(chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
    stream.close()
    proxy.kill()
    gone = OpenAI(base_url=proxy.url, api_key="any", max_retries=0)
    with gone, pytest.raises(APIConnectionError):
        gone.chat.completions.create(**call, **named, stream=True)
    proxy.start()
    chunks: list[Any] = list(proxy.openai.chat.completions.create(**call, **named, stream=True))
    assert {chunk.id for chunk in chunks} == {first.id}
    assert "Paris" in "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert failures(verify_receipt(chunks[-1].receipt)) == []
    assert len({job["job_id"] for job in proxy.get("/jobs")["data"]} - before) == 1


def test_agent_of_the_examples_accounts_for_what_it_bought(market: MarketUnderTest, key: str) -> None:
    command = [sys.executable, str(ROOT / "examples" / "agent.py"), "a talk about escrow", "--json"]
    where = ["--budget", "0.05", "--key", key, "--market", str(market.data_dir / "market.json")]
    done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    bought = [row for step in report["steps"] for row in step["bought"]]
    assert (len(report["steps"]), len(report["nodes"])) == (3, 2)
    assert all(row["verified"] for row in bought)
    assert report["spent_atoms"] == sum(row["cost_atoms"] for row in bought) > 0


def test_books_balance_after_all_this(market: MarketUnderTest) -> None:
    assert check(market.evidence()) == []
