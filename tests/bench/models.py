"""Models to measure with: random Llamas made here, and SmolLM2 from the catalogue."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMOLLM2 = "smollm2-135m-instruct"


def models_home() -> Path:
    """Where fetched models are kept."""
    return Path(os.environ.get("WATT_MODELS_DIR") or ROOT / "build" / "models")


def smollm2() -> Path:
    """SmolLM2-135M-Instruct, fetched and converted the first time."""
    from worker.models import ensure

    return ensure(SMOLLM2, models_home(), lambda _step: None).path


def random_llama(folder: Path, *, layers: int = 6, hidden: int = 512, inner: int = 1024) -> Path:
    """A random Llama in bfloat16 with SmolLM2's tokenizer; 41 M parameters as it comes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    source = smollm2()
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=2_048,
        initializer_range=0.08,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, folder / name)
    return folder
