"""Classification and reranking by log-probability, on tiny random models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import ClassifyPayload, RerankPayload
from tests.worker.inference.conftest import (
    Asked,
    Start,
    ask,
    byte_tokenizer,
    embed,
    llama_config,
    save_chat_model,
    together,
)
from worker.inference.engine import Engine
from worker.inference.errors import EmptyInput, EngineFailed, OutOfContext, WrongTask
from worker.inference.scorer import Row, _lay_out
from worker.models import ModelDir, ModelError, from_directory, offered_as

LABELS = ("bad", "good", "so so")
TEXTS = tuple("word " * (1 + i % 7) + str(i) for i in range(20))


def classify(model: ModelDir, *texts: str, **fields: Any) -> ClassifyPayload:
    return ClassifyPayload(**{"model": to_hex(model.model_id), "input": texts, "labels": LABELS, **fields})


def rerank(model: ModelDir, query: str, *documents: str) -> RerankPayload:
    return RerankPayload(model=to_hex(model.model_id), query=query, documents=documents)


def logprob(model: ModelDir, beginning: str, text: str) -> tuple[float, int]:
    """Summed log-probability of a text after a beginning, and its tokens; the plain way."""
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    network = AutoModelForCausalLM.from_pretrained(model.path).float().eval()
    prefix, rest = tokenizer.encode(beginning), tokenizer.encode(text, add_special_tokens=False)
    with torch.inference_mode():
        scores = network(torch.tensor([[*prefix, *rest]])).logits[0].log_softmax(dim=-1)
    return sum(float(scores[len(prefix) - 1 + i, token]) for i, token in enumerate(rest)), len(rest)


@pytest.fixture(scope="module")
def half_model(tmp_path_factory: pytest.TempPathFactory) -> ModelDir:
    """In bfloat16, where the shape of a batch changes the rounding."""
    torch.manual_seed(11)
    model = LlamaForCausalLM(llama_config(hidden_size=256, num_hidden_layers=3, initializer_range=0.05)).to(
        torch.bfloat16
    )
    return save_chat_model(model, tmp_path_factory.mktemp("half") / "tiny")


def test_probabilities_are_those_of_each_label_read_by_itself(chat_model: ModelDir, start: Start) -> None:
    model = offered_as(chat_model, "classify")
    answer = ask(start(model), classify(model, *TEXTS[:5]))
    for text, row in zip(TEXTS, answer.rows, strict=False):
        logs = torch.tensor([logprob(model, f"{text}\nCategory:", f" {label}")[0] for label in LABELS])
        expected = {label: float(p) * 1e6 for label, p in zip(LABELS, logs.softmax(0), strict=True)}
        assert {score["label"] for score in row["scores"]} == set(LABELS)
        assert all(abs(s["millionths"] - expected[s["label"]]) < 100 for s in row["scores"])
        falling = [score["millionths"] for score in row["scores"]]
        assert falling == sorted(falling, reverse=True)


def test_documents_score_the_mean_of_the_query_after_each(chat_model: ModelDir, start: Start) -> None:
    model = offered_as(chat_model, "rerank")
    answer = ask(start(model), rerank(model, "why so", *TEXTS[:5]))
    for text, row in zip(TEXTS, answer.rows, strict=False):
        total, tokens = logprob(model, f"{text}\nQuestion:", " why so")
        assert abs(row["millionths"] - 1e6 * total / tokens) < 100


def test_question_is_part_of_what_is_read(chat_model: ModelDir, start: Start) -> None:
    model = offered_as(chat_model, "classify")
    engine = start(model)
    one, other = (ask(engine, classify(model, "x", question=q)) for q in ("Mood", "Topic of it"))
    assert one.rows != other.rows
    assert other.outcome.units_in - one.outcome.units_in == len("Topic of it") - len("Mood")


def test_scores_are_the_same_to_the_bit_alone_and_in_a_crowd(half_model: ModelDir, start: Start) -> None:
    model = offered_as(half_model, "rerank")
    engine, query = start(model), "what is it that they say"
    alone = [ask(engine, rerank(model, query, text)).rows[0]["millionths"] for text in TEXTS]
    crowd = together(
        *(lambda t=text: ask(engine, rerank(model, query, t)) for text in TEXTS),
        lambda: ask(engine, rerank(model, "another one", *TEXTS)),
    )
    assert [answer.rows[0]["millionths"] for answer in crowd[:-1]] == alone
    assert [row["millionths"] for row in ask(engine, rerank(model, query, *TEXTS)).rows] == alone


def test_units_are_the_tokens_read_the_beginning_once(chat_model: ModelDir, start: Start) -> None:
    model = offered_as(chat_model, "classify")
    engine, payload = start(model), classify(model, "ab", "abc")
    around = len("\nCategory:") + sum(len(f" {label}") for label in LABELS)
    assert engine.units_in(payload) == 2 + 3 + 2 * around
    outcome = ask(engine, payload).outcome
    assert (outcome.units_in, outcome.units_out, outcome.finish) == (engine.units_in(payload), 0, "done")
    assert outcome.units_in <= payload.most_units_in


def test_resumed_job_sends_only_what_is_missing(chat_model: ModelDir, start: Start) -> None:
    model = offered_as(chat_model, "rerank")
    engine, payload = start(model), rerank(model, "why", *TEXTS)
    whole = ask(engine, payload)
    assert len(whole.chunks) == 2
    for kept in range(len(whole.chunks) + 1):
        again: Asked = ask(engine, payload, resume=tuple(whole.chunks[:kept]))
        assert [chunk.body for chunk in again.chunks] == [chunk.body for chunk in whole.chunks]
        assert again.outcome.units_in == whole.outcome.units_in


@pytest.mark.parametrize("task", ["classify", "rerank"])
def test_what_is_longer_than_the_context_is_refused(chat_model: ModelDir, start: Start, task: str) -> None:
    model = offered_as(chat_model, task)
    long = "x" * 256
    payload = classify(model, "a", long) if task == "classify" else rerank(model, "q", "a", long)
    with pytest.raises(OutOfContext):
        ask(start(model), payload)


def test_text_without_words_is_refused_by_its_place(chat_model: ModelDir, start: Start) -> None:
    one, other = offered_as(chat_model, "classify"), offered_as(chat_model, "rerank")
    with pytest.raises(EmptyInput, match=r"input\.1"):
        ask(start(one), classify(one, "a", " "))
    engine = start(other)
    with pytest.raises(EmptyInput, match="query"):
        ask(engine, rerank(other, " ", "a"))
    with pytest.raises(EmptyInput, match=r"documents\.0"):
        ask(engine, rerank(other, "q", "\n"))


def test_payload_of_another_task_is_refused(chat_model: ModelDir, start: Start) -> None:
    model = offered_as(chat_model, "classify")
    engine: Engine = start(model)
    for payload in (rerank(model, "q", "a"), embed(model, "a")):
        with pytest.raises(WrongTask, match="does classify"):
            ask(engine, payload)


def test_profile_names_tiles_padding_and_dtype(half_model: ModelDir, start: Start) -> None:
    profile = start(offered_as(half_model, "classify"), tile_rows=16).profile
    assert (profile.engine, profile.dtype) == ("wattline-classify-1/tile64/pad32", "bfloat16")


def test_model_without_a_chat_template_can_be_scored(tmp_path: Path, start: Start) -> None:
    torch.manual_seed(3)
    network = GPT2LMHeadModel(
        GPT2Config(vocab_size=258, n_positions=128, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)
    )
    network.save_pretrained(tmp_path / "plain")
    byte_tokenizer(None).save_pretrained(tmp_path / "plain")
    model = offered_as(from_directory(tmp_path / "plain"), "rerank")
    row = ask(start(model), rerank(model, "why so", "because")).rows[0]
    total, tokens = logprob(model, "because\nQuestion:", " why so")
    assert abs(row["millionths"] - 1e6 * total / tokens) < 100


def test_model_whose_branches_see_each_other_is_refused(
    chat_model: ModelDir, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(row: Row, tokens: Any, positions: Any, seen: Any) -> None:
        _lay_out(row, tokens, positions, seen)
        seen |= torch.ones_like(seen).tril()

    monkeypatch.setattr("worker.inference.scorer._lay_out", forgetful)
    with pytest.raises(EngineFailed, match="side by side"):
        start(offered_as(chat_model, "classify"))


def test_architecture_without_attention_is_refused(tmp_path: Path, start: Start) -> None:
    torch.manual_seed(3)
    network = MambaForCausalLM(
        MambaConfig(vocab_size=258, hidden_size=32, num_hidden_layers=2, state_size=8, initializer_range=0.5)
    )
    network.save_pretrained(tmp_path / "state")
    byte_tokenizer(None).save_pretrained(tmp_path / "state")
    config = (tmp_path / "state" / "config.json").read_text()
    (tmp_path / "state" / "config.json").write_text(
        config.replace("{", '{"max_position_embeddings": 128,', 1)
    )
    with pytest.raises(EngineFailed):
        start(offered_as(from_directory(tmp_path / "state"), "classify"))


def test_model_is_offered_only_for_what_its_kind_can_do(chat_model: ModelDir, embed_model: ModelDir) -> None:
    assert offered_as(chat_model, "").task == "chat"
    assert offered_as(chat_model, "rerank").model_id == chat_model.model_id
    for model, task in ((embed_model, "classify"), (chat_model, "embed"), (chat_model, "sing")):
        with pytest.raises(ModelError):
            offered_as(model, task)
