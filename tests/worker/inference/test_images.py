"""Image classification on tiny random models of three families, and images that must not be decoded."""

from __future__ import annotations

import base64
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    EfficientNetImageProcessorPil,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import Answer, ImagesPayload
from tests.worker.inference.conftest import Start, ask, embed, together
from worker.inference.errors import BadImage, WrongTask
from worker.inference.pictures import MAX_PIXELS
from worker.models import ModelDir, from_directory

LABELS = {0: "cat", 1: "dog", 2: "owl", 3: "fox"}
NAMES = {"id2label": LABELS, "label2id": {label: i for i, label in LABELS.items()}}
SIDE = 32


def networks() -> dict[str, tuple[Any, Any]]:
    small = {"height": SIDE, "width": SIDE}
    vit = ViTConfig(
        image_size=SIDE, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, initializer_range=0.3, **NAMES,
    )  # fmt: skip
    resnet = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=None, **NAMES
    )
    lite = EfficientNetConfig(
        image_size=SIDE,
        width_coefficient=0.2,
        depth_coefficient=0.2,
        hidden_dim=256,
        dropout_rate=0.0,
        **NAMES,
    )
    return {
        "vit": (ViTForImageClassification(vit), ViTImageProcessorPil(size=small)),
        "resnet": (ResNetForImageClassification(resnet), ViTImageProcessorPil(size=small)),
        "efficientnet": (
            EfficientNetForImageClassification(lite), EfficientNetImageProcessorPil(size=small)
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def image_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelDir]:
    torch.manual_seed(5)
    made = {}
    for name, (network, processor) in networks().items():
        path = tmp_path_factory.mktemp(name) / "tiny"
        network.save_pretrained(path)
        processor.save_pretrained(path)
        made[name] = from_directory(path)
    return made


def picture(seed: int, *, size: tuple[int, int] = (40, 30), form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    out = BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def images(model: ModelDir, *files: bytes, **fields: Any) -> ImagesPayload:
    texts = tuple(base64.b64encode(file).decode() for file in files)
    return ImagesPayload(model=to_hex(model.model_id), images=texts, **fields)


def reference(model: ModelDir, file: bytes) -> dict[str, float]:
    processor = AutoImageProcessor.from_pretrained(model.path, backend="pil")
    network = AutoModelForImageClassification.from_pretrained(model.path).eval()
    inputs = processor(images=Image.open(BytesIO(file)).convert("RGB"), return_tensors="pt")
    with torch.inference_mode():
        shares = network(**inputs).logits[0].softmax(dim=-1).tolist()
    return dict(zip(LABELS.values(), shares, strict=True))


@pytest.mark.parametrize("family", ["vit", "resnet", "efficientnet"])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_labels_and_scores_are_those_of_transformers(
    image_models: dict[str, ModelDir], start: Start, family: str, form: str
) -> None:
    model = image_models[family]
    assert model.task == "classify-image"
    files = [picture(seed, form=form) for seed in range(3)]
    answer = ask(start(model), images(model, *files))
    for file, row in zip(files, answer.rows, strict=True):
        expected = reference(model, file)
        assert [s["label"] for s in row["scores"]] == sorted(expected, key=lambda name: -expected[name])
        assert all(abs(s["millionths"] - 1e6 * expected[s["label"]]) < 10 for s in row["scores"])


def test_only_the_top_labels_are_told(image_models: dict[str, ModelDir], start: Start) -> None:
    model = image_models["vit"]
    answer = ask(start(model), images(model, picture(1), top=2))
    assert len(answer.rows[0]["scores"]) == 2
    whole = Answer(chunk.body for chunk in answer.chunks)
    assert images(model, picture(1), top=2).misfit(whole) is None


def test_an_image_is_one_unit_however_large(image_models: dict[str, ModelDir], start: Start) -> None:
    model = image_models["vit"]
    payload = images(model, picture(1), picture(2, size=(300, 200)))
    engine = start(model)
    assert engine.units_in(payload) == 2
    outcome = ask(engine, payload).outcome
    assert (outcome.units_in, outcome.units_out) == (2, 0)


def test_scores_are_the_same_to_the_bit_alone_and_in_a_crowd(
    image_models: dict[str, ModelDir], start: Start
) -> None:
    model = image_models["resnet"]
    engine = start(model)
    files = [picture(seed) for seed in range(6)]
    alone = [ask(engine, images(model, file)).rows[0]["scores"] for file in files]
    crowd = together(*(lambda f=file: ask(engine, images(model, f)) for file in files))
    assert [answer.rows[0]["scores"] for answer in crowd] == alone


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size; a few bytes here, all of memory when decoded."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1024))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", body) + part(b"IEND", b"")


@pytest.mark.parametrize("size", [(5000, 5000), (60_000, 60_000), (MAX_PIXELS + 1, 1)])
def test_image_with_too_many_pixels_is_refused_before_it_is_decoded(
    image_models: dict[str, ModelDir], start: Start, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = image_models["vit"]
    engine = start(model)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(BadImage, match=r"images\.0"):
        ask(engine, images(model, bomb(*size)))


@pytest.mark.parametrize(
    "file",
    [
        b"GIF89a" + bytes(20),
        b"no image at all",
        picture(1)[:60],
        picture(1, form="JPEG")[:200],
        bomb(40, 40),
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_bytes_that_are_no_whole_png_or_jpeg_are_refused(
    image_models: dict[str, ModelDir], start: Start, file: bytes
) -> None:
    model = image_models["vit"]
    with pytest.raises(BadImage, match=r"images\.0: it is no PNG or JPEG"):
        ask(start(model), images(model, file))


def test_other_formats_are_not_even_tried(image_models: dict[str, ModelDir], start: Start) -> None:
    model = image_models["vit"]
    with pytest.raises(BadImage):
        ask(start(model), images(model, picture(1, form="TIFF")))


def test_payload_of_another_task_is_refused(image_models: dict[str, ModelDir], start: Start) -> None:
    model = image_models["vit"]
    with pytest.raises(WrongTask, match="does classify-image"):
        ask(start(model), embed(model, "a"))


def test_saved_processor_and_weights_are_all_a_model_needs(image_models: dict[str, ModelDir]) -> None:
    names = {file.path for file in image_models["vit"].manifest.files}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert all(Path(name).suffix in {".json", ".safetensors"} for name in names)
