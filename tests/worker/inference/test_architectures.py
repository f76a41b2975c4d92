"""Greedy answers equal transformers' own, architecture by architecture; what would not is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from worker.inference.errors import EngineFailed, ModelRefused
from worker.inference.kv import KvCache
from worker.inference.ragged import RaggedModel

SHARED = {
    "vocab_size": 258,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "max_position_embeddings": 256,
    "pad_token_id": 257,
    "bos_token_id": 256,
    "eos_token_id": 257,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 8},
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
    "Qwen3Moe": {"head_dim": 16, **EXPERTS},
    "Phi3": {"sliding_window": 8},
    "Gemma2": {"head_dim": 16, **MIXED, "attn_logit_softcapping": 2.0},
    "Gemma3Text": {"head_dim": 16, **MIXED},
    "Olmo2": {},
    "SmolLM3": {},
    "Granite": {"attention_multiplier": 0.2},
    "GPTNeoX": {},
    "Cohere": {},
    "Starcoder2": {"sliding_window": 8},
    "GptOss": {**MIXED, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "GPT2": {"n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 4},
}
# Past a window of 8 and several blocks of 16, past a slab of 32 while generating, and one token alone.
PROMPTS = [[7 * i % 250 for i in range(count)] for count in (1, 21, 45)]
ANSWER = 14


def build(name: str) -> Any:
    torch.manual_seed(3)
    plain = name.removesuffix("Text")
    config = getattr(transformers, f"{name}Config")
    network = getattr(transformers, f"{plain}LMHeadModel" if name == "GPT2" else f"{plain}ForCausalLM")
    return network(config(**{**SHARED, **ARCHITECTURES[name]}))


def reference(path: Path, prompt: list[int]) -> list[int]:
    """Greedy answer of `generate`."""
    network = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)
    network.generation_config.eos_token_id = None
    out = network.generate(ids, attention_mask=mask, max_new_tokens=ANSWER, do_sample=False)
    return out[0, len(prompt) :].tolist()


class Greedy:
    """Answers of a model, prompts read in blocks of 16."""

    def __init__(self, model: RaggedModel) -> None:
        self.model = model

    def read(self, prompt: list[int]) -> tuple[KvCache, int]:
        cache = KvCache(len(prompt) + ANSWER)
        for start in range(0, len(prompt), 16):
            scores = self.model.prompt_block(cache, prompt[start : start + 16])
        return cache, int(scores.argmax())

    def together(self, prompts: list[list[int]]) -> list[list[int]]:
        caches, tokens = map(list, zip(*(self.read(prompt) for prompt in prompts), strict=True))
        answers = [[token] for token in tokens]
        for _ in range(ANSWER - 1):
            tokens = self.model.decode(caches, tokens).argmax(-1).tolist()
            for answer, token in zip(answers, tokens, strict=True):
                answer.append(token)
        return answers

    def resumed(self, prompt: list[int], start: list[int]) -> list[int]:
        """The rest of an answer of which the start is known."""
        cache, _ = self.read(prompt)
        token = int(self.model.replay(cache, start).argmax())
        rest = [token]
        while len(start) + len(rest) < ANSWER:
            token = int(self.model.decode([cache], [token])[0].argmax())
            rest.append(token)
        return rest


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.inference_mode()
def test_greedy_answers_equal_generate_in_blocks_in_a_batch_and_resumed(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    build(name).save_pretrained(tmp_path)
    greedy = Greedy(RaggedModel(tmp_path, device="cpu", tile_rows=16))
    wanted = [reference(tmp_path, prompt) for prompt in PROMPTS]
    assert greedy.together(PROMPTS) == wanted
    assert greedy.resumed(PROMPTS[1], wanted[1][:6]) == wanted[1][6:]
    assert len({tuple(answer) for answer in wanted}) > 1


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "Qwen3Moe", "GptOss", "GPT2"])
@torch.inference_mode()
def test_bits_do_not_depend_on_the_batch_nor_on_being_replayed(name: str, tmp_path: Path) -> None:
    """In bfloat16, where a product of another shape rounds differently."""
    torch.set_num_threads(1)
    build(name).to(torch.bfloat16).save_pretrained(tmp_path)
    model = RaggedModel(tmp_path, device="cpu", tile_rows=16)
    greedy = Greedy(model)
    prompt, answer = PROMPTS[1], [5 * i % 250 for i in range(ANSWER)]

    def computed(others: int) -> KvCache:
        """Keys and values of the answer, computed among others of different lengths."""
        rows = [greedy.read(prompt)[0], *(greedy.read(PROMPTS[i % 3])[0] for i in range(others))]
        for token in answer:
            model.decode(rows, [token] * len(rows))
        return rows[0]

    alone, crowd, replayed = computed(0), computed(37), greedy.read(prompt)[0]
    model.replay(replayed, answer)
    for layer in range(alone.layers):
        for mine, there, again in zip(
            *(cache.stored(layer) for cache in (alone, crowd, replayed)), strict=True
        ):
            assert len(mine) == len(prompt) + ANSWER
            assert torch.equal(mine, there)
            assert torch.equal(mine, again)


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.inference_mode()
def test_states_behind_scores_follow_the_order_of_the_sequences_and_have_no_filling(
    name: str, tmp_path: Path
) -> None:
    """Of sequences padded to different lengths, the longest first: they are computed in another order."""
    torch.set_num_threads(1)
    build(name).save_pretrained(tmp_path)
    model = RaggedModel(tmp_path, device="cpu", tile_rows=16)
    greedy = Greedy(model)
    prompts = sorted(PROMPTS, key=len, reverse=True)
    answer = [5 * i % 250 for i in range(6)]
    caches = [greedy.read(prompt)[0] for prompt in prompts]
    rows: list[torch.Tensor] = []
    for token in answer:
        model.decode(caches, [token] * len(caches))
        rows.append(model.hidden)
    assert all(len(step) == len(prompts) for step in rows)
    for place, prompt in enumerate(prompts):
        model.replay_scored(greedy.read(prompt)[0], answer)
        assert torch.equal(model.hidden, torch.stack([step[place] for step in rows]))


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.inference_mode()
def test_head_apart_from_its_base_gives_the_scores_of_the_whole_model(name: str, tmp_path: Path) -> None:
    """Caps and scales included, behind a start that was computed before, and with the base back in place."""
    torch.set_num_threads(1)
    build(name).save_pretrained(tmp_path)
    model = RaggedModel(tmp_path, device="cpu", tile_rows=16)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    caches = [KvCache(len(prompt)) for prompt in PROMPTS]
    model.restore(caches[2], model.copy_of(Greedy(model).read(PROMPTS[2][:4])[0], 0))
    given = [*PROMPTS[:2], PROMPTS[2][4:]]
    for prompt, tokens, states in zip(PROMPTS, given, model.states(caches, given), strict=True):
        wanted = whole(torch.tensor([prompt])).logits[0, -len(tokens) :]
        torch.testing.assert_close(model.scores(states), wanted.float(), rtol=1e-3, atol=1e-4)
    Greedy(model).read(PROMPTS[0])


@torch.inference_mode()
def test_products_of_experts_and_routers_are_tiled_too(tmp_path: Path) -> None:
    build("Qwen3Moe").save_pretrained(tmp_path)
    model = RaggedModel(tmp_path, device="cpu", tile_rows=16)
    shapes = {tuple(kernel[0]) for kernel in model._tiling._proven}
    assert {(4, 64), (64, 64), (64, 32)} <= shapes


def test_model_whose_bits_depend_on_the_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.inference.tiles import Tiling

    right = Tiling.apply
    monkeypatch.setattr(Tiling, "apply", lambda *given: right(*given) * (1 + len(given[3].squeeze(0)) / 999))
    assert "depend on the batch" in refusal(build("Llama"), tmp_path)


@torch.inference_mode()
def test_weights_are_held_once(tmp_path: Path) -> None:
    """Where bfloat16 weights are kept in another order, the first one is given up."""
    build("Llama").to(torch.bfloat16).save_pretrained(tmp_path)
    model = RaggedModel(tmp_path, device="cpu", tile_rows=16)
    packs = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    for name, weight in model._model.named_parameters():
        if name.endswith("proj.weight"):
            assert weight.untyped_storage().nbytes() == (2 if packs else weight.nbytes)


def test_sequence_that_is_dropped_gives_its_place_back(tmp_path: Path) -> None:
    build("Llama").save_pretrained(tmp_path)
    with torch.inference_mode():
        model = RaggedModel(tmp_path, device="cpu", tile_rows=16)
        greedy = Greedy(model)
        kept, dropped = greedy.read(PROMPTS[1])[0], greedy.read(PROMPTS[1])[0]
        first = model.decode([dropped, kept], [3, 4])[1]
        assert len(kept.slab) == 2
        del dropped
        alone = greedy.read(PROMPTS[1])[0]
        assert torch.equal(model.decode([alone], [4])[0], first)
        assert torch.equal(model.decode([kept], [9])[0], model.decode([alone], [9])[0])
        assert len(kept.slab) == 2


def refusal(network: Any, path: Path) -> str:
    network.save_pretrained(path)
    with pytest.raises(EngineFailed) as caught:
        RaggedModel(path, device="cpu", tile_rows=16)
    assert isinstance(caught.value, ModelRefused)
    return str(caught.value)


def test_model_with_layers_of_another_kind_is_refused(tmp_path: Path) -> None:
    network = build("Llama")
    network.config.layer_types = ["chunked_attention", "full_attention"]
    assert "chunked_attention" in refusal(network, tmp_path)


def test_model_that_keeps_state_elsewhere_is_refused(tmp_path: Path) -> None:
    config = transformers.MambaConfig(vocab_size=258, hidden_size=32, num_hidden_layers=2)
    message = refusal(transformers.MambaForCausalLM(config), tmp_path)
    assert "serve" in message


def test_model_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.inference import attention

    right = attention.Call.score
    monkeypatch.setattr(attention.Call, "score", lambda *given: right(*given) * 1.1)
    assert "another result" in refusal(build("Llama"), tmp_path)
