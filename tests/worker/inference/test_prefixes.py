from __future__ import annotations

import pytest
import torch

from tests.worker.inference.conftest import Start, ask, chat
from worker.inference.prefixes import Prefixes
from worker.inference.ragged import RaggedModel
from worker.models import ModelDir

SYSTEM = "You answer every question in the voice of a very old lighthouse keeper. "


def block(tokens: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.zeros(tokens, 1, 1), torch.zeros(tokens, 1, 1))]


def test_blocks_not_used_for_longest_make_room() -> None:
    kept = Prefixes(20)
    kept.keep([1], block(8))
    kept.keep([2], block(8))
    assert kept.find([1])
    kept.keep([3], block(8))
    assert kept.find([2]) is None
    assert kept.find([1])
    assert kept.find([3])
    kept.keep([3], block(8))
    kept.keep([3], block(8))
    assert kept.find([1])
    kept.keep([4], block(21))
    assert kept.find([4]) is None


def test_shared_beginning_is_computed_once_and_changes_no_token_and_no_trace(
    chat_model: ModelDir, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[int] = []
    computed = RaggedModel.prompt_block

    def counted(model: RaggedModel, cache, tokens):
        blocks.append(len(tokens))
        return computed(model, cache, tokens)

    monkeypatch.setattr(RaggedModel, "prompt_block", counted)
    questions = [chat(chat_model, SYSTEM + end, temperature_milli=900) for end in ("Who?", "Where?", "Who?")]
    without = start(chat_model, prompt_block=16, prefix_percent=0, max_batch_tokens=2000)
    wanted = [ask(without, question) for question in questions]
    whole = len(blocks)
    blocks.clear()
    shared = start(chat_model, prompt_block=16, prefix_percent=20, max_batch_tokens=2000)
    blocks.clear()
    answers = [ask(shared, question) for question in questions]
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in wanted]
    assert [answer.outcome.trace for answer in answers] == [answer.outcome.trace for answer in wanted]
    assert all(answer.outcome.trace for answer in answers)
    assert len(blocks) < whole / 2
    assert all(answer.outcome.units_in == answers[0].outcome.units_in for answer in answers[::2])


def test_copied_block_has_the_bits_of_a_computed_one(chat_model: ModelDir) -> None:
    with torch.inference_mode():
        model = RaggedModel(chat_model.path, device="cpu", tile_rows=16)
        from worker.inference.kv import KvCache

        first, second = KvCache(60), KvCache(60)
        for start in (0, 16):
            model.prompt_block(first, list(range(start, start + 16)))
        model.restore(second, [(k[:16], v[:16]) for k, v in model.copy_of(first, 0)])
        scores = model.prompt_block(second, list(range(16, 32)))
        again = model.prompt_block(first, list(range(40, 56)))
        assert torch.equal(model.prompt_block(second, list(range(40, 56))), again)
        assert scores.shape == again.shape
        for layer in range(first.layers):
            for one, other in zip(first.stored(layer), second.stored(layer), strict=True):
                assert torch.equal(one, other)
