from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from marketplace.protocol.payloads import Answer
from tests.worker.inference.conftest import Start, ask, chat, embed, job, together
from worker.inference.engine import Chunk
from worker.inference.errors import EmptyInput, EngineFailed, ModelNotServed, ResumeMismatch, WrongTask
from worker.models import ModelDir

TEXTS = [" ".join(f"w{(i * 7 + j) % 60}" for j in range(1 + i % 9)) for i in range(40)]


def reference(model: ModelDir, text: str) -> np.ndarray:
    """Mean pooling and normalising, one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    network = AutoModel.from_pretrained(model.path).eval()
    inputs = tokenizer([text], return_tensors="pt", truncation=True, max_length=12)
    with torch.inference_mode():
        mean = network(input_ids=inputs["input_ids"]).last_hidden_state[0].mean(dim=0)
    return (mean / mean.norm()).numpy()


def test_vectors_equal_one_by_one_and_come_in_order(embed_model: ModelDir, start: Start) -> None:
    answer = ask(start(embed_model, embed_batch_tokens=64), embed(embed_model, *TEXTS))
    assert len(answer.vectors) == len(TEXTS)
    for text, vector in zip(TEXTS, answer.vectors, strict=True):
        assert np.abs(np.array(vector) - reference(embed_model, text)).max() < 1e-5
        assert abs(np.linalg.norm(vector) - 1) < 1e-5


def test_chunks_hold_at_most_sixteen_texts(embed_model: ModelDir, start: Start) -> None:
    answer = ask(start(embed_model), embed(embed_model, *TEXTS))
    assert [len(Answer([chunk.body]).vectors) for chunk in answer.chunks[:1]] == [16]
    assert len(answer.chunks) == 3
    assert (answer.outcome.finish, answer.outcome.units_out) == ("done", 0)


def test_texts_beyond_the_limit_count_as_what_is_read(embed_model: ModelDir, start: Start) -> None:
    engine = start(embed_model)
    payload = embed(embed_model, "w1 w2", " ".join(["w3"] * 100))
    assert engine.units_in(payload) == 4 + 12
    assert ask(engine, payload).outcome.units_in == 16


def test_jobs_share_batches_and_get_their_own_vectors(embed_model: ModelDir, start: Start) -> None:
    engine = start(embed_model)
    answers = together(*(lambda t=text: ask(engine, embed(embed_model, t, "w1")) for text in TEXTS[:12]))
    for text, answer in zip(TEXTS, answers, strict=False):
        assert np.abs(np.array(answer.vectors[0]) - reference(embed_model, text)).max() < 1e-5


def test_resumed_job_sends_only_what_is_missing(embed_model: ModelDir, start: Start) -> None:
    engine = start(embed_model)
    whole = ask(engine, embed(embed_model, *TEXTS))
    for kept in range(len(whole.chunks) + 1):
        again = ask(engine, embed(embed_model, *TEXTS), resume=tuple(whole.chunks[:kept]))
        assert np.abs(np.array(again.vectors) - np.array(whole.vectors)).max() < 1e-5
        assert again.outcome.units_in == whole.outcome.units_in


def test_chunks_of_a_longer_job_are_not_continued(embed_model: ModelDir, start: Start) -> None:
    engine = start(embed_model)
    whole = ask(engine, embed(embed_model, *TEXTS))
    with pytest.raises(ResumeMismatch):
        ask(engine, embed(embed_model, "w1"), resume=tuple(whole.chunks))


def test_deadline_counts_only_texts_that_were_sent(embed_model: ModelDir, start: Start) -> None:
    clock = {"ms": 0}

    def now_ms() -> int:
        clock["ms"] += 1
        return clock["ms"]

    engine = start(embed_model, now_ms=now_ms, embed_batch_tokens=8)
    payload = embed(embed_model, *TEXTS)
    answer = ask(engine, payload, stop_at_ms=60)
    assert answer.outcome.finish == "deadline"
    assert 0 < len(answer.vectors) < len(TEXTS)
    sent = embed(embed_model, *TEXTS[: len(answer.vectors)])
    assert answer.outcome.units_in == engine.units_in(sent)


def test_emit_that_raises_stops_just_that_job(embed_model: ModelDir, start: Start) -> None:
    engine = start(embed_model, embed_batch_tokens=8)

    def lost(_: Chunk) -> None:
        raise ConnectionError

    results = together(
        lambda: engine.run(job(embed(embed_model, *TEXTS)), lost),
        lambda: ask(engine, embed(embed_model, *TEXTS)),
    )
    assert isinstance(results[0], ConnectionError)
    assert len(results[1].vectors) == len(TEXTS)


def test_text_without_words_is_refused_by_its_place(embed_model: ModelDir, start: Start) -> None:
    with pytest.raises(EmptyInput, match=r"input\.1"):
        ask(start(embed_model), embed(embed_model, "w1", "  "))


def test_payloads_it_cannot_run_are_refused(
    embed_model: ModelDir, chat_model: ModelDir, start: Start
) -> None:
    engine = start(embed_model)
    with pytest.raises(WrongTask):
        ask(engine, chat(embed_model, "w1"))
    with pytest.raises(ModelNotServed):
        ask(engine, embed(chat_model, "w1"))


def test_engine_that_breaks_down_fails_every_caller(
    embed_model: ModelDir, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(embed_model)
    entered = threading.Event()

    def break_down(*_: object) -> None:
        entered.set()
        raise RuntimeError("out of memory")

    monkeypatch.setattr("worker.inference.embedder.EmbeddingModel.vectors", break_down)
    results = together(*(lambda: ask(engine, embed(embed_model, "w1")) for _ in range(4)))
    assert entered.is_set()
    assert all(isinstance(result, EngineFailed) for result in results)


def test_profile_names_batch_and_dtype(embed_model: ModelDir, start: Start) -> None:
    profile = start(embed_model, embed_batch_tokens=64).profile
    assert (profile.engine, profile.dtype) == ("wattline-embed-2/batch64", "float32")
    assert (profile.threads, profile.device[:4], profile.trace) == (1, "cpu/", "")
