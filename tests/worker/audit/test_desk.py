"""From a job that a node ran to the verdict of `watt audit replay`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marketplace.protocol.annex import Annex, AnnexV1, read_annex
from marketplace.protocol.bundle import Bundle
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Order, Receipt
from marketplace.protocol.trace import decode_blocks, trace_root
from tests.cli import shapes
from tests.worker.inference.conftest import Start, chat, chat_model, start
from tests.worker.receipts.test_once import executor
from tests.worker.support import DOMAIN, GATEWAY, KEY, NODE, Bench
from worker.audit.calibrate import Plan, calibrate
from worker.audit.desk import claim_of, open_trace, read_trace
from worker.inference.engine import EngineSettings
from worker.models import ModelDir
from worker.proofs.calibration import read

__all__ = ["chat_model", "start"]


@pytest.fixture
def job(bench: Bench, chat_model: ModelDir, start: Start) -> tuple[Bench, Bundle]:
    """A finished job in a node's ledger, and the bundle its buyer has."""
    bench.served = {chat_model.model_id: "chat"}
    bench.offer = offer = bench.sell(model_id=chat_model.model_id)
    payload = chat(chat_model, "Audit me", max_tokens=70, temperature_milli=900)
    frame = bench.frame(payload=payload)
    order_hash = bench.intake.take(frame, GATEWAY).order_hash
    ran = executor(bench, start(chat_model))
    ran.execute(order_hash)
    assert ran.hand_over(timeout_seconds=60) == 0
    held = bench.ledger.receipts.get(order_hash)
    assert held is not None
    return bench, Bundle(
        domain=DOMAIN,
        offer=offer,
        offer_signature=NODE.sign(offer, DOMAIN),
        order=Order.decode(frame.order.message),
        order_signature=frame.order.signature,
        key=KEY.address,
        receipt=Receipt.decode(held.message),
        receipt_signature=held.signature,
        annex=held.annex,
        salt=frame.salt,
        payload=frame.payload,
        chunks=tuple(chunk.body for chunk in bench.ledger.chunks.of(order_hash)),
        node_id=bench.node_id,
        signer=NODE.address,
        epoch=1,
        settlement=None,
        trace_id=frame.trace_id,
        job_id="job_1",
        receipt_id="",
    )


def watt(*arguments: str) -> tuple[int, str, str]:
    return shapes.run("audit", *arguments)


def saved(folder: Path, bundle: Bundle, **changes: Any) -> str:
    file = folder / "receipt.json"
    file.write_text(json.dumps(bundle.to_json() | changes))
    return str(file)


def test_annex_says_all_that_is_needed_to_compute_the_answer_again(job: tuple[Bench, Bundle]) -> None:
    bench, bundle = job
    annex = read_annex(bundle.annex)
    assert isinstance(annex, Annex)
    body = bench.ledger.traces.get(bundle.receipt.order_hash)
    assert body is not None
    assert annex.trace_root == to_hex(trace_root(bundle.receipt.order_hash, decode_blocks(body)))
    assert annex.sampling is not None
    assert (annex.sampling.temperature_milli, annex.sampling.max_tokens) == (900, 70)
    assert len(claim_of(bundle).token_ids) == annex.units_out == bundle.receipt.units_out


def test_replay_accepts_honest_work_and_prints_json(
    job: tuple[Bench, Bundle], chat_model: ModelDir, tmp_path: Path
) -> None:
    file = saved(tmp_path, job[1])
    code, out, err = watt("replay", file, "--model", str(chat_model.path), "--json")
    assert code == 0, err
    (found,) = json.loads(out)["jobs"]
    assert (found["tier"], found["outcome"], found["reasons"]) == ("exact", "accepted", [])
    code, out, _ = watt("replay", file, "--model", str(chat_model.path))
    assert "accepted (exact tier, " in out


def test_replay_in_the_tolerance_tier_takes_blocks_and_limits(
    job: tuple[Bench, Bundle], chat_model: ModelDir, tmp_path: Path
) -> None:
    bench, bundle = job
    model = str(chat_model.path)
    code, out, err = watt("open", to_hex(bundle.receipt.order_hash), "--data-dir", str(bench.folder))
    assert code == 0, err
    trace, limits = tmp_path / "trace.json", tmp_path / "limits.json"
    trace.write_text(out)
    made = calibrate(chat_model, EngineSettings(), Plan(jobs=9, max_tokens=40), lambda _text: None)
    limits.write_bytes(made.encode())
    assert read(limits.read_bytes()) == made
    file = saved(tmp_path, bundle)
    tolerant = ("replay", file, "--model", model, "--tier", "tolerance")
    code, out, err = watt(*tolerant, "--trace", str(trace), "--calibration", str(limits))
    assert code == 0, out + err
    assert "accepted (tolerance tier, " in out
    code, out, _ = watt(*tolerant, "--calibration", str(limits))
    assert (code, "no_fingerprint" in out) == (1, True)
    code, out, _ = watt("replay", file, file, *tolerant[2:], "--trace", str(trace), "--json")
    assert (code, json.loads(out)["pooled"]["jobs"]) == (1, 2)
    code, out, _ = watt(*tolerant, "--trace", str(trace))
    assert (code, "no_calibration" in out) == (1, True)


def test_one_block_can_be_opened_alone(job: tuple[Bench, Bundle]) -> None:
    bench, bundle = job
    order_hash = bundle.receipt.order_hash
    opened = open_trace(bench.ledger, order_hash, [1])
    assert read_trace(json.dumps(opened).encode())[1][0].root(order_hash) == trace_root(
        order_hash, decode_blocks(bench.ledger.traces.get(order_hash) or b"[]")
    )
    with pytest.raises(BadRequest, match="there is no block 9 of"):
        open_trace(bench.ledger, order_hash, [9])
    with pytest.raises(BadRequest, match="no trace of order"):
        open_trace(bench.ledger, bytes(32), [])


def test_replay_says_what_is_wrong_with_its_input_and_what_helps(
    job: tuple[Bench, Bundle], chat_model: ModelDir, embed_like: str, tmp_path: Path
) -> None:
    _, bundle = job
    file, model = saved(tmp_path, bundle), str(chat_model.path)
    (tmp_path / "text.json").write_text("hello")
    cases = {
        ("replay", str(tmp_path / "none.json"), "--model", model): "cannot be read",
        ("replay", str(tmp_path / "text.json"), "--model", model): "is not JSON",
        ("replay", file, "--model", embed_like): "unknown",
        ("replay", file, "--model", model, "--tier", "best"): "--tier cannot be best",
        ("replay", file, "--model", model, "--trace", str(tmp_path / "text.json")): "not an opened trace",
        ("replay", file, "--model", model, "--calibration", file): "not a calibration file",
        ("open", "0x12", "--data-dir", str(tmp_path)): "is no order hash",
    }
    for arguments, said in cases.items():
        code, _, err = watt(*arguments)
        assert code == (3 if said == "unknown" else 1)
        assert "→" in err
        code, out, _ = watt(*arguments, "--json")
        assert json.loads(out)["error"]["hint"]
        assert said in err or said == "unknown", err


@pytest.fixture
def embed_like() -> str:
    return "no-such-model"


def test_what_was_not_signed_is_not_audited(job: tuple[Bench, Bundle], tmp_path: Path) -> None:
    from dataclasses import replace

    _, bundle = job
    for changes in (
        {"annex": bundle.annex + b" "},
        {"chunks": bundle.chunks[1:]},
        {"payload": bundle.payload + b" "},
        {"order": replace(bundle.order, seq=9)},
    ):
        with pytest.raises(BadRequest):
            claim_of(replace(bundle, **changes))


def test_first_version_of_the_annex_is_read_and_cannot_be_audited(job: tuple[Bench, Bundle]) -> None:
    from dataclasses import replace

    from marketplace.protocol.annex import exec_hash

    _, bundle = job
    old = AnnexV1(
        trace_id="ab" * 16, model="0x" + "11" * 32, seed="1", units_in=1, units_out=1, finish="stop",
        device_microseconds=1, energy_method="none", engine="e", torch="t", dtype="d",
    ).encode()  # fmt: skip
    assert isinstance(read_annex(old), AnnexV1)
    receipt = replace(bundle.receipt, exec_hash=exec_hash(old))
    with pytest.raises(BadRequest, match="version 1"):
        claim_of(replace(bundle, annex=old, receipt=receipt))
