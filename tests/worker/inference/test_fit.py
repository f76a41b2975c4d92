"""What an engine finds out about its machine when it starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from marketplace.protocol.errors import ErrorCode
from tests.worker.inference.conftest import Start, ask, chat, embed, llama_config
from worker.inference.errors import OutOfContext
from worker.inference.fit import best_threads, free_bytes, token_budget, usable_cores
from worker.inference.ragged import KvCache, RaggedModel
from worker.models import ModelDir


@pytest.fixture(autouse=True)
def _one_thread():
    yield
    torch.set_num_threads(1)


def trial(seconds: dict[int, float], cores: int) -> int:
    """Threads chosen where a step takes so long with each number of them."""
    now = {"s": 0.0}

    def step() -> None:
        now["s"] += seconds[torch.get_num_threads()]

    clock: Callable[[], float] = lambda: now["s"]  # noqa: E731
    chosen = best_threads(step, cores=cores, clock=clock)
    assert torch.get_num_threads() == chosen
    return chosen


def test_more_threads_are_taken_only_where_they_are_worth_it() -> None:
    assert trial({1: 8.0, 2: 4.5, 4: 4.0, 8: 1.0}, cores=8) == 2
    assert trial({1: 8.0, 2: 30.0}, cores=8) == 1


def test_threads_are_never_more_than_the_cores() -> None:
    assert trial({1: 8.0, 2: 4.0, 4: 2.0, 8: 1.0}, cores=4) == 4
    assert trial({1: 8.0}, cores=1) == 1
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_free_memory_stops_at_the_limit_of_a_container(tmp_path: Path) -> None:
    whole = free_bytes("cpu", tmp_path / "none")
    assert whole > 1 << 20
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert free_bytes("cpu", tmp_path) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes("cpu", tmp_path) > 2_000_000


def test_bytes_of_a_token_are_those_of_its_keys_and_values(chat_model: ModelDir) -> None:
    # 2 layers, keys and values, 2 heads of 16 numbers of 4 bytes
    model = RaggedModel(chat_model.path, device="cpu", tile_rows=16)
    assert model.bytes_per_token == 2 * 2 * 2 * 16 * 4
    assert token_budget(512, 1_000_000, percent=50) == 488


def test_prompt_that_could_never_fit_the_memory_is_refused(
    chat_model: ModelDir, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.inference.decoder.free_bytes", lambda device: 512 * 2 * 2 * 80)
    engine = start(chat_model, prefix_percent=0)
    with pytest.raises(OutOfContext) as caught:
        ask(engine, chat(chat_model, "x" * 80))
    assert caught.value.code is ErrorCode.INPUT_TOO_LONG
    assert caught.value.values["context_tokens"] == 80
    answer = ask(engine, chat(chat_model, "x" * 20, max_tokens=500, temperature_milli=2000))
    assert answer.outcome.units_in + answer.outcome.units_out <= 80


def test_engines_choose_their_threads_unless_told(
    chat_model: ModelDir, embed_model: ModelDir, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def choose(step: Callable[[], object], *, cores: int) -> int:
        step()
        asked.append(cores)
        return 1

    monkeypatch.setattr("worker.inference.ragged.best_threads", choose)
    monkeypatch.setattr("worker.inference.batch.best_threads", choose)
    told = ask(start(chat_model, threads=1), chat(chat_model, "Hi"))
    ask(start(embed_model, threads=1), embed(embed_model, "w1 w2"))
    assert asked == []
    found = ask(start(chat_model, threads=0), chat(chat_model, "Hi"))
    ask(start(embed_model, threads=0), embed(embed_model, "w1 w2"))
    assert asked == [usable_cores()] * 2
    assert found.tokens == told.tokens


def test_threads_do_not_change_a_bit(tmp_path: Path) -> None:
    torch.manual_seed(1)
    LlamaForCausalLM(llama_config()).to(torch.bfloat16).save_pretrained(tmp_path)
    with torch.inference_mode():
        scores = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            model = RaggedModel(tmp_path, device="cpu", tile_rows=16)
            caches = [KvCache(9) for _ in range(40)]
            scores.append(model.decode(caches, list(range(40))))
        assert torch.equal(*scores)
