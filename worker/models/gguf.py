"""Turns a Llama-type GGUF file into safetensors, config and tokenizer.

The result is the same bytes wherever it runs: a model id depends on it.
Written out here rather than left to transformers' own importer, whose config files name the library's
version and gain fields with each release: every such change would be another model id.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file

from worker.models.errors import ModelError, ModelErrorCode

_TOP: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BYTE_LEVEL: Final = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
# GGUF stores only the name of the pre-tokenizer; "smollm" splits digits before anything else.
_PRE_TOKENIZERS: Final[dict[str, dict[str, Any]]] = {
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
    },
    "gpt-2": _BYTE_LEVEL,
}
_NORMAL_TOKEN: Final = 1


def convert(source: Path, target: Path, progress: Callable[[str], None]) -> None:
    """Writes the model of a GGUF file as bfloat16 safetensors into `target`.

    Raises:
        ModelError: not a Llama-type model with a GPT-2-type tokenizer.
    """
    reader = GGUFReader(source)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    _check_kind(facts)
    progress("unpacking weights")
    heads, kv = facts["llama.attention.head_count"], facts["llama.attention.head_count_kv"]
    weights = _weights(reader, heads=heads, kv=kv)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    progress("writing configuration and tokenizer")
    _write_json(target / "config.json", _config(facts, tied="lm_head.weight" not in weights))
    _write_json(target / "generation_config.json", _special_ids(facts))
    _write_json(target / "tokenizer.json", _tokenizer(facts))
    _write_json(target / "tokenizer_config.json", _tokenizer_config(facts))
    if template := facts.get("tokenizer.chat_template"):
        (target / "chat_template.jinja").write_bytes(template.encode())


def _check_kind(facts: dict[str, Any]) -> None:
    kind = (facts["general.architecture"], facts["tokenizer.ggml.model"])
    pre = facts.get("tokenizer.ggml.pre")
    if kind != ("llama", "gpt2") or pre not in _PRE_TOKENIZERS or "llama.rope.scaling.type" in facts:
        detail = f"GGUF of kind {kind[0]} with tokenizer {kind[1]}/{pre} is not read here."
        raise ModelError(ModelErrorCode.UNSUPPORTED, detail)


def _weights(reader: Any, *, heads: int, kv: int) -> dict[str, torch.Tensor]:
    weights = {}
    for tensor in reader.tensors:
        name = _tensor_name(tensor.name)
        value = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type)))
        if name.endswith("q_proj.weight"):
            value = _halves_apart(value, heads)
        elif name.endswith("k_proj.weight"):
            value = _halves_apart(value, kv)
        weights[name] = value.to(torch.bfloat16).contiguous()
    return weights


def _tensor_name(name: str) -> str:
    if name in _TOP:
        return _TOP[name]
    parts = name.split(".")
    if len(parts) != 4 or parts[0] != "blk" or parts[2] not in _BLOCK or parts[3] != "weight":
        raise ModelError(ModelErrorCode.UNSUPPORTED, f"GGUF tensor {name} has no place in a Llama model.")
    return f"model.layers.{parts[1]}.{_BLOCK[parts[2]]}.weight"


def _halves_apart(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Undoes GGUF's interleaving of rotary pairs: transformers rotates first half against second."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def _config(facts: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "max_position_embeddings": facts["llama.context_length"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "rms_norm_eps": _shortest(facts["llama.attention.layer_norm_rms_epsilon"]),
        "rope_parameters": {"rope_theta": float(facts["llama.rope.freq_base"]), "rope_type": "default"},
        "tie_word_embeddings": tied,
        "vocab_size": facts["llama.vocab_size"],
        **_special_ids(facts),
    }


def _shortest(value: float) -> float:
    """The decimal a float32 was written from: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _special_ids(facts: dict[str, Any]) -> dict[str, int]:
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    keys = {short: f"tokenizer.ggml.{long}_token_id" for short, long in names.items()}
    return {f"{short}_token_id": facts[key] for short, key in keys.items() if key in facts}


def _tokenizer(facts: dict[str, Any]) -> dict[str, Any]:
    tokens, kinds = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [
        {"id": number, "content": token, **flags}
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind != _NORMAL_TOKEN
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": _PRE_TOKENIZERS[facts["tokenizer.ggml.pre"]],
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in facts["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(facts: dict[str, Any]) -> dict[str, Any]:
    tokens = facts["tokenizer.ggml.tokens"]
    named = {key.removesuffix("_id"): tokens[number] for key, number in _special_ids(facts).items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": facts["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        **named,
    }


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
