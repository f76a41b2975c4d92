"""The models a node has on disk, each in a folder of its own under its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from worker.models import catalogue, manifest, sandbox
from worker.models.catalogue import ModelDir
from worker.models.entries import CATALOGUE
from worker.models.errors import ModelError, ModelErrorCode
from worker.models.manifest import MANIFEST_NAME, Manifest

_GGUF: Final = ".gguf"
# Formats that run code when they are read. They are named to say so, not to be read.
_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".joblib", ".onnx", ".h5", ".msgpack"})
_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelved:
    """A model on the shelf as its manifest says; the files were not hashed again."""

    name: str
    path: Path
    manifest: Manifest
    size_bytes: int


class Shelf:
    """Models under one folder. Adding and removing are safe from several processes."""

    def __init__(self, home: Path, progress: Callable[[str], None]) -> None:
        self._home = home
        self._progress = progress

    def add(self, source: str, *, name: str | None = None, licence: str | None = None) -> ModelDir:
        """Puts a model on the shelf: a folder, a .gguf file, a catalogue name or a hub id (`owner/name`).

        A folder is copied, a file converted, and what comes of it verified; the same again changes nothing.

        Raises:
            ModelError: not a model, one that could run code, or another model is there under the name.
        """
        path = Path(source)
        if path.is_dir():
            return self._put(checked(name or path.resolve().name), licence, lambda to: _copy(path, to))
        if path.suffix == _GGUF and path.is_file():
            return self._put(
                checked(name or path.stem.lower()),
                licence,
                lambda to: sandbox.convert_gguf(path.resolve(), to, self._progress),
            )
        if path.is_file() or path.suffix in _PICKLES:
            detail = f"{path.name} is neither a folder nor a .gguf file; formats that run code are not read."
            raise ModelError(ModelErrorCode.UNSAFE_FILE, detail)
        found = catalogue.find(source, self._home, self._progress)
        return found if name is None else self._put(checked(name), licence, lambda to: _copy(found.path, to))

    def find(self, name: str) -> ModelDir:
        """A model by its name here, every file hashed again and compared; else as `catalogue.find`.

        Raises:
            ModelError: there is none, or its files are not the ones it was added with.
        """
        path = self._path(name)
        if name in CATALOGUE or not _is_word(name) or not path.is_dir():
            return catalogue.find(name, self._home, self._progress)
        stored = self.stored(name)
        self._progress(f"verifying {name}")
        manifest.verify(path, stored.manifest.model_id, licence=stored.manifest.licence)
        return catalogue.from_directory(path, licence=stored.manifest.licence)

    def stored(self, name: str) -> Shelved:
        """A model by its name here, as its manifest says. Raises `ModelError` when there is none."""
        path = self._path(name)
        if not _is_word(name) or not path.is_dir():
            known = ", ".join(item.name for item in self.all()) or "none"
            raise ModelError(ModelErrorCode.MISSING, f"no model is called {name} here; there are: {known}.")
        try:
            found = Manifest.model_validate_json((path / MANIFEST_NAME).read_bytes())
        except (OSError, ValidationError) as error:
            raise ModelError(ModelErrorCode.INCOMPLETE, f"{name} has no readable manifest.") from error
        size = sum(file.size for file in found.files)
        return Shelved(name=name, path=path, manifest=found, size_bytes=size)

    def all(self) -> list[Shelved]:
        """Every model here, by name; folders without a manifest are none."""
        folder = self._home / "models"
        names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        found = [n for n in names if _is_word(n) and (folder / n / MANIFEST_NAME).is_file()]
        return [self.stored(name) for name in found]

    def remove(self, name: str) -> None:
        """Deletes a model's files. Raises `ModelError` when there is none."""
        path = self.stored(name).path
        with catalogue.alone(self._home, name):
            # Renamed first: what is half deleted must not look like a model.
            doomed = path.with_name(f".{name}.removed")
            path.rename(doomed)
            shutil.rmtree(doomed)

    def _put(self, name: str, licence: str | None, fill: Callable[[Path], None]) -> ModelDir:
        target = self._path(name)
        with catalogue.alone(self._home, name), catalogue.scratch(target) as scratch:
            fill(scratch)
            made = manifest.build(scratch, licence=licence)
            manifest.write(scratch, made)
            model = catalogue.from_directory(scratch, licence=made.licence)
            if not target.exists():
                scratch.rename(target)
            elif self.stored(name).manifest != made:
                raise ModelError(
                    ModelErrorCode.MISMATCH,
                    f"another model is called {name} here.",
                    hint="Give this one a name of its own: --name NAME",
                )
        return ModelDir(path=target, model_id=model.model_id, manifest=made, task=model.task)

    def _path(self, name: str) -> Path:
        return self._home / "models" / name


def checked(name: str) -> str:
    """The name, once it can be one: a to z, 0 to 9, and `.`, `_`, `-`, `@`, not first a dot.

    Raises:
        ModelError: it cannot.
    """
    if not _is_word(name):
        raise ModelError(
            ModelErrorCode.UNKNOWN_NAME,
            f"{name!r} cannot be a model's name.",
            hint="Use a to z, 0 to 9, '.', '_' and '-': --name NAME",
        )
    return name


def _is_word(name: str) -> bool:
    return 0 < len(name) <= 128 and set(name.lower()) <= _LETTERS and not name.startswith(".")


def _copy(source: Path, target: Path) -> None:
    """What the manifest lists and the README; checked before anything is read from it."""
    listed = manifest.build(source)
    for file in listed.files:
        place = target / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.path, place, follow_symlinks=False)
    for name in ("README.md", MANIFEST_NAME):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name, follow_symlinks=False)
