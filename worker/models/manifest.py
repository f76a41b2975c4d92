"""What a model is: the canonical manifest of its files, and its keccak-256 as the model id.

The manifest lists path, size and SHA-256 of every file that can change what the model answers, in order
of path, and names architecture, dtype, tokenizer, chat template and licence. Its bytes are canonical JSON
(sorted keys, no spaces), so two machines with the same files have the same id.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter

from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.payloads import canonical_json
from worker.models.errors import ModelError, ModelErrorCode

MANIFEST_NAME: Final = "manifest.json"
_ALLOWED: Final = frozenset({".safetensors", ".json", ".txt", ".jinja"})
# Never read by anything: kept out of the id, so that a corrected README does not make another model.
_PROSE: Final = ("readme", "license", "licence", "notice", ".gitattributes", ".gitignore", ".cache")
_HASH_BLOCK: Final = 1 << 20
_HEADER_LIMIT: Final = 100 << 20
_NO_LICENCE: Final = "unknown"

_HEADER: Final[TypeAdapter[dict[str, dict[str, Any]]]] = TypeAdapter(dict[str, dict[str, Any]])

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class ModelFile(BaseModel):
    """One file of a model; `path` is relative, with forward slashes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    path: str
    size: int
    sha256: Sha256


class Manifest(BaseModel):
    """Everything that decides a model's answers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    v: Literal[1] = 1
    architecture: str
    dtype: str
    tokenizer: str
    chat_template: Sha256 | None
    licence: str
    files: tuple[ModelFile, ...]

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def model_id(self) -> bytes:
        """Keccak-256 of the canonical bytes, 32 bytes."""
        return keccak(self.encode())


def build(directory: Path, *, licence: str | None = None) -> Manifest:
    """Reads and hashes a model directory (about 1.4 GB a second).

    Args:
        directory: Holds config.json, safetensors files and the tokenizer.
        licence: SPDX name; by default what a stored manifest or the README's front matter says.

    Raises:
        ModelError: a file that could run code, a link out of the directory, or no model in it.
    """
    paths = _checked_paths(directory)
    config = _read_json(directory / "config.json")
    if config.get("auto_map"):
        raise ModelError(ModelErrorCode.UNSUPPORTED, f"{directory.name} brings code of its own (auto_map).")
    return Manifest(
        architecture=_architecture(config),
        dtype=_dtype(directory, paths),
        tokenizer=_tokenizer(directory),
        chat_template=_chat_template(directory),
        licence=licence or _licence(directory),
        files=tuple(_describe(directory, path) for path in paths),
    )


def write(directory: Path, manifest: Manifest) -> None:
    """Keeps the manifest beside the files it lists (it does not list itself)."""
    (directory / MANIFEST_NAME).write_bytes(manifest.encode())


def verify(directory: Path, model_id: bytes, *, licence: str | None = None) -> Manifest:
    """Hashes the directory again and compares.

    Raises:
        ModelError: the files are not the model `model_id` names.
    """
    manifest = build(directory, licence=licence)
    if manifest.model_id != model_id:
        raise ModelError(
            ModelErrorCode.MISMATCH,
            f"{directory.name} hashes to {to_hex(manifest.model_id)}, expected {to_hex(model_id)}.",
        )
    return manifest


def _checked_paths(directory: Path) -> list[str]:
    if not directory.is_dir():
        raise ModelError(ModelErrorCode.MISSING, f"{directory} is not a directory.")
    paths = sorted(_walk(directory, ""), key=str.encode)
    if "config.json" not in paths or not any(path.endswith(".safetensors") for path in paths):
        raise ModelError(
            ModelErrorCode.INCOMPLETE, f"{directory.name} holds no config.json or no safetensors file."
        )
    return paths


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    for entry in folder.iterdir():
        path = prefix + entry.name
        # Links are refused, not followed: what they point at can change under an unchanged directory.
        if entry.is_symlink():
            raise ModelError(ModelErrorCode.UNSAFE_FILE, f"{path} is a link.")
        if not prefix and (path == MANIFEST_NAME or path.lower().startswith(_PROSE)):
            continue
        if entry.is_dir():
            yield from _walk(entry, path + "/")
        elif not entry.is_file() or entry.suffix not in _ALLOWED:
            raise ModelError(ModelErrorCode.UNSAFE_FILE, f"{path} is not a kind of file a model may hold.")
        else:
            yield path


def _describe(directory: Path, path: str) -> ModelFile:
    digest = hashlib.sha256()
    with (directory / path).open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
        size = file.tell()
    return ModelFile(path=path, size=size, sha256=digest.hexdigest())


def _architecture(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1:
        raise ModelError(ModelErrorCode.INCOMPLETE, "config.json does not name one architecture.")
    return str(names[0])


def _dtype(directory: Path, paths: list[str]) -> str:
    """Element types as the weight files state them, not as config.json claims."""
    found: set[str] = set()
    for path in paths:
        if path.endswith(".safetensors"):
            header = _safetensors_header(directory / path)
            found |= {str(entry["dtype"]) for name, entry in header.items() if name != "__metadata__"}
    return "+".join(sorted(found))


def _safetensors_header(file: Path) -> dict[str, dict[str, Any]]:
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            # A corrupt length must not make us allocate what it claims.
            return _HEADER.validate_json(stream.read(min(length, _HEADER_LIMIT)))
    except (struct.error, ValueError) as error:
        raise ModelError(ModelErrorCode.INCOMPLETE, f"{file.name} is not a safetensors file.") from error


def _tokenizer(directory: Path) -> str:
    config = _read_json(directory / "tokenizer_config.json", optional=True)
    return str(config.get("tokenizer_class") or "none")


def _chat_template(directory: Path) -> str | None:
    file = directory / "chat_template.jinja"
    if file.is_file():
        return hashlib.sha256(file.read_bytes()).hexdigest()
    template = _read_json(directory / "tokenizer_config.json", optional=True).get("chat_template")
    if template is None:
        return None
    text = template if isinstance(template, str) else canonical_json(template).decode()
    return hashlib.sha256(text.encode()).hexdigest()


def _licence(directory: Path) -> str:
    stored = _read_json(directory / MANIFEST_NAME, optional=True).get("licence")
    if isinstance(stored, str):
        return stored
    readme = directory / "README.md"
    lines = readme.read_text(errors="replace").splitlines() if readme.is_file() else []
    if lines[:1] == ["---"]:
        for line in lines[1:]:
            key, _, value = line.partition(":")
            if key == "license" and value.strip():
                return value.strip()
            if line == "---":
                break
    return _NO_LICENCE


def _read_json(file: Path, *, optional: bool = False) -> dict[str, Any]:
    if optional and not file.is_file():
        return {}
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(ModelErrorCode.INCOMPLETE, f"{file.name} is not readable JSON.") from error
    if not isinstance(value, dict):
        raise ModelError(ModelErrorCode.INCOMPLETE, f"{file.name} is not a JSON object.")
    return value
