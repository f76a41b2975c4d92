"""What calls used and cost, in the words of each of OpenAI's routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from marketplace.openai import money
from marketplace.protocol.messages import Receipt
from marketplace.protocol.money import format_atoms


@dataclass(frozen=True, slots=True, kw_only=True)
class Currency:
    """The token that is paid in."""

    decimals: int
    symbol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one job, or several together, used and cost.

    Attributes:
        ceiling_atoms: most it could have cost, set aside before; the rest never left the session.
        energy_method: how the energy was found; `mixed` where jobs differ.
    """

    units_in: int
    units_out: int
    amount_atoms: int
    ceiling_atoms: int
    energy_millijoules: int
    energy_method: str


def spent(receipt: Receipt, *, ceiling_atoms: int, energy_method: str) -> Spent:
    """What a receipt bills."""
    return Spent(
        units_in=receipt.units_in,
        units_out=receipt.units_out,
        amount_atoms=receipt.amount_atoms,
        ceiling_atoms=ceiling_atoms,
        energy_millijoules=receipt.energy_millijoules,
        energy_method=energy_method,
    )


def summed(parts: Sequence[Spent]) -> Spent:
    """All jobs of one call together."""
    methods = {part.energy_method for part in parts}
    return Spent(
        units_in=sum(part.units_in for part in parts),
        units_out=sum(part.units_out for part in parts),
        amount_atoms=sum(part.amount_atoms for part in parts),
        ceiling_atoms=sum(part.ceiling_atoms for part in parts),
        energy_millijoules=sum(part.energy_millijoules for part in parts),
        energy_method=methods.pop() if len(methods) == 1 else "mixed",
    )


def of_completion(task: str, used: Spent, currency: Currency) -> dict[str, Any]:
    """`usage` of chat completions, completions, embeddings and our own tasks."""
    counts: dict[str, Any] = {"prompt_tokens": used.units_in}
    if task == "chat":
        counts["completion_tokens"] = used.units_out
    return counts | {"total_tokens": used.units_in + used.units_out} | _cost(used, currency)


def of_response(used: Spent, currency: Currency) -> dict[str, Any]:
    """`usage` of responses."""
    return {
        "input_tokens": used.units_in,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": used.units_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used.units_in + used.units_out,
    } | _cost(used, currency)


def _cost(used: Spent, currency: Currency) -> dict[str, Any]:
    return {
        "cost": money.to_number(used.amount_atoms, currency.decimals),
        "cost_details": {
            "currency": currency.symbol,
            "amount": format_atoms(used.amount_atoms, currency.decimals),
            "atoms": str(used.amount_atoms),
            "ceiling_atoms": str(used.ceiling_atoms),
            "refunded_atoms": str(used.ceiling_atoms - used.amount_atoms),
            "energy_millijoules": str(used.energy_millijoules),
            "energy_method": used.energy_method,
        },
    }
