"""`classify-image`: what a picture shows, of the labels the model was trained on."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from marketplace.protocol.answers import Answer
from marketplace.protocol.tasks.base import Payload, rows_misfit
from marketplace.protocol.tasks.scores import ScoredRow, shown_row

MAX_IMAGES: Final = 16
MAX_IMAGE_CHARACTERS: Final = 4 << 20

ImageText = Annotated[
    str, StringConstraints(min_length=4, max_length=MAX_IMAGE_CHARACTERS, pattern="^[A-Za-z0-9+/]+={0,2}$")
]


class ImagesPayload(Payload):
    """Most probable labels of each image: PNG or JPEG bytes, in base64. An image is one unit."""

    task: Literal["classify-image"] = "classify-image"
    images: tuple[ImageText, ...] = Field(min_length=1, max_length=MAX_IMAGES, strict=False)
    top: int = Field(default=5, ge=1, le=100)

    @property
    def most_units_in(self) -> int:
        """One an image: a model scales every image to the same size."""
        return len(self.images)

    @property
    def known_units_in(self) -> int:
        """The same: no tokenizer has a say."""
        return len(self.images)

    def misfit(self, answer: Answer, *, whole: bool = True) -> str | None:
        """At most `top` labels for each image."""
        problem = rows_misfit(answer, ScoredRow, len(self.images), whole=whole)
        if problem is None and any(len(row["scores"]) > self.top for row in answer.rows):
            return f"a row has more than {self.top} labels"
        return problem

    @classmethod
    def shown(cls, answer: Answer) -> dict[str, Any]:
        """Best label of each image, with the next ones."""
        return {"results": [shown_row(row) for row in answer.rows]}
