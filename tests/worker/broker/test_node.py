"""A whole node: real daemon, real Valkey, real Celery workers, real chain; only the engine is tiny."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from marketplace.protocol import wire
from marketplace.protocol.errors import BadRequest, Broken
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.merkle import request_hash, root
from marketplace.protocol.messages import Offer, Open, Order, Receipt, ReceiptStatus, Voucher
from marketplace.protocol.payloads import encode_payload
from tests.hardhat import Chain, key
from tests.worker.gateway import FakeGateway
from tests.worker.support import chat_payload
from worker.cli.node import app
from worker.ledger import Ledger
from worker.main import build_daemon, now_ms
from worker.node.daemon import Daemon
from worker.node.facts import Notes
from worker.settings import NodeSettings

pytestmark = [pytest.mark.broker, pytest.mark.chain]
OWNER, BUYER, SESSION_KEY = key(3), key(4), key(5)


class Market:
    """A node under test with the buyer's side of it."""

    def __init__(self, chain: Chain, gateway: FakeGateway, settings: NodeSettings, daemon: Daemon) -> None:
        self.chain, self.gateway, self.settings, self.daemon = chain, gateway, settings, daemon
        self.ledger = Ledger(settings.ledger)
        self.notes = Notes(self.ledger)
        self.receipts: list[bytes] = []

    @property
    def domain(self) -> Any:
        return self.chain.deployment.domain

    async def open_session(self, amount_atoms: int = 1_000_000, *, seconds: int = 3_600) -> bytes:
        await self.gateway.wait_for(wire.Offers, timeout_seconds=60)
        node_id = self.notes.node_id
        assert node_id is not None

        def on_chain() -> Open:
            self.chain.fund(BUYER, amount_atoms)
            return self.chain.open_session(BUYER, SESSION_KEY, node_id, amount_atoms, seconds=seconds)

        return (await asyncio.to_thread(on_chain)).digest(self.domain)

    def frame(self, session_id: bytes, seq: int, *, seconds: int = 60) -> wire.OrderFrame:
        offer = Offer.decode(self.gateway.of(wire.Offers)[-1].offers[0].message)
        salt, payload = os.urandom(32), encode_payload(chat_payload())
        order = Order(
            session_id=session_id,
            seq=seq,
            offer_hash=offer.digest(self.domain),
            request_hash=request_hash(salt, payload),
            max_amount_atoms=2_000,
            issued_at_ms=now_ms(),
            deadline_ms=now_ms() + seconds * 1000,
            reply_key=bytes(32),
        )
        return wire.OrderFrame(
            job_id=f"job_{seq}",
            trace_id=os.urandom(16).hex(),
            order=wire.Signed(message=order.encode(), signature=SESSION_KEY.sign(order, self.domain)),
            salt=salt,
            payload=payload,
            lease_until_ms=now_ms() + 60_000,
        )

    async def voucher(self, session_id: bytes, seqs: int) -> wire.VoucherTaken:
        receipts = [Receipt.decode(f.receipt.message) for f in self.gateway.of(wire.ReceiptFrame)]
        voucher = Voucher(
            session_id=session_id,
            through_seq=seqs,
            amount_atoms=sum(receipt.amount_atoms for receipt in receipts),
            receipts_root=root([receipt.digest(self.domain) for receipt in receipts]),
        )
        signed = wire.Signed(message=voucher.encode(), signature=SESSION_KEY.sign(voucher, self.domain))
        await self.gateway.send(wire.VoucherFrame(voucher=signed, trace_ids=["a" * 32]))
        return (await self.gateway.wait_for(wire.VoucherTaken))[-1]


def settings_for(chain: Chain, folder: Path, gateway: FakeGateway, **changes: Any) -> NodeSettings:
    deployment = folder / "deployment.json"
    chain.deployment.save(deployment)
    values: dict[str, Any] = {
        "data_dir": folder / "node",
        "rpc_url": chain.url,
        "deployment_path": deployment,
        "gateway_url": gateway.url,
        "owner_key": to_hex(OWNER.secret),
        "models": [{"model": "tiny", "price_per_job_atoms": 1_000, "price_out_per_million_atoms": 1_000_000}],
        "slots": 2,
        "worker_lease_ms": 2_000,
        "reconcile_every_ms": 200,
        "settle_every_ms": 500,
        "settle_min_total_atoms": 1_000_000_000,
        "stop_seconds": 20,
        "start_seconds": 60,
        "spare_worker": False,
    }
    return NodeSettings(**values | changes)


@asynccontextmanager
async def running(chain: Chain, folder: Path, **changes: Any) -> AsyncIterator[Market]:
    gateway = FakeGateway(chain.deployment.domain)
    async with gateway.running():
        settings = settings_for(chain, folder, gateway, **changes)
        daemon = build_daemon(settings, worker_app="tests.worker.broker.tiny_app")
        task = asyncio.create_task(daemon.run())
        market = Market(chain, gateway, settings, daemon)
        try:
            yield market
        finally:
            daemon.stop()
            await task


async def eventually(true: Callable[[], Any], timeout_seconds: float = 20) -> None:
    async with asyncio.timeout(timeout_seconds):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110 - another process changes the ledger
            await asyncio.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_node_registers_serves_settles_and_leaves_nothing_behind(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_PACE_SECONDS", "0.01")
    async with running(chain, tmp_path) as market:
        session_id = await market.open_session()
        node_id = market.notes.node_id
        assert node_id is not None
        state = chain.client.node(node_id)
        assert state is not None
        assert (state.owner, state.serving) == (OWNER.address, True)
        for seq in (1, 2, 3):
            await market.gateway.send(market.frame(session_id, seq))
            await market.gateway.wait_for(wire.ReceiptFrame, seq)
        receipts = [Receipt.decode(f.receipt.message) for f in market.gateway.of(wire.ReceiptFrame)]
        assert [r.status for r in receipts] == [ReceiptStatus.DONE] * 3
        assert [r.amount_atoms for r in receipts] == [1_008] * 3
        taken = await market.voucher(session_id, 3)
        assert taken.code is None
        pids = [market.notes.ready_pid("infer"), market.notes.ready_pid("settle")]
        broker_files = tmp_path / "node" / "broker"
        assert (broker_files / "broker.json").exists()
    # Stopping settled what was payable, and every process is gone.
    settled = chain.client.session(session_id, SESSION_KEY.address)
    assert settled is not None
    assert (settled.paid_atoms, settled.through_seq) == (3_024, 3)
    assert not any(alive(pid) for pid in pids if pid)
    assert not (broker_files / "broker.json").exists()
    assert not (tmp_path / "node" / "run" / "daemon.json").exists()
    record = market.ledger.transactions.newest(1)[0]
    assert record.intent.startswith("settle:")
    assert record.trace_ids == "a" * 32


async def test_restarted_node_keeps_its_id_and_goes_on(chain: Chain, tmp_path: Path) -> None:
    async with running(chain, tmp_path) as market:
        session_id = await market.open_session()
        first = market.notes.node_id
        count = chain.client.node_count()
    async with running(chain, tmp_path) as market:
        await market.gateway.wait_for(wire.Offers, timeout_seconds=60)
        assert (market.notes.node_id, chain.client.node_count()) == (first, count)
        await market.gateway.send(market.frame(session_id, 1))
        await market.gateway.wait_for(wire.ReceiptFrame)


async def test_node_that_lost_its_ledger_finds_itself_on_the_chain(chain: Chain, tmp_path: Path) -> None:
    async with running(chain, tmp_path) as market:
        await market.gateway.wait_for(wire.Offers, timeout_seconds=60)
        first = market.notes.node_id
        count = chain.client.node_count()
    market.ledger.close()
    (tmp_path / "node" / "ledger.db").unlink()
    async with running(chain, tmp_path) as market:
        await market.gateway.wait_for(wire.Offers, timeout_seconds=60)
        assert (market.notes.node_id, chain.client.node_count()) == (first, count)


async def test_job_of_a_killed_infer_worker_is_finished_once_within_seconds(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_PACE_SECONDS", "0.3")
    async with running(chain, tmp_path) as market:
        session_id = await market.open_session()
        await market.gateway.send(market.frame(session_id, 1))
        await market.gateway.wait_for(wire.ChunkFrame, 3)
        victim = market.notes.ready_pid("infer")
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        receipt = (await market.gateway.wait_for(wire.ReceiptFrame, timeout_seconds=30))[0]
        took = time.monotonic() - began
        assert took < 15
        assert Receipt.decode(receipt.receipt.message).status == ReceiptStatus.DONE
        assert [chunk.index for chunk in market.gateway.of(wire.ChunkFrame)] == list(range(9))
        held = market.ledger.orders.get(receipt.order_hash)
        assert held is not None
        assert held.attempts == 2
        assert market.notes.ready_pid("infer") != victim
        # The redelivered and the resent task find the receipt; no second one comes.
        await market.gateway.send(market.frame(session_id, 2))
        await market.gateway.wait_for(wire.ReceiptFrame, 2)
        assert market.ledger.receipts.totals()["receipts"] == 2


async def test_killed_broker_comes_back_and_jobs_go_on(chain: Chain, tmp_path: Path) -> None:
    async with running(chain, tmp_path, task_resend_ms=2_000) as market:
        session_id = await market.open_session()
        note = tmp_path / "node" / "broker" / "broker.json"
        os.kill(json.loads(note.read_text())["pid"], signal.SIGKILL)
        await market.gateway.send(market.frame(session_id, 1))
        await market.gateway.wait_for(wire.ReceiptFrame, timeout_seconds=40)


async def test_node_whose_model_does_not_load_says_so_and_stops(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_FAILS", "1")
    gateway = FakeGateway(chain.deployment.domain)
    async with gateway.running():
        daemon = build_daemon(
            settings_for(chain, tmp_path, gateway), worker_app="tests.worker.broker.tiny_app"
        )
        with pytest.raises(Broken, match="the infer worker ended with status 1"):
            await daemon.run()
    assert gateway.links == 0
    assert not (tmp_path / "node" / "broker" / "broker.json").exists()


async def test_drain_finishes_running_jobs_then_stops(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_PACE_SECONDS", "0.2")
    gateway = FakeGateway(chain.deployment.domain)
    async with gateway.running():
        settings = settings_for(chain, tmp_path, gateway)
        daemon = build_daemon(settings, worker_app="tests.worker.broker.tiny_app")
        task = asyncio.create_task(daemon.run())
        market = Market(chain, gateway, settings, daemon)
        session_id = await market.open_session()
        await gateway.send(market.frame(session_id, 1))
        await gateway.wait_for(wire.ChunkFrame)
        market.notes.ask_drain()
        await gateway.until(lambda: gateway.of(wire.Heartbeat)[-1].draining)
        await gateway.send(market.frame(session_id, 2))
        assert (await gateway.wait_for(wire.Refused))[0].code == "node_busy"
        async with asyncio.timeout(30):
            await task
        receipt = Receipt.decode(gateway.of(wire.ReceiptFrame)[0].receipt.message)
        assert receipt.status == ReceiptStatus.DONE


@pytest.mark.rabbitmq
async def test_node_works_over_rabbitmq(chain: Chain, tmp_path: Path) -> None:
    url = os.environ.get("WATT_TEST_RABBITMQ_URL")
    if url is None:
        pytest.skip("WATT_TEST_RABBITMQ_URL names no RabbitMQ server")
    async with running(chain, tmp_path, broker_url=url) as market:
        session_id = await market.open_session()
        await market.gateway.send(market.frame(session_id, 1))
        receipt = (await market.gateway.wait_for(wire.ReceiptFrame))[0]
        assert Receipt.decode(receipt.receipt.message).status == ReceiptStatus.DONE


async def test_second_daemon_in_one_folder_is_refused(chain: Chain, tmp_path: Path) -> None:
    async with running(chain, tmp_path) as market:
        await market.gateway.wait_for(wire.Offers, timeout_seconds=60)
        second = build_daemon(market.settings, worker_app="tests.worker.broker.tiny_app")
        with pytest.raises(BadRequest, match="already runs"):
            await second.run()


async def test_workers_end_when_their_daemon_is_killed(chain: Chain, tmp_path: Path) -> None:
    gateway = FakeGateway(chain.deployment.domain)
    async with gateway.running():
        settings = settings_for(chain, tmp_path, gateway)
        script = (
            "import asyncio\nfrom worker.main import build_daemon\nfrom worker.settings import NodeSettings\n"
            "asyncio.run(build_daemon(NodeSettings(), worker_app='tests.worker.broker.tiny_app').run())"
        )
        environment = os.environ | settings.environment() | {"WATT_NODE_OWNER_KEY": to_hex(OWNER.secret)}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, env=environment)
        await gateway.wait_for(wire.Offers, timeout_seconds=90)
        notes = Notes(Ledger(settings.ledger))
        pids = [pid for role in ("infer", "settle") if (pid := notes.ready_pid(role))]
        process.kill()
        await process.wait()
        await eventually(lambda: not any(alive(pid) for pid in pids))
    # The broker it left behind is ended by the next daemon, and the queue in its files read on.
    left = json.loads((tmp_path / "node" / "broker" / "broker.json").read_text())["pid"]
    assert alive(left)
    async with running(chain, tmp_path) as market:
        await market.gateway.wait_for(wire.Offers, timeout_seconds=60)
        await eventually(lambda: not alive(left))


async def test_session_that_ends_without_a_voucher_is_claimed_for(chain: Chain, tmp_path: Path) -> None:
    async with running(chain, tmp_path, claim_min_atoms=1_000) as market:
        session_id = await market.open_session(seconds=30)
        await market.gateway.send(market.frame(session_id, 1, seconds=8))
        receipt = (await market.gateway.wait_for(wire.ReceiptFrame))[-1]
        await market.gateway.send(wire.Delivered(order_hash=receipt.order_hash))
        await eventually(lambda: market.ledger.claims.covered_atoms() == 1_008, 60)
        claim = chain.client.claim(session_id)
        assert claim is not None
        assert (claim.pending_atoms, claim.through_seq) == (1_008, 1)
        options = ["--data-dir", str(market.settings.data_dir), "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, app, ["claims", *options])
        (shown,) = json.loads(result.stdout)["claims"]
        assert (shown["stage"], shown["final_at"]) == ("pending", claim.final_at)


async def test_settle_command_settles_at_once(chain: Chain, tmp_path: Path) -> None:
    async with running(chain, tmp_path) as market:
        session_id = await market.open_session()
        await market.gateway.send(market.frame(session_id, 1))
        await market.gateway.wait_for(wire.ReceiptFrame)
        await market.voucher(session_id, 1)
        options = ["--data-dir", str(market.settings.data_dir), "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, app, ["settle", *options])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["settled_atoms"] == 1_008
        assert chain.client.session(session_id, SESSION_KEY.address).paid_atoms == 1_008  # type: ignore[union-attr]
        status = await asyncio.to_thread(CliRunner().invoke, app, ["status", *options])
        assert json.loads(status.stdout)["running"] is True
