"""What a key may do, and what of that is left. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.forecasts import DAY_SECONDS

if TYPE_CHECKING:
    from marketplace.chain.client import KeyState


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a key may do. `expires_at` is Unix seconds, exclusive; no `node_ids`: any node."""

    per_session_atoms: int
    per_day_atoms: int
    total_atoms: int
    expires_at: int
    node_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKey:
    """A key of a buyer as the escrow has it now; what is left is 0 once it is over."""

    key: str
    state: KeyState
    is_live: bool
    left_today_atoms: int
    left_atoms: int


def check_not_revoked(state: KeyState, signed_nonce: int) -> None:
    """Raises `BadRequest` for a key its buyer has revoked; one whose grant was never sent is none.

    `signed_nonce` is the number of the newest grant somebody may still send.
    """
    if state.expires_at == 0 and state.nonce > signed_nonce:
        raise BadRequest(
            ErrorCode.KEY_REVOKED, "this key's buyer has revoked it", hint="Ask the buyer for another grant."
        )


def held_key(state: KeyState, key: str, now: int) -> HeldKey:
    """What a key can still move at a moment, in Unix seconds."""
    is_live = now < state.expires_at
    spent_today = state.spent_today_atoms if state.day == now // DAY_SECONDS else 0
    left = max(0, state.total_atoms - state.spent_atoms) if is_live else 0
    today = min(left, max(0, state.per_day_atoms - spent_today))
    return HeldKey(key=key, state=state, is_live=is_live, left_today_atoms=today, left_atoms=left)
