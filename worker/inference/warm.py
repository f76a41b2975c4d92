"""Imports what models need before there is anything to load; for a spare worker."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from transformers import MODEL_MAPPING, AutoConfig

# Imported for its imports: torch, the engines and the tokenizers.
from worker.inference import pool

__all__ = ["import_for", "pool"]


def import_for(names: Iterable[str], home: Path) -> int:
    """Imports the code of models by directory or by name under `home`; gives for how many there is code."""
    paths = [Path(name) if Path(name).is_dir() else home / "models" / name for name in names]
    configs = [AutoConfig.from_pretrained(path) for path in paths if (path / "config.json").is_file()]
    # Looking a class up is what imports its module; nothing is built.
    return sum(MODEL_MAPPING.get(type(config), None) is not None for config in configs)
