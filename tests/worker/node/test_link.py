"""The link over a real WebSocket: handshake, orders, redelivery, leases, vouchers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from marketplace.protocol import wire
from marketplace.protocol.messages import Offer, Receipt, ReceiptStatus
from marketplace.protocol.signing import signer_of
from tests.worker.gateway import FakeGateway
from tests.worker.support import DOMAIN, ENCRYPTION, MODEL_ID, NODE, NODE_ID, Bench
from worker.ledger import NewChunk, OrderState
from worker.node.facts import INFER, Notes
from worker.node.link import Identity, LinkState
from worker.node.offers import Price, ServedModel
from worker.node.parts import DaemonOptions, Node, Parts, assemble


class Queue:
    """Keeps the tasks it is asked to send."""

    def __init__(self) -> None:
        self.tasks: list[bytes] = []
        self.up = True
        self.broker_url = "amqp://nowhere"

    def execute(self, order_hash: bytes, trace_id: str) -> bool:
        self.tasks.append(order_hash)
        return self.up

    def settle(self, **_: Any) -> bool:
        return self.up


class Linked:
    """A node's parts, linked to a fake gateway."""

    def __init__(self, bench: Bench, gateway: FakeGateway) -> None:
        self.bench, self.gateway = bench, gateway
        self.queue = Queue()
        self.states: list[LinkState] = []
        served = ServedModel(source="tiny", model_id=MODEL_ID, name="tiny", task="chat", context_tokens=512)
        Notes(bench.ledger).report_ready(INFER, 1, [served])
        options = DaemonOptions(
            data_dir=bench.folder,
            gateways=[gateway.url],
            queue="test",
            broker_url="amqp://nowhere",
            child_settings={},
            prices={
                "tiny": Price(
                    price_per_job_atoms=1_000, price_in_per_million_atoms=0, price_out_per_million_atoms=5
                )
            },
            slots=4,
            offer_valid_seconds=600,
            grace_seconds=900,
            session_max_age_ms=30_000,
            spare_worker=False,
            start_seconds=1,
            stop_seconds=1,
            drain_seconds=1,
            poll_without_hints_ms=20,
        )
        node = Node(
            ledger=bench.ledger,
            chain=bench.chain,
            identity=Identity(node_id=NODE_ID, signer=NODE, domain=DOMAIN, encryption_secret=ENCRYPTION),
            terms=bench.terms,
            options=options,
            now_ms=bench.clock,
            random=lambda size: b"\x05" * size,
        )
        self.parts: Parts = assemble(
            node,
            self.queue,
            tasks=lambda: bench.served,
            changed=lambda _url, state: self.states.append(state),  # type: ignore[arg-type]
        )
        self.link = self.parts.links[gateway.url]

    def frame(self, seq: int = 1, **changes: Any) -> wire.OrderFrame:
        return self.bench.frame(seq, **changes)

    def finish(self, order_hash: bytes, chunks: int = 2) -> None:
        """Does an order: stores chunks and signs."""
        clock, ledger = self.bench.clock, self.bench.ledger
        ledger.jobs.take_up(order_hash, "me", now_ms=clock.ms, until_ms=clock.ms + 1_000)
        with ledger.jobs.page("me") as page:
            page.add(
                [NewChunk(order_hash=order_hash, index=i, body=b"{}", token_ids=(i,)) for i in range(chunks)]
            )
        self.bench.desk.sign(order_hash, "me", self.bench.work())

    async def state(self, order_hash: bytes) -> str:
        held = self.bench.ledger.orders.get(order_hash)
        assert held is not None
        return held.state


@asynccontextmanager
async def linked(bench: Bench, **options: Any) -> AsyncIterator[Linked]:
    gateway = FakeGateway(DOMAIN, **options)
    async with gateway.running():
        made = Linked(bench, gateway)
        task = asyncio.create_task(made.link.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def eventually(true: Any) -> None:
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110 - another process changes the ledger
            await asyncio.sleep(0.01)


def delivered(made: Linked, order_hash: bytes) -> bool:
    held = made.bench.ledger.orders.get(order_hash)
    return held is not None and held.state == OrderState.DELIVERED


async def test_node_proves_its_key_and_shows_offers(bench: Bench) -> None:
    async with linked(bench) as made:
        offers = (await made.gateway.wait_for(wire.Offers))[0]
        hello, signer = made.gateway.hellos[0]
        assert (hello.node_id, hello.challenge, signer) == (NODE_ID, b"\x0c" * 32, NODE.address)
        offer = Offer.decode(offers.offers[0].message)
        assert signer_of(offer, DOMAIN, offers.offers[0].signature) == NODE.address
        assert bench.ledger.offers.get(offer.digest(DOMAIN)) is not None
        assert (offers.models[0].model_id, offers.models[0].task) == (MODEL_ID, "chat")
        beat = (await made.gateway.wait_for(wire.Heartbeat))[0]
        assert (beat.free_slots, beat.queue_depth, beat.loaded, beat.draining) == (4, 0, [MODEL_ID], False)


@pytest.mark.parametrize(
    "wrong", [{"chain_id": 1}, {"escrow": "0x" + "00" * 20}, {"version": 9}, {"nonce": b"\x01" * 31}]
)
async def test_node_does_not_greet_a_gateway_of_another_market(bench: Bench, wrong: dict[str, Any]) -> None:
    gateway = FakeGateway(DOMAIN)
    gateway.challenge = gateway.challenge.model_copy(update=wrong)
    async with gateway.running():
        made = Linked(bench, gateway)
        task = asyncio.create_task(made.link.run())
        problem = (await gateway.wait_for(wire.Problem))[0]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert problem.fatal
    assert gateway.hellos == []


async def test_order_is_accepted_done_and_delivered_in_order(bench: Bench) -> None:
    async with linked(bench) as made:
        frame = made.frame()
        await made.gateway.send(frame)
        accepted = (await made.gateway.wait_for(wire.Accepted))[0]
        await eventually(lambda: made.queue.tasks == [accepted.order_hash])
        await asyncio.to_thread(made.finish, accepted.order_hash)
        receipt = (await made.gateway.wait_for(wire.ReceiptFrame))[0]
        chunks = made.gateway.of(wire.ChunkFrame)
        assert [chunk.index for chunk in chunks] == [0, 1]
        assert receipt.chunks == 2
        assert made.gateway.received.index(receipt) > made.gateway.received.index(chunks[-1])
        await eventually(lambda: delivered(made, accepted.order_hash))
        assert made.link.delivery.open == []


async def test_order_that_does_not_fit_is_refused_with_its_code(bench: Bench) -> None:
    async with linked(bench) as made:
        await made.gateway.send(made.frame(max_amount_atoms=1))
        refused = (await made.gateway.wait_for(wire.Refused))[0]
        assert refused.code == "price_above_max"
        assert made.queue.tasks == []


async def test_bytes_that_are_no_order_are_a_problem(bench: Bench) -> None:
    async with linked(bench) as made:
        frame = made.frame().model_copy(update={"order": wire.Signed(message=b"\x01", signature=b"\x01")})
        await made.gateway.send(frame)
        assert (await made.gateway.wait_for(wire.Problem))[0].code == "malformed_body"


async def test_undelivered_receipt_is_sent_again_on_the_next_link_with_the_same_bytes(bench: Bench) -> None:
    async with linked(bench, confirm=False) as made:
        await made.gateway.send(made.frame())
        order_hash = (await made.gateway.wait_for(wire.Accepted))[0].order_hash
        await asyncio.to_thread(made.finish, order_hash)
        first = (await made.gateway.wait_for(wire.ReceiptFrame))[0]
        await made.gateway.drop()
        made.gateway.confirm = True
        second = (await made.gateway.wait_for(wire.ReceiptFrame, 2))[1]
        assert second == first
        assert [chunk.index for chunk in made.gateway.of(wire.ChunkFrame)] == [0, 1, 0, 1]
        assert made.gateway.links == 2
        await eventually(lambda: delivered(made, order_hash))


async def test_receipt_signed_while_the_link_was_down_is_delivered_afterwards(bench: Bench) -> None:
    async with linked(bench) as made:
        await made.gateway.send(made.frame())
        order_hash = (await made.gateway.wait_for(wire.Accepted))[0].order_hash
        await made.gateway.close()
        await asyncio.to_thread(made.finish, order_hash)
        await made.gateway.open()
        await made.gateway.wait_for(wire.ReceiptFrame)
        await eventually(lambda: delivered(made, order_hash))


async def test_same_order_again_is_accepted_again_and_its_receipt_resent(bench: Bench) -> None:
    async with linked(bench, confirm=False) as made:
        frame = made.frame()
        await made.gateway.send(frame)
        order_hash = (await made.gateway.wait_for(wire.Accepted))[0].order_hash
        await asyncio.to_thread(made.finish, order_hash)
        await made.gateway.wait_for(wire.ReceiptFrame)
        await made.gateway.send(frame)
        await made.gateway.wait_for(wire.Accepted, 2)
        receipts = await made.gateway.wait_for(wire.ReceiptFrame, 2)
        assert receipts[0] == receipts[1]
        assert made.queue.tasks == [order_hash]


async def test_heartbeat_names_orders_until_they_are_confirmed_and_leases_move_on(bench: Bench) -> None:
    async with linked(bench, confirm=False) as made:
        await made.gateway.send(made.frame())
        order_hash = (await made.gateway.wait_for(wire.Accepted))[0].order_hash
        await made.gateway.until(lambda: made.gateway.of(wire.Heartbeat)[-1].running == [order_hash])
        until_ms = bench.clock.ms + 500_000
        await made.gateway.send(wire.Lease(orders=[order_hash], until_ms=until_ms))

        def extended() -> bool:
            held = bench.ledger.orders.get(order_hash)
            return held is not None and held.gateway_lease_until_ms == until_ms

        await eventually(extended)
        await made.gateway.send(wire.Lease(orders=[order_hash], until_ms=until_ms - 1))
        await made.gateway.send(wire.Delivered(order_hash=order_hash))
        await made.gateway.until(lambda: made.gateway.of(wire.Heartbeat)[-1].running == [])
        assert extended()


@pytest.mark.parametrize(("lease_ms", "waived"), [(1_000, True), (60_000, False)], ids=["late", "in time"])
async def test_superseded_receipt_is_waived_only_when_our_clock_agrees(
    bench: Bench, lease_ms: int, waived: bool
) -> None:
    async with linked(bench, confirm=False) as made:
        await made.gateway.send(made.frame(lease_ms=lease_ms))
        order_hash = (await made.gateway.wait_for(wire.Accepted))[0].order_hash
        await asyncio.to_thread(made.finish, order_hash)
        await made.gateway.wait_for(wire.ReceiptFrame)
        await made.gateway.send(wire.Superseded(order_hash=order_hash))
        await eventually(lambda: delivered(made, order_hash))
        held = bench.ledger.receipts.get(order_hash)
        assert held is not None
        assert held.waived is waived


async def test_voucher_is_taken_or_told_why_not(bench: Bench) -> None:
    async with linked(bench) as made:
        receipt = await asyncio.to_thread(bench.receipt, 1)
        for amount in (1_002, 1_003):
            message, signature = bench.voucher(1, amount, [receipt.digest])
            await made.gateway.send(
                wire.VoucherFrame(voucher=wire.Signed(message=message, signature=signature))
            )
            await made.gateway.wait_for(wire.VoucherTaken, amount - 1_001)
        refused, taken = made.gateway.of(wire.VoucherTaken)
        assert (refused.code, taken.code) == ("voucher_mismatch", None)
        assert (taken.session_id, taken.through_seq) == (bench.session_id, 1)


async def test_broken_frame_is_answered_and_the_link_stays(bench: Bench) -> None:
    async with linked(bench) as made:
        await made.gateway.until(lambda: made.gateway.links == 1)
        assert made.gateway._connection is not None
        await made.gateway._connection.send('{"kind": "nonsense"}')
        assert (await made.gateway.wait_for(wire.Problem))[0].code == "malformed_body"
        await made.gateway.send(made.frame())
        await made.gateway.wait_for(wire.Accepted)
        assert made.gateway.links == 1


async def test_lost_task_is_sent_again_and_an_order_past_its_deadline_ended(bench: Bench) -> None:
    async with linked(bench) as made:
        made.queue.up = False
        await made.gateway.send(made.frame())
        order_hash = (await made.gateway.wait_for(wire.Accepted))[0].order_hash
        await eventually(lambda: made.queue.tasks == [order_hash])
        await made.parts.reconcile()
        assert len(made.queue.tasks) == 1
        bench.clock.ms += 15_000
        made.queue.up = True
        await made.parts.reconcile()
        assert len(made.queue.tasks) == 2
        bench.clock.ms += 60_000
        await made.parts.reconcile()
        receipt = (await made.gateway.wait_for(wire.ReceiptFrame))[0]
        assert receipt.order_hash == order_hash
        assert b"deadline_passed" in receipt.annex


async def test_offers_are_signed_anew_past_half_their_life_or_when_the_price_changed(bench: Bench) -> None:
    async with linked(bench) as made:
        first = (await made.gateway.wait_for(wire.Offers))[0]
        again = await made.link._calls.offers()
        assert again == first
        bench.clock.ms += 301_000
        renewed = await made.link._calls.offers()
        assert renewed.offers != first.offers


async def test_draining_node_says_so(bench: Bench) -> None:
    async with linked(bench) as made:
        await made.gateway.wait_for(wire.Heartbeat)
        made.parts.intake.draining = True
        made.link.beat_now()
        await made.gateway.until(lambda: made.gateway.of(wire.Heartbeat)[-1].draining)


async def test_cancelled_order_nobody_works_on_ends_free_at_once(bench: Bench) -> None:
    async with linked(bench) as node:
        await node.gateway.send(node.frame())
        order_hash = (await node.gateway.wait_for(wire.Accepted))[0].order_hash
        await node.gateway.send(wire.Cancel(order_hash=order_hash))
        frame = (await node.gateway.wait_for(wire.ReceiptFrame))[0]
        receipt = Receipt.decode(frame.receipt.message)
        assert (receipt.status, receipt.amount_atoms) == (ReceiptStatus.FAILED, 0)


async def test_cancel_of_a_running_order_is_left_to_its_worker(bench: Bench) -> None:
    async with linked(bench) as node:
        await node.gateway.send(node.frame())
        order_hash = (await node.gateway.wait_for(wire.Accepted))[0].order_hash
        clock = bench.clock
        bench.ledger.jobs.take_up(order_hash, "me", now_ms=clock.ms, until_ms=clock.ms + 1_000)
        await node.gateway.send(wire.Cancel(order_hash=order_hash))
        await node.gateway.send(wire.Cancel(order_hash=order_hash))
        while not await asyncio.to_thread(bench.ledger.cancels.among, [order_hash]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert bench.ledger.receipts.get(order_hash) is None


async def test_cancel_of_another_gateways_order_changes_nothing(bench: Bench) -> None:
    order_hash = bench.take(1)
    async with linked(bench) as node:
        await node.gateway.send(wire.Cancel(order_hash=order_hash))
        await node.gateway.send(wire.Cancel(order_hash=b"\x09" * 32))
        # Frames are taken side by side, so the next order's answer alone would prove nothing.
        await node.gateway.send(node.frame(2))
        await node.gateway.wait_for(wire.Accepted)
    assert bench.ledger.cancels.among([order_hash]) == set()
    assert bench.ledger.receipts.get(order_hash) is None


def version(name: str = "tiny", model_id: bytes = MODEL_ID, **changes: Any) -> ServedModel:
    values = {"source": "tiny", "model_id": model_id, "name": name, "task": "chat", "context_tokens": 512}
    return ServedModel(**(values | changes))


async def test_version_on_trial_is_offered_beside_and_one_that_leaves_no_longer(bench: Bench) -> None:
    trial = b"\x22" * 32
    async with linked(bench) as made:
        (first,) = (await made.gateway.wait_for(wire.Offers))[0].models
        assert (first.model_id, first.canary_bps) == (MODEL_ID, 0)
        notes = Notes(bench.ledger)
        await asyncio.to_thread(
            notes.report_ready, INFER, 1, [version(), version(model_id=trial, canary_bps=500)]
        )
        await made.parts.look_at_models()
        await made.gateway.until(lambda: len(made.gateway.of(wire.Offers)) == 2)
        both = made.gateway.of(wire.Offers)[-1]
        assert [(m.model_id, m.canary_bps) for m in both.models] == [(MODEL_ID, 0), (trial, 500)]
        assert len(both.offers) == 2
        left = [version(model_id=trial), version(offered=False)]
        await asyncio.to_thread(notes.report_ready, INFER, 1, left)
        await made.parts.look_at_models()
        await made.gateway.until(lambda: len(made.gateway.of(wire.Offers)) == 3)
        assert [m.model_id for m in made.gateway.of(wire.Offers)[-1].models] == [trial]
        assert [m.model_id for m in notes.served()] == [trial, MODEL_ID]


async def test_same_models_again_are_not_offered_again(bench: Bench) -> None:
    async with linked(bench) as made:
        await made.gateway.wait_for(wire.Offers)
        assert not made.parts.watch.changed()
        await asyncio.to_thread(Notes(bench.ledger).report_ready, INFER, 2, [version()])
        assert not made.parts.watch.changed()
