"""What every task says of itself; gateway, client and node ask it instead of knowing tasks by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from marketplace.protocol.answers import Answer
from marketplace.protocol.canonical import canonical_json

MAX_INPUTS: Final = 2048
TEMPLATE_UNITS: Final = 64
TEXT_UNITS: Final = 4

ModelId = Annotated[str, StringConstraints(pattern="^0x[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Strict(BaseModel):
    """Base of all payloads: strict, closed, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Payload(Strict, ABC):
    """A request. Numbers are whole, so that one value has one byte string."""

    v: Literal[1] = 1
    task: str
    model: ModelId

    @property
    @abstractmethod
    def most_units_in(self) -> int:
        """Most input units it can be billed for, known without a tokenizer."""

    @property
    def known_units_in(self) -> int | None:
        """Input units it is billed for, where they are known without a tokenizer."""
        return None

    @property
    def most_units_out(self) -> int:
        """Most output units it can be billed for."""
        return 0

    @abstractmethod
    def misfit(self, answer: Answer, *, whole: bool = True) -> str | None:
        """Why an answer, or (not `whole`) the beginning of one, is none to this request; None when it is."""

    @classmethod
    @abstractmethod
    def shown(cls, answer: Answer) -> dict[str, Any]:
        """The answer as JSON for people and their programs."""


class Row(Strict):
    """One row of an answer."""

    index: int


def rows_misfit(answer: Answer, kind: type[Row], count: int, *, whole: bool) -> str | None:
    """Why an answer is not `count` rows of this kind, or the first of them; None when it is."""
    rows = answer.rows
    if answer.text or answer.vectors:
        return "it holds text or vectors"
    if len(rows) > count or (whole and len(rows) < count):
        return f"it has {len(rows)} rows for {count} inputs"
    try:
        for row in rows:
            kind.model_validate_json(canonical_json(row))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"row {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return None


def text_units(text: str, more: int = TEXT_UNITS) -> int:
    """Most tokens of a text: byte-level and word-piece tokens cover a byte at least; templates add a few."""
    return len(text.encode()) + more
