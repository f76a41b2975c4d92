"""What a granted key holds itself to beyond the chain: models; and that a revoked one stops."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import httpx2
import pytest

from marketplace.client import opening
from marketplace.client.aio import AsyncWattline
from marketplace.client.gateway import Gateway
from marketplace.client.payer import Grant, Payer
from marketplace.client.problems import GatewayTrouble, problem_of
from marketplace.client.views import Surroundings
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket, problem
from tests.client.fakes import DOMAIN, NO_KEY, FakeChain

BUYER, AGENT = Signer(b"\x11" * 32), Signer(b"\x12" * 32)
GRANT = Grant(
    name="agent", buyer=BUYER.address, key=AGENT.address, node_ids=(), domain=DOMAIN, models=("tiny-*", "bge")
)


def test_models_survive_the_file_and_older_files_allow_any(tmp_path: Path) -> None:
    path = tmp_path / "agent.grant.json"
    GRANT.save(path)
    assert Grant.load(path).models == ("tiny-*", "bge")
    old = {name: value for name, value in GRANT.to_json().items() if name != "models"}
    path.write_text(json.dumps(old))
    assert Grant.load(path).models == ()
    path.write_text(json.dumps(old | {"models": [""]}))
    with pytest.raises(BadRequest, match="is no grant"):
        Grant.load(path)


@pytest.mark.parametrize(
    ("model", "allowed"), [("tiny-chat", True), ("bge", True), ("bge-large", False), ("TINY-chat", False)]
)
async def test_client_refuses_a_model_off_its_list_before_any_call(
    market: FakeMarket, model: str, allowed: bool
) -> None:
    market.names |= {"bge", "bge-large", "TINY-chat"}
    market.chain.accounts[BUYER.address] = 5_000_000
    market.chain.keys[BUYER.address, AGENT.address] = dataclasses.replace(
        NO_KEY,
        per_session_atoms=1_000_000,
        per_day_atoms=1_000_000,
        total_atoms=1_000_000,
        expires_at=1 << 40,
        nonce=1,
    )
    async with AsyncWattline(market.desk(AGENT), payer=Payer.granted(AGENT, GRANT, DOMAIN)) as watt:
        if allowed:
            assert (await watt.chat("hi", model=model)).text == "Hello, world"
            return
        with pytest.raises(BadRequest) as seen:
            await watt.chat("hi", model=model)
        assert seen.value.code is ErrorCode.MODEL_NOT_ALLOWED
        assert market.calls == []


@pytest.mark.parametrize(("expires_at", "nonce", "over"), [(0, 5, True), (0, 0, False), (1 << 40, 5, False)])
async def test_client_of_a_revoked_key_does_not_open(
    monkeypatch: pytest.MonkeyPatch, expires_at: int, nonce: int, over: bool
) -> None:
    fake = FakeChain()
    fake.keys[BUYER.address, AGENT.address] = dataclasses.replace(NO_KEY, expires_at=expires_at, nonce=nonce)
    monkeypatch.setattr(opening, "_connect", lambda _rpc_url, _deployment: fake)
    options = {
        "gateway_url": "http://gateway.test",
        "rpc_url": "",
        "deployment": "d",
        "key": AGENT,
        "grant": GRANT,
    }
    if not over:
        await (await AsyncWattline.open(**options)).aclose()
        return
    with pytest.raises(BadRequest) as seen:
        await AsyncWattline.open(**options)
    assert seen.value.code is ErrorCode.KEY_REVOKED


@pytest.mark.parametrize("code", [ErrorCode.NOT_READY, ErrorCode.INTERNAL])
async def test_order_that_may_have_been_taken_is_sent_again_and_no_other_is_signed(
    market: FakeMarket, code: ErrorCode
) -> None:
    """A 503 after the work says nothing of the order; a second order would be a second charge."""
    lost = 2

    async def losing(request: httpx2.Request) -> httpx2.Response:
        nonlocal lost
        answer = await market.handle(request)
        if request.url.path == "/v1/jobs" and lost:
            lost -= 1
            return problem(code)
        return answer

    market.chain.accounts[BUYER.address] = 5_000_000
    desk = market.desk(BUYER)
    around = Surroundings(
        now_ms=market.clock.now_ms, sleep=market.clock.sleep, random_bytes=market.clock.random_bytes
    )
    gateway = Gateway("http://gateway.test", around, transport=httpx2.MockTransport(losing))
    async with AsyncWattline(dataclasses.replace(desk, gateway=gateway), buyer=BUYER) as watt:
        result = await watt.chat("hi", model="tiny-chat")
        assert (result.text, result.attempts, len(market.orders)) == ("Hello, world", 1, 1)


async def test_order_nobody_can_say_anything_of_stays_open(market: FakeMarket) -> None:
    market.nodes[1].behaviour = "problem not_ready"
    market.chain.accounts[BUYER.address] = 5_000_000
    async with AsyncWattline(market.desk(BUYER), buyer=BUYER) as watt:
        with pytest.raises(GatewayTrouble) as seen:
            await watt.chat("hi", model="tiny-chat")
        assert seen.value.values["outcome"] == "pending"


def test_refund_is_told_as_such() -> None:
    assert problem_of({"code": "node_failed", "charged": "refunded"}).charged == "refunded"
    assert problem_of({"code": "node_failed", "charged": "maybe"}).charged is False
