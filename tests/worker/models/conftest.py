from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest


def weights(dtype: str = "F32") -> bytes:
    """A safetensors file with one number in it."""
    header = json.dumps(
        {"__metadata__": {}, "w": {"dtype": dtype, "shape": [1], "data_offsets": [0, 4]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    (path / "sub").mkdir(parents=True)
    (path / "config.json").write_text('{"architectures":["LlamaForCausalLM"]}')
    (path / "model.safetensors").write_bytes(weights())
    (path / "tokenizer_config.json").write_text('{"tokenizer_class":"Fast","chat_template":"{{ x }}"}')
    (path / "sub" / "vocab.txt").write_text("a\nb\n")
    return path
