"""Texts read as one flat row have the vectors they have alone, or are not read so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from tests.worker.inference.conftest import Start, ask, embed
from tests.worker.inference.test_embed import TEXTS, reference
from worker.inference import embedder
from worker.inference.flat import flattened, pooled
from worker.models import ModelDir

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 120,
    "initializer_range": 0.3,
    "pad_token_id": 1,
}
FLAT: dict[str, tuple[Any, int]] = {
    "bert": (BertConfig, 0),
    "bert, tanh": (partial(BertConfig, hidden_act="gelu_new"), 0),
    "roberta": (RobertaConfig, 2),
    "xlm-roberta": (XLMRobertaConfig, 2),
}
# Layers of another make; layers named alike that are not all there is.
PADDED = {
    "mpnet": MPNetConfig,
    "modernbert": ModernBertConfig,
    "distilbert": DistilBertConfig,
    "electra": partial(ElectraConfig, embedding_size=24),
}
LENGTHS = (1, 5, 31, 32, 33, 96, 2, 64)


def network(config: Callable[..., Any], dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(3)
    shape = dict(SHAPE)
    if config is DistilBertConfig:
        shape |= {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    elif config is ModernBertConfig:
        shape |= {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    return AutoModel.from_config(config(**shape)).to(dtype).eval()


def rows(lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
    return [[4 + (place * 31 + i * 7) % 90 for i in range(length)] for place, length in enumerate(lengths)]


def alone(model: Any) -> torch.Tensor:
    states = [model(input_ids=torch.tensor([row])).last_hidden_state[0] for row in rows()]
    return pooled(states)


@torch.inference_mode()
@pytest.mark.parametrize("name", FLAT)
def test_a_flat_row_gives_each_text_its_own_vector(name: str) -> None:
    config, first = FLAT[name]
    wanted = alone(network(config))
    encoder = flattened(network(config), most_tokens=100, padding=1)
    assert encoder is not None
    assert encoder.first_position == first
    assert (pooled(encoder.states(rows())) - wanted).norm(dim=1).max() < 1e-5


@torch.inference_mode()
def test_half_precision_is_as_near_as_it_is_one_by_one() -> None:
    exact = alone(network(BertConfig))
    near = (alone(network(BertConfig, torch.bfloat16)) - exact).norm(dim=1).max()
    encoder = flattened(network(BertConfig, torch.bfloat16), most_tokens=100, padding=1)
    assert encoder is not None
    assert (pooled(encoder.states(rows())) - exact).norm(dim=1).max() < 1.5 * near


@torch.inference_mode()
@pytest.mark.parametrize("name", PADDED)
def test_models_that_cannot_be_read_flat_are_not(name: str) -> None:
    assert flattened(network(PADDED[name]), most_tokens=100, padding=1) is None


@torch.inference_mode()
def test_a_model_that_sees_neighbours_is_not_read_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_together(_: object, asked: torch.Tensor, heads: int) -> torch.Tensor:
        parts = (one.unflatten(1, (heads, -1)).transpose(0, 1)[None] for one in asked.chunk(3, dim=1))
        return functional.scaled_dot_product_attention(*parts)[0].transpose(0, 1).flatten(1)

    monkeypatch.setattr("worker.inference.flat._Texts.attend", all_together)
    assert flattened(network(BertConfig), most_tokens=100, padding=1) is None


@torch.inference_mode()
def test_without_packed_weights_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.inference.flat.can_pack", lambda _: False)
    encoder = flattened(network(BertConfig), most_tokens=100, padding=1)
    assert encoder is not None
    assert (pooled(encoder.states(rows())) - alone(network(BertConfig))).norm(dim=1).max() < 1e-5


def batches(engine: Any, model: ModelDir, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Lengths of the texts in each batch of a job; its vectors are right."""
    seen = []
    vectors = embedder.EmbeddingModel.vectors

    def spy(self: Any, asked: Sequence[Sequence[int]]) -> list[bytes]:
        seen.append([len(row) for row in asked])
        return vectors(self, asked)

    monkeypatch.setattr(embedder.EmbeddingModel, "vectors", spy)
    answer = ask(engine, embed(model, *TEXTS))
    for text, vector in zip(TEXTS, answer.vectors, strict=True):
        assert (torch.tensor(vector) - torch.tensor(reference(model, text))).abs().max() < 1e-5
    return seen


def test_a_flat_batch_holds_as_many_tokens_as_fit(
    embed_model: ModelDir, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = batches(start(embed_model, embed_batch_tokens=64), embed_model, monkeypatch)
    assert all(sum(batch) <= 64 for batch in seen)
    assert any(len(batch) * max(batch) > 64 for batch in seen)


def test_a_padded_batch_counts_its_filling(
    embed_model: ModelDir, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedder, "flattened", lambda *_, **__: None)
    seen = batches(start(embed_model, embed_batch_tokens=64), embed_model, monkeypatch)
    assert all(len(batch) * max(batch) <= 64 for batch in seen)
    assert any(len(set(batch)) > 1 for batch in seen)
