"""The shelf: adding, finding, verifying, removing; and what a model file may not do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.worker.models.test_gguf import write_gguf
from worker.models import ModelError, ModelErrorCode, from_directory
from worker.models.convert import _guard
from worker.models.shelf import Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "home", lambda _: None)


def code_of(call, *arguments, **options) -> ModelErrorCode:
    with pytest.raises(ModelError) as caught:
        call(*arguments, **options)
    assert caught.value.hint
    return caught.value.code


def test_folder_is_copied_and_is_the_same_model(shelf: Shelf, folder: Path) -> None:
    made = shelf.add(str(folder), name="tiny")
    assert made.model_id == from_directory(folder).model_id == shelf.find("tiny").model_id
    assert [item.name for item in shelf.all()] == ["tiny"]
    assert (made.path / "manifest.json").is_file()
    (folder / "config.json").unlink()
    assert shelf.find("tiny").model_id == made.model_id


def test_same_model_again_changes_nothing_and_another_needs_another_name(shelf: Shelf, folder: Path) -> None:
    first = shelf.add(str(folder), name="tiny")
    assert shelf.add(str(folder), name="tiny").model_id == first.model_id
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    assert code_of(shelf.add, str(folder), name="tiny") is ModelErrorCode.MISMATCH
    assert shelf.find("tiny").model_id == first.model_id


def test_changed_file_is_found_when_the_model_is_asked_for(shelf: Shelf, folder: Path) -> None:
    made = shelf.add(str(folder), name="tiny")
    weights = next(made.path.glob("*.safetensors"))
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert code_of(shelf.find, "tiny") is ModelErrorCode.MISMATCH


def test_removed_model_is_gone(shelf: Shelf, folder: Path) -> None:
    made = shelf.add(str(folder), name="tiny")
    shelf.remove("tiny")
    assert (shelf.all(), made.path.exists()) == ([], False)
    assert code_of(shelf.remove, "tiny") is ModelErrorCode.MISSING


@pytest.mark.parametrize("name", ["weights.bin", "model.pt", "model.pkl", "notes.txt"])
def test_formats_that_run_code_are_not_read(shelf: Shelf, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    assert code_of(shelf.add, str(tmp_path / name)) is ModelErrorCode.UNSAFE_FILE


def test_folder_with_a_pickle_or_code_is_refused_and_leaves_nothing(shelf: Shelf, folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert code_of(shelf.add, str(folder), name="tiny") is ModelErrorCode.UNSAFE_FILE
    assert shelf.all() == []


@pytest.mark.parametrize("name", ["", ".hidden", "a b", "../up", "a/b", "x" * 200])
def test_name_that_is_no_word_is_refused(shelf: Shelf, folder: Path, name: str) -> None:
    if name:
        assert code_of(shelf.add, str(folder), name=name) is ModelErrorCode.UNKNOWN_NAME
    assert code_of(shelf.stored, name) is ModelErrorCode.MISSING


def test_gguf_is_converted_to_safetensors_in_a_process_of_its_own(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATT_NODE_OWNER_KEY", "secret")
    made = shelf.add(str(write_gguf(tmp_path)), name="tiny", licence="MIT")
    assert {file.path for file in made.manifest.files} >= {"config.json", "model.safetensors"}
    assert (made.manifest.licence, shelf.find("tiny").model_id) == ("MIT", made.model_id)


def test_broken_gguf_is_told_and_leaves_nothing(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(64))
    assert code_of(shelf.add, str(tmp_path / "broken.gguf")) in (
        ModelErrorCode.INCOMPLETE,
        ModelErrorCode.UNSUPPORTED,
    )
    assert shelf.all() == []


ATTEMPTS = {
    "socket": "import socket; socket.create_connection(('127.0.0.1', PORT), 2)",
    "program": "import subprocess; subprocess.run(['true'])",
    "shell": "import os; os.system('true')",
    "write elsewhere": "open(OUTSIDE, 'w')",
    "native code": "import ctypes; ctypes.CDLL(None)",
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_process_that_converts_may_not(attempt: str, tmp_path: Path) -> None:
    """The guard of the process that reads model files, with the hostile file's code in its place."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = {"PORT": str(server.getsockname()[1]), "OUTSIDE": repr(str(tmp_path / "stolen"))}
        body = ATTEMPTS[attempt]
        for name, value in names.items():
            body = body.replace(name, value)
        code = f"""
            import ctypes, os, socket, subprocess, sys
            from pathlib import Path
            from worker.models.convert import _guard
            target = Path({str(tmp_path / "target")!r})
            target.mkdir()
            sys.addaudithook(_guard(target))
            (target / "fine").write_text("x")
            {body}
            print("passed")
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("model_unsafe_file\t")
    assert (tmp_path / "target" / "fine").exists()
    assert not (tmp_path / "stolen").exists()


def test_guard_lets_reading_and_its_own_folder_pass(tmp_path: Path) -> None:
    guard = _guard(tmp_path)
    guard("open", ("/etc/hostname", "r", os.O_RDONLY))
    guard("open", (str(tmp_path / "a"), "w", os.O_WRONLY | os.O_CREAT))
    guard("import", ("json", None, None, None, None))


def test_shut_in_process_keeps_no_way_to_the_network(tmp_path: Path) -> None:
    """Where the kernel gives a namespace: also native code finds no network. Else it says so."""
    code = """
        import errno, socket, sys
        from worker.models.convert import shut_in
        alone = shut_in(1)
        try:
            socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2)
            print(alone, "connected")
        except OSError as error:
            print(alone, "refused")
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(server.getsockname()[1])],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.split() in (["True", "refused"], ["False", "connected"])
