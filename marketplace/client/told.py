"""What an ask gives on its way to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from marketplace.client.bundle import Bundle
from marketplace.client.verify import Check
from marketplace.protocol.payloads import Answer, Logprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished ask: its verified evidence and how it came about.

    `faults` are the bundles, as JSON, of receipts on the way that did not hold.
    """

    model: str
    bundle: Bundle
    checks: tuple[Check, ...]
    answer: Answer
    ceiling_atoms: int
    acknowledged: bool
    attempts: int
    faults: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """The gateway's name of the job an ask is now; `again` when its call was known before."""

    job_id: str
    node_id: int
    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What came next of a generation."""

    text: str
    logprobs: Logprobs = ()


Told = Began | Piece | Done
