"""`embed`: sentence models that pool by mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from marketplace.protocol.answers import embeddings_chunk
from marketplace.protocol.payloads import EmbedPayload
from worker.inference.batch import Item, RowTask
from worker.inference.embedder import EmbeddingModel
from worker.inference.engine import EngineSettings
from worker.inference.errors import EmptyInput
from worker.models import ModelDir

# Raised when a change of code changes vectors.
_VERSION = 2
# A batch of so many texts tells which number of threads is fast.
_TRIAL_ROWS: Final = 16
_TRIAL_TOKENS: Final = 8


class EmbedTask(RowTask):
    """Unit vectors of texts. Texts of any length share a batch: it costs no accuracy."""

    payload = EmbedPayload
    uniform = False

    def __init__(self, model: ModelDir, settings: EngineSettings) -> None:
        self._model = EmbeddingModel(model.path, device=settings.device)
        self._batch_tokens = settings.embed_batch_tokens

    @property
    def profile(self) -> tuple[str, str]:
        """Version and batch size decide rounding."""
        return f"embed-{_VERSION}/batch{self._batch_tokens}", self._model.dtype

    @property
    def padded(self) -> bool:
        """Most encoders read texts as one row without filling."""
        return self._model.padded

    def load(self) -> None:
        """Reads the weights."""
        self._model.load()

    def items(self, payload: EmbedPayload) -> list[Item]:
        """Tokens of each text as the model reads them: longer texts are cut at its limit."""
        for place, text in enumerate(payload.input):
            if not text.strip():
                raise EmptyInput(f"input.{place}")
        rows = self._model.encode(payload.input)
        return [Item(units=len(row), cost=len(row), data=row) for row in rows]

    def compute(self, items: Sequence[list[int]]) -> list[bytes]:
        """Unit vectors, little-endian float32."""
        return self._model.vectors(items)

    def trial(self) -> list[list[int]]:
        """A batch of short texts."""
        return [[0] * _TRIAL_TOKENS] * _TRIAL_ROWS

    def chunk(self, first_index: int, results: Sequence[bytes]) -> bytes:
        """Vectors in base64."""
        return embeddings_chunk(first_index, results)
