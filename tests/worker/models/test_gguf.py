from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from worker.models import ModelError, ModelErrorCode, from_directory
from worker.models.gguf import convert

WIDTH, HIDDEN, HEADS, KV, VOCABULARY = 64, 96, 4, 2, 264
HEAD = WIDTH // HEADS


def write_gguf(path: Path, *, architecture: str = "llama", extra: str | None = None) -> Path:
    file = path / "tiny.gguf"
    writer = GGUFWriter(file, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_block_count(2)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    tokens = ["<|end|>", "<|start|>", "12", *(chr(33 + i) for i in range(60))]
    tokens += [f"<x{i}>" for i in range(VOCABULARY - len(tokens))]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * (VOCABULARY - 2)])
    writer.add_token_merges(["1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages }}")
    random = np.random.default_rng(1)
    shapes = {"token_embd": (VOCABULARY, WIDTH), "output_norm": (WIDTH,)}
    for block in range(2):
        of = {
            "attn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (KV * HEAD, WIDTH),
            "attn_v": (KV * HEAD, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (HIDDEN, WIDTH),
            "ffn_up": (HIDDEN, WIDTH),
            "ffn_down": (WIDTH, HIDDEN),
        }
        shapes |= {f"blk.{block}.{name}": shape for name, shape in of.items()}
    if extra:
        shapes[extra] = (WIDTH, WIDTH)
    for name, shape in shapes.items():
        value = random.normal(0, 0.3, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", value)
        else:
            kind = GGMLQuantizationType.Q4_1
            writer.add_tensor(f"{name}.weight", quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def converted(file: Path, target: Path) -> Path:
    target.mkdir()
    convert(file, target, lambda _: None)
    return target


def test_conversion_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    file = write_gguf(tmp_path)
    first, second = converted(file, tmp_path / "a"), converted(file, tmp_path / "b")
    assert from_directory(first).model_id == from_directory(second).model_id
    for one in first.iterdir():
        assert one.read_bytes() == (second / one.name).read_bytes()
    assert "transformers_version" not in (first / "config.json").read_text()


def test_converted_model_computes_what_the_library_importer_computes(tmp_path: Path) -> None:
    file = write_gguf(tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(converted(file, tmp_path / "a"), dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file=file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    ).float()
    tokens = torch.tensor([[5, 9, 30, 2, 7, 7]])
    with torch.inference_mode():
        assert torch.equal(ours(tokens).logits, theirs(tokens).logits)


def test_converted_tokenizer_splits_digits_and_knows_its_special_tokens(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted(write_gguf(tmp_path), tmp_path / "a"))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("12", add_special_tokens=False)) == ["1", "2"]
    assert tokenizer.encode("<|start|>A", add_special_tokens=False)[0] == 1
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|end|>", "<|start|>")
    assert tokenizer.chat_template == "{{ messages }}"


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        converted(write_gguf(tmp_path, architecture="gemma"), tmp_path / "a")
    assert caught.value.code is ModelErrorCode.UNSUPPORTED


def test_tensor_without_a_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"blk\.0\.attn_extra"):
        converted(write_gguf(tmp_path, extra="blk.0.attn_extra"), tmp_path / "a")
