"""`classify-image`: any image classification model that ships with transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.utils.logging import disable_progress_bar

from marketplace.protocol.payloads import ImagesPayload
from marketplace.protocol.tasks.scores import scored
from worker.inference.batch import Item, RowTask
from worker.inference.engine import EngineSettings
from worker.inference.pictures import open_image
from worker.models import ModelDir

# Raised when a change of code changes scores.
_VERSION = 1
# So that a batch is a few images, and a deadline is looked at in time.
_COST: Final = 128
_PRETRAINED: Final = {"trust_remote_code": False, "local_files_only": True}


class ImagesTask(RowTask):
    """Labels by probability. Images run one by one: none depends on who else is there."""

    payload = ImagesPayload

    def __init__(self, model: ModelDir, settings: EngineSettings) -> None:
        self._path = model.path
        self._device = settings.device
        self._processor: Any = AutoImageProcessor.from_pretrained(self._path, backend="pil", **_PRETRAINED)
        self._model: Any = None
        self._labels: list[str] = []

    @property
    def profile(self) -> tuple[str, str]:
        """Version and element type."""
        dtype = str(self._model.dtype).removeprefix("torch.") if self._model is not None else ""
        return f"classify-image-{_VERSION}/single", dtype

    def load(self) -> None:
        """Reads the weights."""
        disable_progress_bar()
        model: Any = AutoModelForImageClassification.from_pretrained(
            self._path, dtype="auto", use_safetensors=True, **_PRETRAINED
        )
        self._model = model.to(self._device).eval()
        names = self._model.config.id2label
        self._labels = [str(names[i]) for i in range(self._model.config.num_labels)]

    def items(self, payload: ImagesPayload) -> list[Item]:
        """Images as the model takes them. Raises `BadRequest`."""
        items = []
        for place, text in enumerate(payload.images):
            image = open_image(text, f"images.{place}")
            pixels = self._processor(images=image, return_tensors="pt")["pixel_values"]
            items.append(Item(units=1, cost=_COST, data=(pixels, payload.top)))
        return items

    def compute(self, items: Sequence[tuple[Tensor, int]]) -> list[dict[str, Any]]:
        """Rows of labels and probabilities."""
        rows = []
        for pixels, top in items:
            logits = self._model(pixel_values=pixels.to(self._device, self._model.dtype)).logits[0]
            shares = torch.softmax(logits.double().cpu(), dim=-1).tolist()
            rows.append(scored(self._labels, [round(1_000_000 * share) for share in shares], top))
        return rows
