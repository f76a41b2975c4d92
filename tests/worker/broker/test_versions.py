"""A whole node with real engines: versions come and go by command while orders arrive; all are done."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM
from typer.testing import CliRunner

from marketplace.protocol import wire
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.merkle import request_hash
from marketplace.protocol.messages import Offer, Order, Receipt, ReceiptStatus
from marketplace.protocol.payloads import ChatMessage, ChatPayload, encode_payload
from tests.hardhat import Chain
from tests.worker.broker.test_node import SESSION_KEY, Market, settings_for
from tests.worker.gateway import FakeGateway
from tests.worker.inference.conftest import llama_config, save_chat_model
from worker.cli.models import app
from worker.main import build_daemon, now_ms
from worker.models.shelf import Shelf

pytestmark = [pytest.mark.broker, pytest.mark.chain]


def frame(market: Market, session_id: bytes, seq: int) -> wire.OrderFrame:
    """An order under one of the offers that stand now, the models in turn."""
    offers = [Offer.decode(signed.message) for signed in market.gateway.of(wire.Offers)[-1].offers]
    offer = offers[seq % len(offers)]
    messages = (ChatMessage(role="user", content=f"job {seq}"),)
    payload = encode_payload(ChatPayload(model=to_hex(offer.model_id), messages=messages, max_tokens=24))
    salt = os.urandom(32)
    order = Order(
        session_id=session_id,
        seq=seq,
        offer_hash=offer.digest(market.domain),
        request_hash=request_hash(salt, payload),
        max_amount_atoms=2_000,
        issued_at_ms=now_ms(),
        deadline_ms=now_ms() + 120_000,
        reply_key=bytes(32),
    )
    return wire.OrderFrame(
        job_id=f"job_{seq}",
        trace_id=os.urandom(16).hex(),
        order=wire.Signed(message=order.encode(), signature=SESSION_KEY.sign(order, market.domain)),
        salt=salt,
        payload=payload,
        lease_until_ms=now_ms() + 120_000,
    )


def command(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"], env=environment)
    assert done.exit_code == 0, done.stderr
    return dict(json.loads(done.stdout))


async def test_versions_come_and_go_by_command_and_every_order_is_done(chain: Chain, tmp_path: Path) -> None:
    gateway = FakeGateway(chain.deployment.domain)
    async with gateway.running():
        changes = {"max_total_unacknowledged_atoms": 10**9, "max_unacknowledged_atoms": 10**9}
        settings = settings_for(chain, tmp_path, gateway, start_seconds=200, **changes)
        for seed, name in enumerate(("tiny", "tiny-2")):
            torch.manual_seed(seed)
            save_chat_model(LlamaForCausalLM(llama_config()), tmp_path / name)
            Shelf(settings.models_home, lambda _: None).add(str(tmp_path / name))
        daemon = build_daemon(settings)
        task = asyncio.create_task(daemon.run())
        try:
            market = Market(chain, gateway, settings, daemon)
            await gateway.wait_for(wire.Offers, timeout_seconds=200)
            session_id, seq, environment = await market.open_session(), 0, settings.environment()

            async def told(*arguments: str) -> dict[str, Any]:
                """Runs a command while orders arrive under whatever is offered."""
                nonlocal seq
                running = asyncio.create_task(asyncio.to_thread(command, environment, *arguments))
                while not running.done():
                    seq += 1
                    # No more than the node takes on at once.
                    await gateway.wait_for(wire.ReceiptFrame, seq - 8, timeout_seconds=120)
                    await gateway.send(frame(market, session_id, seq))
                    await gateway.wait_for(wire.Accepted, seq, timeout_seconds=60)
                return await running

            seen = len(gateway.of(wire.Offers))
            assert (await told("roll-out", "tiny-2", "--canary", "50%"))["running"] is True
            await gateway.until(lambda: len(gateway.of(wire.Offers)[-1].models) == 2)
            assert [m.canary_bps for m in gateway.of(wire.Offers)[-1].models] == [0, 5_000]
            assert (await told("promote"))["version"] == "tiny-2"
            assert (await told("roll-back"))["version"] == "tiny"
            await gateway.wait_for(wire.ReceiptFrame, seq, timeout_seconds=120)
            receipts = [Receipt.decode(f.receipt.message) for f in gateway.of(wire.ReceiptFrame)]
            assert {r.status for r in receipts} == {ReceiptStatus.DONE}
            assert len({r.order_hash for r in receipts}) == seq >= 3
            assert gateway.of(wire.Refused) == []
            assert len(gateway.of(wire.Offers)) > seen
        finally:
            daemon.stop()
            await task
