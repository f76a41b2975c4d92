"""Models and requests that the node's figures are taken with.

Prompts and seeds are drawn from seeds used nowhere else, so nothing was tuned on them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import ChatMessage, ChatPayload
from worker.inference.prompt import ChatTokenizer
from worker.models import ModelDir, ensure, from_directory

ROOT: Final = Path(__file__).resolve().parents[2]
VOCABULARY: Final = 32_000
_HELD_OUT: Final = 77_003
_TEMPLATE: Final = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

# Shapes of the well-known tiny Llamas that were trained on stories; the weights are random.
_SHAPES: Final[dict[str, dict[str, Any]]] = {
    "15M fp32": {
        "hidden_size": 288,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
    },
    "42M bf16": {
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
    },
}
REAL: Final = "135M bf16"
# For GPUs alone: a processor would take hours.
LARGE: Final = "1.1B bf16"
# For what is measured around a model: its own share is small.
SMALL: Final = "2M fp32"
_SHAPES_OF_ALL: Final = _SHAPES | {
    SMALL: {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    LARGE: {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
}
MODELS: Final = (*_SHAPES, REAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request: the payload for our engine, the same prompt as tokens for others."""

    payload: ChatPayload
    prompt: tuple[int, ...]
    max_tokens: int
    seed: int


def catalogue_home() -> Path:
    """Where models of the catalogue are kept between runs."""
    return Path(os.environ.get("WATT_MODELS_DIR") or ROOT / "build" / "models")


def model(name: str, home: Path) -> ModelDir:
    """One of `MODELS`, or `LARGE`: made once with fixed weights, or SmolLM2 from the catalogue."""
    if name == REAL:
        return ensure("smollm2-135m-instruct", catalogue_home(), print)
    path = home / name.replace(" ", "-")
    if not path.exists():
        torch.manual_seed(_HELD_OUT)
        network = LlamaForCausalLM(_config(name))
        network.to(torch.bfloat16 if name.endswith("bf16") else torch.float32).save_pretrained(path)
        _words().save_pretrained(path)
    return from_directory(path)


def width(name: str) -> int:
    """Numbers in a hidden state of a made model."""
    return int(_SHAPES_OF_ALL[name]["hidden_size"])


def requests(
    found: ModelDir, count: int, *, answers: tuple[int, int], prompts: tuple[int, int]
) -> list[Request]:
    """Greedy requests with lengths drawn evenly from the two ranges."""
    draw = random.Random(_HELD_OUT)  # noqa: S311  # for lengths and words
    tokenizer = ChatTokenizer(found.path)
    model_id = to_hex(found.model_id)
    made = []
    for _ in range(count):
        text = " ".join(_word(draw, real=found.entry is not None) for _ in range(draw.randint(*prompts)))
        most = draw.randint(*answers)
        turns = (ChatMessage(role="user", content=text),)
        payload = ChatPayload(model=model_id, messages=turns, max_tokens=most)
        made.append(
            Request(
                payload=payload,
                prompt=tuple(tokenizer.prompt(payload).tokens),
                max_tokens=most,
                seed=draw.getrandbits(64),
            )
        )
    return made


def texts(count: int) -> list[str]:
    """Texts to embed, a few words to a paragraph: 44 tokens on average."""
    draw = random.Random(_HELD_OUT + 1)  # noqa: S311  # for lengths and words
    return [" ".join(_word(draw, real=True) for _ in range(_length(draw))) for _ in range(count)]


def _length(draw: random.Random) -> int:
    return min(180, max(3, int(draw.lognormvariate(3.5, 0.75))))


def _word(draw: random.Random, *, real: bool) -> str:
    return draw.choice(_WORDS) if real else f"w{draw.randrange(VOCABULARY - 2)}"


def _config(name: str) -> LlamaConfig:
    shape = _SHAPES_OF_ALL[name]
    return LlamaConfig(
        **{"num_key_value_heads": shape["num_attention_heads"], **shape},
        vocab_size=VOCABULARY,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
        pad_token_id=VOCABULARY - 1,
    )


def _words() -> PreTrainedTokenizerFast:
    names: Sequence[str] = [*(f"w{i}" for i in range(VOCABULARY - 2)), "<s>", "</s>"]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.chat_template = _TEMPLATE
    return fast


_WORDS: Final = tuple(
    (  # noqa: SIM905  # a hundred quotes would hide the words
        "the a of in to and is was for with that on as by from at an it its this which one two first last "
        "river mountain valley harbour bridge market castle garden forest island winter summer morning night "
        "teacher sailor doctor farmer painter writer captain neighbour child mother father brother sister "
        "explain describe list compare write tell name find show count why how when where who what "
        "history science music physics cooking travel language number letter colour shape sound light water "
        "small large quick slow old new bright dark quiet loud early late warm cold simple strange "
        "builds carries opens closes remembers forgets follows leaves keeps breaks mends paints reads sings"
    ).split()
)
