"""What goes wrong with model files, each with its remedy. For the operator, before anything is sold."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class ModelErrorCode(StrEnum):
    """Stable names of model failures."""

    MISSING = "model_missing"
    UNSAFE_FILE = "model_unsafe_file"
    INCOMPLETE = "model_incomplete"
    MISMATCH = "model_mismatch"
    UNKNOWN_NAME = "model_unknown_name"
    FETCH_FAILED = "model_fetch_failed"
    UNSUPPORTED = "model_unsupported"


_HINTS: Final[dict[ModelErrorCode, str]] = {
    ModelErrorCode.MISSING: "Give the directory that holds config.json and the safetensors files.",
    ModelErrorCode.UNSAFE_FILE: "Give a folder of plain safetensors, json and txt files, or a .gguf file.",
    ModelErrorCode.INCOMPLETE: "Download the model again; config.json and *.safetensors are both needed.",
    ModelErrorCode.MISMATCH: "Delete the model's directory and fetch it again with the pinned libraries.",
    ModelErrorCode.UNKNOWN_NAME: "Name a model of the catalogue, or give a directory or hub id.",
    ModelErrorCode.FETCH_FAILED: "Check the package index or hub pip and huggingface_hub are set up to use.",
    ModelErrorCode.UNSUPPORTED: "Serve a model whose code ships with transformers, in safetensors.",
}


class ModelError(Exception):
    """A model that cannot be used: code, what was found, and the remedy as `hint`."""

    def __init__(self, code: ModelErrorCode, detail: str, *, hint: str = "") -> None:
        self.code = code
        self.detail = detail
        self.hint = hint or _HINTS[code]
        super().__init__(f"{detail} {self.hint}")
