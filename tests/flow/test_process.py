"""The gateway as a process, over a real chain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from types import SimpleNamespace

import httpx2
import pytest

from marketplace.chain import calls
from marketplace.protocol import wire
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Open
from marketplace.protocol.signing import Signer
from tests.flow import node as fake
from tests.hardhat import chain, free_port, hardhat_node, key  # noqa: F401 - fixtures

pytestmark = pytest.mark.chain
BUYER, OWNER, RELAYER = key(1), key(2), key(3)
SECONDS = 60


@contextlib.asynccontextmanager
async def process(path, chain, **more):  # noqa: F811
    port = free_port()
    deployment = path / "deployment.json"
    chain.deployment.save(deployment)
    env = os.environ | {
        "WATT_PORT": str(port),
        "WATT_DATA_DIR": str(path),
        "WATT_RPC_URL": chain.url,
        "WATT_DEPLOYMENT_PATH": str(deployment),
        "WATT_RELAYER_KEY": to_hex(RELAYER.secret),
        "WATT_FOLLOW_EVERY_MS": "50",
        "WATT_PUMP_EVERY_MS": "50",
    }
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "marketplace.main", env=env | more, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False
        ) as http:
            yield running, http
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def until(ask):
    async with asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if (found := await ask()) is not None:
                    return found
            await asyncio.sleep(0.05)


async def ready(http):
    async def ask():
        answer = await http.get("/readyz")
        return answer.json() if answer.status_code == 200 else None

    return await until(ask)


def register(chain, signer):  # noqa: F811
    """A staked node, and a buyer with money in the escrow."""
    here = chain.deployment
    for call in (
        calls.faucet(here, OWNER.address, 10 * here.min_stake_atoms),
        calls.register(here, "test"),
        calls.approve(here, here.registry, 10 * here.min_stake_atoms),
        calls.stake(here, here.min_stake_atoms),
        calls.add_node(here, signer.address, b"\x01" * 32, OWNER.address, "test"),
    ):
        chain.send(OWNER, call)
    for call in (
        calls.faucet(here, BUYER.address, 1_000_000),
        calls.approve(here, here.escrow, 1_000_000),
        calls.deposit(here, 1_000_000),
    ):
        chain.send(BUYER, call)


async def test_process_opens_a_session_serves_a_job_and_stops_on_sigterm(tmp_path, chain):  # noqa: F811
    here, signer = chain.deployment, Signer(b"\x55" * 32)
    register(chain, signer)
    node_id = chain.client.node_ids_of(OWNER.address)[-1]
    async with process(tmp_path, chain) as (running, http):
        await ready(http)
        made = (await http.post("/v1/keys", json={})).json()
        now = int(time.time())
        terms = Open(
            buyer=BUYER.address,
            key=made["address"],
            node_id=node_id,
            amount_atoms=100_000,
            open_before=now + 300,
            expires_at=now + 600,
            salt=os.urandom(32),
        )
        body = {"open": terms.to_json(), "signature": to_hex(BUYER.sign(terms, here.domain))}
        asked = await http.post("/v1/sessions", json=body)
        assert asked.status_code == 202, asked.text

        async def opened():
            found = (await http.get(f"/v1/sessions/{asked.json()['session_id']}")).json()
            return found if found["status"] == "open" else None

        assert (await until(opened))["left_atoms"] == "100000"
        account = (await http.get(f"/v1/accounts/{BUYER.address}")).json()
        assert account["balance_atoms"] == "900000"

        stub = SimpleNamespace(
            url=str(http.base_url).rstrip("/"),
            clock=lambda: time.time_ns() // 1_000_000,
            market=SimpleNamespace(links=SimpleNamespace(_links={})),
        )
        fake_domain = here.domain
        node = fake.Node(stub, node_id, signer)
        node.domain = fake_domain
        node.valid_until = now + 600
        async with node:
            answer = await http.post(
                "/v1/chat/completions", json=fake.chat_body(), headers=fake.bearer(made["api_key"])
            )
            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["message"]["content"] == "Hello world"
            voucher = await node.expect(wire.VoucherFrame)
            chain.send(OWNER, calls.settle(here, [fake.voucher_of(voucher)]))

            async def settled():
                job = (await http.get(f"/v1/jobs/{answer.json()['job_id']}")).json()
                return job if job["phase"] == "settled" else None

            job = await until(settled)
            assert job["settled_tx"].startswith("0x")
            bundle = (await http.get(f"/v1/receipts/{job['receipt_id']}")).json()
            assert bundle["settlement"]["tx_hash"] == job["settled_tx"]
            running.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(running.wait(), 20) == 0


async def test_process_says_what_is_wrong_with_its_settings(tmp_path, chain):  # noqa: F811
    async with process(tmp_path, chain, WATT_LEASE_MS="soon") as (running, _):
        _, said = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode == 1
    assert b"WATT_LEASE_MS" in said


async def test_process_refuses_another_chain(tmp_path, chain):  # noqa: F811
    async with process(tmp_path, chain, WATT_RPC_URL="http://127.0.0.1:9") as (running, _):
        _, said = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode == 1
    assert b"\n" not in said.strip().splitlines()[-1]
