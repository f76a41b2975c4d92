"""What a node commits to while it generates."""

from __future__ import annotations

import hashlib

import pytest
import torch

from marketplace.protocol.trace import BLOCK_TOKENS, trace_root
from tests.worker.inference.conftest import Start, chat, job, together
from tests.worker.proofs.conftest import ORDER, run, sampled
from worker.inference.engine import Chunk
from worker.models import ModelDir
from worker.proofs import fingerprint
from worker.proofs.trace import TraceWriter, raw_bytes


def rows(count: int, *, seed: int = 1) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(count, 24).bfloat16()


def test_block_binds_tokens_and_the_states_they_were_chosen_from() -> None:
    hidden, tokens = rows(70), list(range(70))
    writer = TraceWriter()
    for row, token in zip(hidden, tokens, strict=True):
        writer.see(row[None])
        writer.chose(token)
    blocks = writer.end()
    assert [len(block.token_ids) for block in blocks] == [32, 32, 6]
    assert [token for block in blocks for token in block.token_ids] == tokens
    assert blocks[1].digest == hashlib.sha256(raw_bytes(hidden[32:64])).digest()
    assert [len(block.fingerprint) for block in blocks] == [8 * 32, 8 * 32, 2 * 32]


def test_trace_is_the_same_however_rows_and_tokens_come_in() -> None:
    hidden, tokens = rows(45), list(range(45))
    late = TraceWriter(tokens[:40])
    late.see(hidden[:1])
    late.see(hidden[1:])
    for token in tokens[40:]:
        late.chose(token)
    prompt = TraceWriter()
    for row, token in zip(hidden, tokens, strict=True):
        prompt.see(row[None])
        prompt.chose(token)
    assert late.end() == prompt.end()


def test_trace_with_missing_rows_commits_to_nothing() -> None:
    writer = TraceWriter(range(40))
    writer.see(rows(39))
    assert writer.end() == ()


def test_fingerprint_tells_noise_from_another_model() -> None:
    hidden = rows(32).float()
    own = fingerprint.project(hidden[:: fingerprint.EVERY])
    near = fingerprint.from_bytes(fingerprint.fingerprint((hidden * 1.001).bfloat16()))
    far = fingerprint.from_bytes(fingerprint.fingerprint(hidden + 0.1 * rows(32, seed=2)))
    assert fingerprint.distances(near, own).max() < 0.01
    assert fingerprint.distances(far, own).mean() > 0.05


def test_fingerprint_that_holds_no_numbers_is_infinitely_far() -> None:
    own = fingerprint.project(rows(4).float())
    assert (fingerprint.distances(own * float("nan"), own) == float("inf")).all()


@pytest.mark.parametrize("cut", [0, 1, 3, 5])
def test_resumed_answer_has_the_trace_of_an_uninterrupted_one(
    chat_model: ModelDir, start: Start, cut: int
) -> None:
    engine = start(chat_model, prompt_block=16, chunk_tokens=9)
    payload = sampled(chat_model)
    whole = run(engine, payload)
    assert whole.outcome.units_out > 2 * BLOCK_TOKENS
    crowd = [lambda i=i: run(engine, sampled(chat_model, "y" * i), bytes([i]) * 32) for i in range(1, 5)]
    resume = tuple(whole.chunks[:cut])
    again = together(*crowd, lambda: run(engine, payload, resume=resume))[-1]
    assert again.outcome.trace == whole.outcome.trace
    assert trace_root(ORDER, again.outcome.trace) == trace_root(ORDER, whole.outcome.trace)


def test_resuming_a_finished_answer_computes_its_trace_and_sends_nothing(
    chat_model: ModelDir, start: Start
) -> None:
    engine = start(chat_model, prompt_block=16)
    payload = sampled(chat_model)
    whole = run(engine, payload)
    for kept in (len(whole.chunks) - 1, len(whole.chunks)):
        sent: list[Chunk] = []
        outcome = engine.run(
            job(payload, seed=whole_seed(payload), resume=tuple(whole.chunks[:kept])), sent.append
        )
        assert outcome.trace == whole.outcome.trace
        assert [chunk.body for chunk in sent] == [chunk.body for chunk in whole.chunks[kept:]]


def test_trace_covers_exactly_the_tokens_that_are_billed(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model)
    for payload in (chat(chat_model, "Hi"), sampled(chat_model, stop=("e",), temperature_milli=1500)):
        asked = run(engine, payload)
        traced = [token for block in asked.outcome.trace for token in block.token_ids]
        assert traced == asked.tokens
        assert len(traced) == asked.outcome.units_out


def whole_seed(payload: object) -> int:
    from marketplace.protocol.payloads import seed_of

    return seed_of(payload, ORDER)  # type: ignore[arg-type]
