"""Every task from a signed order to a receipt that the buyer's library accepts, through a real engine."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from marketplace.client.bundle import Bundle
from marketplace.client.verify import check_offline, failures
from marketplace.protocol.errors import ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.merkle import response_hash
from marketplace.protocol.messages import Order, Receipt, ReceiptStatus
from marketplace.protocol.payloads import (
    TASKS,
    Answer,
    Payload,
    build_payload,
    parse_payload,
    units_in_ceiling,
)
from tests.worker.support import DOMAIN, GATEWAY, KEY, NODE, NODE_ID, Bench
from worker.execute import ExecuteLimits, Executor
from worker.inference.engine import EngineSettings, Upstream
from worker.inference.pool import EnginePool, engine_builder
from worker.ledger import OrderState
from worker.metering import DeclaredSource
from worker.models import ModelDir, offered_as
from worker.node.intake import Refusal
from worker.receipts import ChunkSpool, LeaseKeeper

Models = Callable[[str], ModelDir]
FAR = 1 << 60


@pytest.fixture
def model_for(chat_model: ModelDir, embed_model: ModelDir, image_model: ModelDir) -> Models:
    made = {"embed": embed_model, "classify-image": image_model}
    return lambda task: made.get(task) or offered_as(chat_model, task)


def small_image() -> str:
    out = BytesIO()
    Image.new("RGB", (20, 20), (200, 30, 30)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8},
    "embed": {"input": ["w1 w2", "w3"]},
    "classify": {"input": ["it was fine", "no"], "labels": ["good", "bad"]},
    "rerank": {"query": "why", "documents": ["because", "so", "never mind"]},
    "classify-image": {"images": [small_image()] * 2, "top": 3},
}


class Road:
    """A node with one model over a real ledger, intake and engine pool."""

    def __init__(self, folder: Path, model: ModelDir, **pool: Any) -> None:
        self.bench = Bench(folder)
        self.bench.served = {model.model_id: model.task}
        bounds = {"max_session_exposed_atoms": 10**6, "max_node_exposed_atoms": 10**6}
        self.bench.offer = self.bench.sell(
            model_id=model.model_id, price_in_per_million_atoms=1_000_000, price_out_per_million_atoms=0
        )
        settings = EngineSettings(chunk_ms=FAR)
        build = engine_builder(settings, now_ms=self.bench.clock, energy=DeclaredSource(4000), **pool)
        self.pool = EnginePool([model], build)
        self.bench.intake = self.bench.open_intake(count=self.count, **bounds)
        self.model = model
        self.counts = False

    def payload(self, task: str, **changes: Any) -> Payload:
        return build_payload(task, to_hex(self.model.model_id), BODIES[task] | changes)

    def count(self, data: bytes) -> int | None:
        return self.pool.units_in(parse_payload(data)) if self.counts else None

    def take(self, payload: Payload, *, most: int = 100_000) -> bytes:
        frame = self.bench.frame(payload=payload, max_amount_atoms=most)
        return self.bench.intake.take(frame, GATEWAY).order_hash

    def execute(self, order_hash: bytes, *, worker: str = "host-infer-1-a") -> None:
        """Runs an order to its end, whatever that is."""
        bench = self.bench
        executor = Executor(
            ledger=bench.ledger,
            desk=bench.desk,
            engines=self.pool,
            leases=LeaseKeeper(bench.ledger, worker, bench.clock, lease_ms=10_000),
            spool=ChunkSpool(bench.ledger, worker, lambda _: None),
            limits=ExecuteLimits(),
            now_ms=bench.clock,
        )
        executor.execute(order_hash)
        assert executor.hand_over(timeout_seconds=60) == 0

    def bundle(self, order_hash: bytes) -> Bundle:
        """What the buyer holds in the end."""
        ledger, offer = self.bench.ledger, self.bench.offer
        held, signed = ledger.orders.get(order_hash), ledger.receipts.get(order_hash)
        assert held is not None
        assert signed is not None
        return Bundle(
            domain=DOMAIN,
            offer=offer,
            offer_signature=NODE.sign(offer, DOMAIN),
            order=Order.decode(held.message),
            order_signature=held.signature,
            key=KEY.address,
            receipt=Receipt.decode(signed.message),
            receipt_signature=signed.signature,
            annex=signed.annex,
            salt=held.salt,
            payload=held.payload,
            chunks=tuple(chunk.body for chunk in ledger.chunks.of(order_hash)),
            node_id=NODE_ID,
            signer=NODE.address,
            epoch=1,
            settlement=None,
            trace_id=held.trace_id,
            job_id=held.job_id,
            receipt_id="",
        )

    def close(self) -> None:
        self.pool.close()
        self.bench.ledger.close()


@pytest.fixture
def open_road(tmp_path: Path) -> Iterator[Callable[..., Road]]:
    made: list[Road] = []

    def open_one(model: ModelDir, **pool: Any) -> Road:
        made.append(Road(tmp_path, model, **pool))
        return made[-1]

    yield open_one
    for road in made:
        road.close()


@pytest.mark.parametrize("task", TASKS)
def test_order_becomes_a_receipt_that_the_buyer_accepts(
    open_road: Callable[..., Road], model_for: Models, task: str
) -> None:
    road = open_road(model_for(task))
    payload = road.payload(task)
    order_hash = road.take(payload)
    road.execute(order_hash)
    bundle = road.bundle(order_hash)
    receipt = bundle.receipt
    assert failures(check_offline(bundle)) == []
    assert receipt.status == ReceiptStatus.DONE
    assert receipt.response_hash == response_hash(bundle.salt, bundle.chunks)
    assert 0 < receipt.units_in <= units_in_ceiling(payload)
    assert receipt.amount_atoms == 1_000 + receipt.units_in
    shown = payload.shown(Answer(bundle.chunks))
    assert len(shown.get("results") or shown.get("embeddings") or shown["text"]) > 0


@pytest.mark.parametrize("task", TASKS)
def test_job_that_may_cost_more_than_its_order_allows_is_refused_before_it_runs(
    open_road: Callable[..., Road], model_for: Models, task: str
) -> None:
    road = open_road(model_for(task))
    payload = road.payload(task)
    ceiling = 1_000 + units_in_ceiling(payload)
    with pytest.raises(Refusal) as refused:
        road.take(payload, most=ceiling - 1)
    assert refused.value.code is ErrorCode.PRICE_ABOVE_MAX
    assert road.take(payload, most=ceiling)


@pytest.mark.parametrize("task", TASKS)
def test_count_before_an_order_is_what_its_receipt_bills(
    open_road: Callable[..., Road], model_for: Models, task: str
) -> None:
    road = open_road(model_for(task))
    payload = road.payload(task)
    assert road.pool.units_in(payload) is None, "counting loads no model"
    road.pool.load()
    road.counts = True
    counted = road.pool.units_in(payload)
    assert counted is not None
    with pytest.raises(Refusal) as refused:
        road.take(payload, most=1_000 + counted - 1)
    assert refused.value.code is ErrorCode.PRICE_ABOVE_MAX
    order_hash = road.take(payload, most=1_000 + counted)
    road.execute(order_hash)
    receipt = road.bundle(order_hash).receipt
    assert (receipt.units_in, receipt.amount_atoms) == (counted, 1_000 + counted)


@pytest.mark.parametrize("task", ["classify", "rerank", "classify-image"])
def test_altered_answer_is_not_accepted(open_road: Callable[..., Road], model_for: Models, task: str) -> None:
    road = open_road(model_for(task))
    order_hash = road.take(road.payload(task))
    road.execute(order_hash)
    bundle = road.bundle(order_hash)
    altered = tuple(chunk.replace(b'"millionths":', b'"millionths":1', 1) for chunk in bundle.chunks)
    changed = Bundle(**{name: getattr(bundle, name) for name in Bundle.__slots__} | {"chunks": altered})
    assert {check.name for check in failures(check_offline(changed))} >= {"response hash"}


def test_input_that_cannot_be_run_ends_unpaid(open_road: Callable[..., Road], model_for: Models) -> None:
    road = open_road(model_for("classify-image"))
    order_hash = road.take(road.payload("classify-image", images=["bm90IGFuIGltYWdl"]))
    road.execute(order_hash)
    receipt = road.bundle(order_hash).receipt
    assert (receipt.status, receipt.amount_atoms) == (ReceiptStatus.FAILED, 0)


def test_same_job_again_gives_the_same_bytes(open_road: Callable[..., Road], model_for: Models) -> None:
    road = open_road(model_for("classify"))
    payload = road.payload("classify")
    chunks = []
    for seq in (1, 2):
        frame = road.bench.frame(seq, payload=payload, max_amount_atoms=100_000)
        order_hash = road.bench.intake.take(frame, GATEWAY).order_hash
        road.execute(order_hash)
        chunks.append(road.bundle(order_hash).chunks)
    assert chunks[0] == chunks[1]


def test_broken_server_leaves_the_order_for_a_retry_that_bills_only_what_it_delivered(
    open_road: Callable[..., Road], model_for: Models, server: Any
) -> None:
    model = model_for("chat")
    road = open_road(model, upstreams={model.model_id: Upstream(url=server.url)})
    order_hash = road.take(road.payload("chat", max_tokens=40))
    server.script = server.script[:3]
    road.execute(order_hash)
    held = road.bench.ledger.orders.get(order_hash)
    assert held is not None
    assert held.state != OrderState.RECEIPTED
    assert road.bench.ledger.receipts.get(order_hash) is None
    assert Answer(chunk.body for chunk in road.bench.ledger.chunks.of(order_hash)).text == "The "
    server.script = server.whole()
    road.execute(order_hash, worker="host-infer-2-b")
    bundle = road.bundle(order_hash)
    assert failures(check_offline(bundle)) == []
    assert Answer(bundle.chunks).text == "The sky is blue."
    assert bundle.receipt.units_out == len("The sky is blue.") + 1


def test_server_that_never_answers_is_never_paid(
    open_road: Callable[..., Road], model_for: Models, server: Any
) -> None:
    model = model_for("chat")
    road = open_road(model, upstreams={model.model_id: Upstream(url=server.url)})
    order_hash = road.take(road.payload("chat"))
    road.pool.load()
    server.script = []
    for attempt in range(3):
        road.execute(order_hash, worker=f"host-infer-{attempt}-x")
    road.execute(order_hash, worker="host-infer-9-x")
    receipt = road.bundle(order_hash).receipt
    assert (receipt.status, receipt.amount_atoms, receipt.units_out) == (ReceiptStatus.FAILED, 0, 0)
