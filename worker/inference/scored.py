"""What the tasks share that ask a causal language model how probable a text is."""

from __future__ import annotations

from typing import ClassVar

from worker.inference.batch import RowTask
from worker.inference.engine import EngineSettings
from worker.inference.scorer import Scorer
from worker.models import ModelDir


class ScoredTask(RowTask):
    """A task by log-probability. Its `version` is raised when a change of code changes scores."""

    version: ClassVar[str]

    def __init__(self, model: ModelDir, settings: EngineSettings) -> None:
        self.scorer = Scorer(model.path, settings)

    @property
    def profile(self) -> tuple[str, str]:
        """Version, tiles and padding decide rounding."""
        return f"{self.version}/{self.scorer.shapes}", self.scorer.dtype

    def load(self) -> None:
        """Reads the weights."""
        self.scorer.load()
