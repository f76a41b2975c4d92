from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from marketplace.protocol.hexes import keccak
from tests.worker.models.conftest import weights
from worker.models import ModelError, ModelErrorCode, from_directory, manifest


def test_manifest_lists_every_file_in_order_of_path(folder: Path) -> None:
    built = manifest.build(folder, licence="MIT")
    assert [file.path for file in built.files] == [
        "config.json",
        "model.safetensors",
        "sub/vocab.txt",
        "tokenizer_config.json",
    ]
    vocabulary = built.files[2]
    assert (vocabulary.size, vocabulary.sha256) == (4, hashlib.sha256(b"a\nb\n").hexdigest())
    assert (built.architecture, built.dtype, built.tokenizer) == ("LlamaForCausalLM", "F32", "Fast")
    assert built.chat_template == hashlib.sha256(b"{{ x }}").hexdigest()


def test_bytes_are_canonical_and_their_keccak_is_the_id(folder: Path) -> None:
    built = manifest.build(folder, licence="MIT")
    data = built.encode()
    value = json.loads(data)
    assert data == json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert built.model_id == keccak(data)
    assert set(value) == {"v", "architecture", "dtype", "tokenizer", "chat_template", "licence", "files"}


def test_id_is_pinned_so_that_no_refactoring_renames_every_model(folder: Path) -> None:
    assert manifest.build(folder, licence="MIT").model_id.hex() == PINNED


PINNED = "f81a58981c34f4625c850889177a3700fa901be42cf22a36f047de4ecef3045d"


def test_every_byte_and_the_licence_count(folder: Path) -> None:
    before = manifest.build(folder, licence="MIT").model_id
    assert manifest.build(folder, licence="Apache-2.0").model_id != before
    (folder / "sub" / "vocab.txt").write_text("a\nc\n")
    after = manifest.build(folder, licence="MIT").model_id
    assert after != before
    (folder / "sub" / "vocab.txt").rename(folder / "sub" / "other.txt")
    assert manifest.build(folder, licence="MIT").model_id not in (before, after)


def test_prose_and_the_stored_manifest_are_not_part_of_the_model(folder: Path) -> None:
    before = manifest.build(folder, licence="MIT")
    manifest.write(folder, before)
    (folder / "README.md").write_text("---\nlicense: other\n---\n")
    (folder / "LICENSE").write_text("MIT")
    (folder / ".gitattributes").write_text("*.bin lfs")
    assert manifest.build(folder).model_id == before.model_id
    assert manifest.verify(folder, before.model_id).licence == "MIT"


def test_licence_is_read_from_the_front_matter(folder: Path) -> None:
    assert manifest.build(folder).licence == "unknown"
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\nlicense: mit\n")
    assert manifest.build(folder).licence == "apache-2.0"
    (folder / "README.md").write_text("---\nlanguage: en\n---\nlicense: mit\n")
    assert manifest.build(folder).licence == "unknown"


def test_dtype_is_what_the_weights_say(folder: Path) -> None:
    (folder / "more.safetensors").write_bytes(weights("BF16"))
    assert manifest.build(folder).dtype == "BF16+F32"


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "weights.pkl", "modeling.py", "model.ckpt", "sub/x.pth", "noend"],
)
def test_files_that_could_run_code_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    with pytest.raises(ModelError) as caught:
        manifest.build(folder)
    assert caught.value.code is ModelErrorCode.UNSAFE_FILE
    assert name in caught.value.detail
    assert "safetensors" in caught.value.hint


@pytest.mark.parametrize("target", ["config.json", "../outside.json"])
def test_links_are_refused_wherever_they_point(folder: Path, target: str) -> None:
    (folder.parent / "outside.json").write_text("{}")
    (folder / "link.json").symlink_to(folder / target)
    with pytest.raises(ModelError, match="is a link"):
        manifest.build(folder)


def test_linked_folder_is_refused(folder: Path) -> None:
    (folder / "linked").symlink_to(folder / "sub", target_is_directory=True)
    with pytest.raises(ModelError, match="is a link"):
        manifest.build(folder)


def test_model_with_code_of_its_own_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures":["X"],"auto_map":{"AutoModel":"x.X"}}')
    with pytest.raises(ModelError) as caught:
        manifest.build(folder)
    assert caught.value.code is ModelErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"short"),
        ("model.safetensors", b"\xff" * 64),
        ("model.safetensors", b"\x02" + bytes(7) + b"[]"),
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"{}"),
    ],
)
def test_broken_files_are_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        manifest.build(folder)
    assert caught.value.code is ModelErrorCode.INCOMPLETE
    assert name in caught.value.detail


def test_directory_without_a_model_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        manifest.build(folder)
    assert caught.value.code is ModelErrorCode.INCOMPLETE
    with pytest.raises(ModelError) as caught:
        manifest.build(folder / "nowhere")
    assert caught.value.code is ModelErrorCode.MISSING


def test_verify_refuses_changed_files(folder: Path) -> None:
    model_id = manifest.build(folder).model_id
    (folder / "sub" / "vocab.txt").write_text("changed")
    with pytest.raises(ModelError) as caught:
        manifest.verify(folder, model_id)
    assert caught.value.code is ModelErrorCode.MISMATCH


def test_task_follows_from_the_architecture(folder: Path) -> None:
    assert from_directory(folder).task == "chat"
    (folder / "config.json").write_text('{"architectures":["BertModel"]}')
    with pytest.raises(ModelError, match="mean pooling"):
        from_directory(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens":true}')
    (folder / "modules.json").write_text('[{"type":"x.Transformer"},{"type":"x.Pooling"}]')
    assert from_directory(folder).task == "embed"
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token":true}')
    with pytest.raises(ModelError):
        from_directory(folder)
