"""The two models of the catalogue, from the package index to the answer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import (
    Answer,
    ChatMessage,
    ChatPayload,
    ClassifyPayload,
    EmbedPayload,
    RerankPayload,
)
from tests.worker.inference.conftest import Asked, Start, ask, together
from worker.inference.engine import Engine, EngineSettings
from worker.inference.pool import EnginePool, engine_builder
from worker.models import CATALOGUE, ModelDir, ensure, manifest, offered_as

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def home() -> Path:
    return Path(os.environ.get("WATT_MODELS_DIR") or ROOT / "build" / "models")


@pytest.fixture(scope="module")
def pool(home: Path):
    models = [ensure(name, home, print) for name in CATALOGUE]
    settings = EngineSettings(milliwatts_per_core=4000)
    pool = EnginePool(models, engine_builder(settings, now_ms=lambda: time.time_ns() // 1_000_000))
    pool.load()
    yield pool
    pool.close()


def served(pool: EnginePool, task: str) -> tuple[Engine, ModelDir]:
    model = next(model for model in pool.loaded() if model.task == task)
    return pool.engine_for(model.model_id), model


def say(pool: EnginePool, text: str, *, resume=(), seed: int = 1, **fields) -> Asked:
    engine, model = served(pool, "chat")
    turns = (ChatMessage(role="user", content=text),)
    payload = ChatPayload(**{"model": to_hex(model.model_id), "messages": turns, "max_tokens": 40, **fields})
    return ask(engine, payload, seed=seed, resume=resume)


def test_fresh_conversion_gets_the_pinned_id(home: Path, tmp_path: Path) -> None:
    # Only the conversion is fresh; what was downloaded before is read again.
    (home / "downloads").mkdir(parents=True, exist_ok=True)
    (tmp_path / "downloads").symlink_to(home / "downloads")
    for name, entry in CATALOGUE.items():
        made = ensure(name, tmp_path, print)
        assert to_hex(made.model_id) == entry.model_id
        assert manifest.verify(made.path, made.model_id) == made.manifest


def test_capital_of_france_is_paris(pool: EnginePool) -> None:
    answer = say(pool, "What is the capital of France?")
    assert "Paris" in answer.text
    assert answer.finish == "stop"
    assert answer.outcome.units_out == len(answer.tokens) < 40
    assert answer.outcome.reading.device_microseconds > 0


def test_sampled_answer_is_the_same_alone_in_a_crowd_and_resumed(pool: EnginePool) -> None:
    """In bfloat16, where the shape of a batch otherwise changes the rounding, and with it the words."""
    story = {"text": "Tell me a story about a cat.", "temperature_milli": 900, "top_p_milli": 950}
    alone = say(pool, **story)
    crowd = [
        lambda i=i: say(pool, f"Write about the number {i}.", temperature_milli=900, seed=i)
        for i in range(11)
    ]
    assert together(*crowd, lambda: say(pool, **story))[-1].tokens == alone.tokens
    for kept in range(0, len(alone.chunks), 2):
        again = say(pool, **story, resume=tuple(alone.chunks[:kept]))
        assert (again.tokens, again.text) == (alone.tokens, alone.text)


def test_characters_beyond_ascii_arrive_whole(pool: EnginePool) -> None:
    answer = say(pool, "Repeat exactly: naïve café, 你好, 🎉🎉", max_tokens=60)
    assert all("\N{REPLACEMENT CHARACTER}" not in Answer([c.body]).text for c in answer.chunks[:-2])


def test_related_words_are_closer_than_unrelated_ones(pool: EnginePool) -> None:
    engine, model = served(pool, "embed")
    texts = ("cat", "kitten", "escrow", "A kitten sleeps in the sun.", "A young cat naps where it is warm.")
    answer = ask(engine, EmbedPayload(model=to_hex(model.model_id), input=texts))
    vectors = np.array(answer.vectors)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.6
    assert far < 0.3
    assert vectors[3] @ vectors[4] > vectors[3] @ vectors[2] + 0.3
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_context_of_the_catalogue_is_what_the_models_read(pool: EnginePool) -> None:
    engine, model = served(pool, "embed")
    long = EmbedPayload(model=to_hex(model.model_id), input=("word " * 1000,))
    assert engine.units_in(long) == CATALOGUE["all-minilm-l6-v2"].context_tokens
    config = (served(pool, "chat")[1].path / "config.json").read_text()
    assert f'"max_position_embeddings": {CATALOGUE["smollm2-135m-instruct"].context_tokens}' in config


def test_sentences_get_the_label_a_reader_would_give(home: Path, start: Start) -> None:
    model = offered_as(ensure("smollm2-135m-instruct", home, print), "classify")
    engine = start(model)
    labels = ("sports", "economy", "health", "politics")
    texts = {
        "The striker scored twice in the final.": "sports",
        "The central bank raised rates again.": "economy",
        "A new vaccine against malaria works.": "health",
        "Parliament passed the budget.": "politics",
    }
    asked = {"model": to_hex(model.model_id), "labels": labels, "question": "Topic"}
    answer = ask(engine, ClassifyPayload(input=tuple(texts), **asked))
    assert [row["scores"][0]["label"] for row in answer.rows] == list(texts.values())
    # In bfloat16, where the shape of a batch otherwise changes the rounding.
    for place, text in enumerate(texts):
        alone = ask(engine, ClassifyPayload(input=(text,), **asked))
        assert alone.rows[0]["scores"] == answer.rows[place]["scores"]


def test_document_that_answers_the_query_comes_first(home: Path, start: Start) -> None:
    model = offered_as(ensure("smollm2-135m-instruct", home, print), "rerank")
    documents = (
        "Our offices are closed on Sundays.",
        "Refunds are paid to your card within five days after you ask for them.",
        "The weather in Lisbon is mild in winter.",
        "Cats sleep sixteen hours a day.",
    )
    payload = RerankPayload(
        model=to_hex(model.model_id), query="How can I get my money back?", documents=documents
    )
    answer = ask(start(model), payload)
    shown = payload.shown(Answer(chunk.body for chunk in answer.chunks))["results"]
    assert shown[0]["index"] == 1
    assert not shown[0]["near_tie"]
