"""What a held key may buy: models, money, time. Checked before anything is ordered.

These are the gateway's own limits. The escrow's caps on a granted key, and what its sessions hold, stand
whatever a gateway does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from marketplace.funding.rules import Price
from marketplace.protocol import patterns
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.store import events, keys, sessions
from marketplace.store.tables import KeyRow, Tx

WARN_BPS: Final = 8_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a fresh key may buy; None and nothing: no limit."""

    models: tuple[str, ...] = ()
    budget_atoms: int | None = None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a key may still spend, in atoms: of one session, and of its budget where it has one.

    What running orders may cost is not left.
    """

    session_atoms: int
    deposited_atoms: int
    budget_atoms: int | None = None
    budget_left_atoms: int | None = None

    @property
    def warns(self) -> bool:
        """Whether so much is spent that somebody should hear of it."""
        whole, left = self.of_whole
        return whole > 0 and (whole - left) * 10_000 >= whole * WARN_BPS

    @property
    def of_whole(self) -> tuple[int, int]:
        """What there was, and what of it is left: of the budget, else of the session."""
        if self.budget_atoms is not None and self.budget_left_atoms is not None:
            return self.budget_atoms, self.budget_left_atoms
        return self.deposited_atoms, self.session_atoms


def check_terms(terms: Terms, now_at: int) -> None:
    """Whether a key can be made with these. Raises `BadRequest`."""
    if problem := patterns.problem_of(terms.models):
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"models: {problem}", param="models")
    if terms.expires_at is not None and terms.expires_at <= now_at:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "expires_at has passed", param="expires_at")


def admit(tx: Tx, address: str, now_ms: int) -> None:
    """Whether a held key may be used at all. Raises `BadRequest`."""
    row = keys.find(tx, address)
    if row is not None:
        check_live(row, now_ms)


def check_live(row: KeyRow, now_ms: int) -> None:
    """Raises `BadRequest` when a key was revoked or its time is over."""
    if row.revoked_at_ms is not None:
        raise BadRequest(ErrorCode.KEY_REVOKED, "this key was revoked")
    if row.expires_at is not None and row.expires_at * 1000 <= now_ms:
        raise BadRequest(ErrorCode.KEY_REVOKED, "this key has expired")


def check_model(tx: Tx, address: str, model_name: str, model_id: str) -> None:
    """Whether a held key may buy a model, by the name its nodes give it or its id. Raises `BadRequest`."""
    row = keys.find(tx, address)
    listed = models_of(row) if row is not None else ()
    if not patterns.allows(listed, model_name, model_id):
        detail = f"this key may buy {', '.join(listed)}, not {model_name}"
        raise BadRequest(ErrorCode.MODEL_NOT_ALLOWED, detail, param="model")


def affordable(tx: Tx, address: str, prices: Sequence[Price]) -> list[int]:
    """Places of the prices that a key's budget covers; its sums stay true until `tx` ends.

    Raises:
        BadRequest: it covers none.
    """
    row = keys.find(tx, address)
    if row is None or row.budget_atoms is None:
        return list(range(len(prices)))
    keys.hold(tx, address)
    left = max(0, row.budget_atoms - sessions.committed_atoms(tx, address))
    found = [place for place, price in enumerate(prices) if price.ceiling_atoms <= left]
    if not found:
        least = min(price.ceiling_atoms for price in prices)
        detail = f"{left} atoms are left of this key's budget, this job may cost {least}"
        raise BadRequest(ErrorCode.BUDGET_EXCEEDED, detail, left_atoms=str(left))
    return found


def left(tx: Tx, address: str, session_id: str) -> Left | None:
    """What a key may still spend of a session and of its budget; None for an unknown session."""
    row, session = keys.find(tx, address), sessions.find_fresh(tx, session_id)
    if session is None:
        return None
    budget = row.budget_atoms if row is not None else None
    rest = None if budget is None else max(0, budget - sessions.committed_atoms(tx, address))
    return Left(
        session_atoms=sessions.left_atoms(session),
        deposited_atoms=session.deposited_atoms,
        budget_atoms=budget,
        budget_left_atoms=rest,
    )


def check_granted(tx: Tx, buyer: str, key: str) -> None:
    """Raises `BadRequest` where a buyer has revoked a key on the chain: it orders no more of its sessions."""
    if buyer != key and events.is_revoked(tx, buyer, key):
        raise BadRequest(ErrorCode.KEY_REVOKED, f"{buyer} has revoked this key on the chain")


def models_of(row: KeyRow) -> tuple[str, ...]:
    """The patterns a key was made with."""
    return tuple(row.models.splitlines())
