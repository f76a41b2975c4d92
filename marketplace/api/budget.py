"""What a key may still spend, in the headers of its answers; amounts in token units."""

from __future__ import annotations

from marketplace.chain.deployment import Deployment
from marketplace.funding.budgets import Left
from marketplace.protocol.money import format_atoms

SESSION_LEFT = "x-watt-session-left"
BUDGET_LEFT = "x-watt-budget-left"
WARNING = "x-watt-budget-warning"


def headers(left: Left | None, deployment: Deployment) -> dict[str, str]:
    """Headers about what is left; a warning from 80 % on."""
    if left is None:
        return {}
    decimals = deployment.token_decimals
    found = {SESSION_LEFT: format_atoms(left.session_atoms, decimals)}
    if left.budget_left_atoms is not None:
        found[BUDGET_LEFT] = format_atoms(left.budget_left_atoms, decimals)
    if left.warns:
        whole, rest = left.of_whole
        found[WARNING] = f"{(whole - rest) * 100 // whole} % of {format_atoms(whole, decimals)} is spent"
    return found
