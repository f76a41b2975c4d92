from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import Answer, ChatMessage, ChatPayload, EmbedPayload
from tests.worker.inference.openai_server import running as running
from tests.worker.inference.openai_server import server as server
from worker.inference.engine import Chunk, Engine, EngineJob, EngineSettings, Outcome
from worker.inference.tasks import build_engine
from worker.metering import DeclaredSource
from worker.models import ModelDir, from_directory

FAR = 1 << 60
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def byte_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """One token a byte: every character outside ASCII spans tokens."""
    vocab = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    fast.chat_template = template
    return fast


def llama_config(**changes: Any) -> LlamaConfig:
    return LlamaConfig(
        **{
            "vocab_size": 258,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "initializer_range": 0.3,
            "bos_token_id": 256,
            "eos_token_id": 257,
            "pad_token_id": 257,
            **changes,
        }
    )


def save_chat_model(model: Any, path: Path, *, template: str | None = TEMPLATE) -> ModelDir:
    model.save_pretrained(path)
    byte_tokenizer(template).save_pretrained(path)
    return from_directory(path)


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> ModelDir:
    torch.manual_seed(7)
    return save_chat_model(LlamaForCausalLM(llama_config()), tmp_path_factory.mktemp("chat") / "tiny")


@pytest.fixture(scope="session")
def embed_model(tmp_path_factory: pytest.TempPathFactory) -> ModelDir:
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("embed") / "tiny"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(60))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    config = BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(path)
    fast.save_pretrained(path)
    kinds = [
        {"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling", "Normalize")
    ]
    (path / "modules.json").write_text(json.dumps(kinds))
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return from_directory(path)


Start = Callable[..., Engine]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts engines and stops them after the test."""
    running: list[Engine] = []

    def open_engine(model: ModelDir, *, now_ms: Callable[[], int] = lambda: 0, **settings: Any) -> Engine:
        chosen = EngineSettings(**{"chunk_ms": FAR, **settings})
        engine = build_engine(model, chosen, energy=DeclaredSource(4000), now_ms=now_ms)
        engine.load()
        running.append(engine)
        return engine

    yield open_engine
    for engine in running:
        engine.close()


@pytest.fixture(scope="session")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> ModelDir:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("image") / "tiny"
    labels = {0: "cat", 1: "dog", 2: "owl", 3: "fox"}
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, initializer_range=0.3, id2label=labels,
        label2id={label: i for i, label in labels.items()},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(path)
    return from_directory(path)


class Asked:
    """One job, run to its end."""

    def __init__(self, chunks: list[Chunk], outcome: Outcome) -> None:
        self.chunks = chunks
        self.outcome = outcome
        answer = Answer(chunk.body for chunk in chunks)
        self.text, self.finish, self.vectors = answer.text, answer.finish, answer.floats()
        self.rows, self.logprobs = answer.rows, answer.logprobs
        self.tokens = [token for chunk in chunks for token in chunk.token_ids]


def chat(model: ModelDir, text: str, **fields: Any) -> ChatPayload:
    messages = (ChatMessage(role="user", content=text),)
    return ChatPayload(**{"model": to_hex(model.model_id), "messages": messages, "max_tokens": 12, **fields})


def embed(model: ModelDir, *texts: str) -> EmbedPayload:
    return EmbedPayload(model=to_hex(model.model_id), input=texts)


def job(payload: Any, **fields: Any) -> EngineJob:
    return EngineJob(**{"id": "job", "payload": payload, "seed": 5, "stop_at_ms": FAR, **fields})


def ask(engine: Engine, payload: Any, **fields: Any) -> Asked:
    given: tuple[Chunk, ...] = fields.get("resume", ())
    chunks = list(given)
    outcome = engine.run(job(payload, **fields), chunks.append)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    return Asked(chunks, outcome)


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Runs calls at the same time; their results, or the errors they raised."""
    results: list[Any] = [None] * len(calls)

    def keep(place: int, call: Callable[[], Any]) -> None:
        try:
            results[place] = call()
        except Exception as error:  # noqa: BLE001  # the test looks at it
            results[place] = error

    threads = [threading.Thread(target=keep, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a caller hangs"
    return results
