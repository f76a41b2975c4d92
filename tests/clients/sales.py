"""What a client told of one call, held against what a node signed and against a plain call's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Self

from marketplace.client.bundle import Bundle
from marketplace.client.verify import failures, verify_receipt
from marketplace.protocol.answers import Answer

FREE: Final = frozenset({"files"})
DECIMALS: Final = 6  # of the local chain's token

# A text, or vectors.
Answered = str | list[list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """One call as its client told of it.

    Attributes:
        asked: name of the question; equal questions have equal answers at temperature 0.
        cost: in units of the token; None where the client drops it.
        atoms: the same as text, from the client or, where it has none, from its job's page.
        receipt: the whole bundle, likewise.
        pieces: in how many a stream came; None for whole answers.
    """

    call: str
    asked: str
    answer: Answered
    cost: float | str | None = None
    atoms: str | None = None
    receipt: Mapping[str, Any] | None = None
    pieces: int | None = None

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """From a line of a client's program; what only leads to the job is left out."""
        return cls(**{name: value for name, value in told.items() if name in cls.__slots__})

    @property
    def paid_atoms(self) -> int:
        """What the client was told it paid."""
        return int(self.atoms or 0)


def faults(sale: Sale, expected: Mapping[str, Answered]) -> list[str]:
    """What is wrong with a call, as sentences: its answer, its cost, its receipt."""
    found = []
    if not sale.answer or sale.answer != expected.get(sale.asked):
        found.append(f"{sale.asked}: the answer is {short(sale.answer)}, not that of a plain call")
    if sale.pieces is not None and sale.pieces < 2:
        found.append(f"the stream came in {sale.pieces} pieces")
    if sale.call in FREE:
        return found
    if sale.receipt is None:
        return [*found, f"{sale.asked}: no receipt"]
    checks = failures(verify_receipt(sale.receipt))
    if checks:
        return [*found, *(f"receipt: {check.name}: {check.detail}" for check in checks)]
    return found + _disagreements(sale, Bundle.from_json(sale.receipt))


def short(answer: Answered) -> str:
    """An answer's beginning, for people."""
    text = repr(answer)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _disagreements(sale: Sale, bundle: Bundle) -> list[str]:
    found = []
    signed, paid = Answer(bundle.chunks), bundle.receipt.amount_atoms
    if sale.answer != (signed.floats() or signed.text):
        found.append("the answer is not the signed one")
    if not paid or sale.atoms != str(paid):
        found.append(f"the cost is {sale.atoms} atoms, the receipt says {paid}")
    if sale.cost is not None and not _is_worth(sale.cost, paid):
        found.append(f"the cost is {sale.cost} units, the receipt says {paid} atoms")
    return found


def _is_worth(cost: float | str, atoms: int) -> bool:
    try:
        return Decimal(str(cost)).scaleb(DECIMALS) == atoms
    except InvalidOperation:
        return False
