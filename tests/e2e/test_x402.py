"""The stock x402 client: no account, no key, and the unused part back in the wallet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from eth_account import Account
from openai import AsyncOpenAI
from x402 import x402Client
from x402.http.clients.httpx import x402HttpxClient
from x402.mechanisms.evm.exact import register_exact_evm_client

from marketplace.chain import calls
from marketplace.chain.client import ChainClient
from marketplace.chain.deployment import Deployment
from marketplace.chain.journal import MemoryJournal
from marketplace.chain.rpc import Rpc
from marketplace.chain.sender import Sender
from marketplace.client import verify_receipt
from marketplace.client.verify import failures
from marketplace.local import commands
from marketplace.local.commands import CHAT_MODEL, EMBED_MODEL
from marketplace.protocol.signing import Signer
from tests.e2e.checker import check
from tests.e2e.conftest import EAGER
from tests.e2e.market import MarketUnderTest, wait_until
from tests.hardhat import key

FUNDS = 5_000_000
PAYER = Signer(b"\x42" * 32)
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


class Wallet:
    """A wallet that holds nothing but test dollars, not even coin for gas."""

    def __init__(self, market: MarketUnderTest) -> None:
        self.deployment = Deployment.load(Path(market.market.deployment))
        self.rpc = Rpc(market.market.rpc_url)
        self.chain = ChainClient(market.market.rpc_url, self.deployment)
        sender = Sender(self.chain, key(15), MemoryJournal(), lambda: 0)
        sender.send_and_wait("fund", calls.faucet(self.deployment, PAYER.address, FUNDS))

    @property
    def atoms(self) -> int:
        return self.chain.token_balance_atoms(PAYER.address)

    def client(self) -> x402Client:
        network, client = f"eip155:{self.deployment.chain_id}", x402Client()
        register_exact_evm_client(client, Account.from_key(PAYER.secret), networks=network)
        asset = {"network": network, "asset": self.deployment.token, "max_amount_per_payment": str(FUNDS)}
        client.set_spend_controls({"allowed_assets": [asset]})
        return client

    def pass_time(self, until: int) -> None:
        """Moves the chain's clock, not ours: to after a session's grace."""
        self.rpc.once("evm_setNextBlockTimestamp", until + 1)
        self.rpc.once("hardhat_mine", "0x1")


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MarketUnderTest]:
    """A market of its own, because its chain's clock is moved; of one node, which sells both."""
    with patch.object(commands, "NODES", commands.NODES[:1]):
        running = MarketUnderTest(tmp_path_factory.mktemp("x402"), EAGER)
        running.start()
        yield running
        assert running.stop() == 0


async def test_stock_client_buys_a_stream_and_an_embedding_and_gets_back_what_they_did_not_cost(
    paid: MarketUnderTest,
) -> None:
    wallet, cost, ends = Wallet(paid), 0, []
    async with x402HttpxClient(wallet.client(), base_url=paid.market.gateway_url, timeout=120) as http:
        body = {"model": CHAT_MODEL, "messages": QUESTION, "stream": True, "max_tokens": 24, "temperature": 0}
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = [line async for line in answer.aiter_lines() if line.startswith("data: {")]
        assert answer.status_code == 200
        assert answer.headers["payment-response"]
        chunks: list[dict[str, Any]] = [json.loads(line.removeprefix("data: ")) for line in lines]
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
        assert "Paris" in text
        sold = [chunks[-1]]

        openai = AsyncOpenAI(
            base_url=f"{paid.market.gateway_url}/v1", api_key="x402", http_client=http, max_retries=0
        )
        vectors = await openai.embeddings.create(model=EMBED_MODEL, input=["a cat", "a kitten"])
        sold.append(vectors.model_extra | {"usage": vectors.usage.model_dump()})

    for body in sold:
        assert failures(verify_receipt(body["receipt"])) == []
        cost += int(body["usage"]["cost_details"]["atoms"])
        ends.append(body["x402_payment_response"]["extra"])
    assert cost > 0
    before_refund = wallet.atoms
    assert before_refund < FUNDS - cost

    wait_until(lambda: _settled(paid, ends) == cost, 60, "the node to settle")
    wallet.pass_time(max(end["refundAfter"] for end in ends))
    wait_until(lambda: wallet.atoms == FUNDS - cost, 60, "the refunds")
    assert check(paid.evidence()) == []


def _settled(market: MarketUnderTest, ends: list[dict[str, Any]]) -> int:
    return sum(int(market.get(f"/v1/sessions/{end['sessionId']}")["paid_atoms"]) for end in ends)
