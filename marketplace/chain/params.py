"""What the contracts are built with, and every rule their constructors hold it to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import ZERO_ADDRESS

HOUR: Final = 3_600
LONGEST_SESSION_SECONDS: Final = 72 * HOUR
_LONGEST_GRACE_SECONDS: Final = 72 * HOUR
_SHORTEST_CHALLENGE_SECONDS: Final = 60
_SHORTEST_WINDOW_SECONDS: Final = 30
_SEATS: Final = 3
_ROUNDS: Final = 2
_UINT32: Final = (1 << 32) - 1
_UINT48: Final = (1 << 48) - 1
_UINT64: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CourtParams:
    """Amounts and windows of the court (`CourtRules` in `Cases.sol`); the defaults are those of PROTOCOL §5.

    `full_weight_atoms` is the stake at which a juror's chance to be drawn grows no further.
    """

    bond_atoms: int = 30_000_000
    juror_fee_atoms: int = 5_000_000
    juror_deposit_atoms: int = 20_000_000
    full_weight_atoms: int = 800_000_000
    answer_seconds: int = 6 * HOUR
    draw_seconds: int = HOUR
    commit_seconds: int = HOUR
    reveal_seconds: int = HOUR

    @property
    def values(self) -> tuple[int, ...]:
        """In the contract's order."""
        return dataclasses.astuple(self)

    @classmethod
    def of(cls, values: Sequence[Any]) -> CourtParams:
        """Of values in the contract's order."""
        return cls(**dict(zip((f.name for f in dataclasses.fields(cls)), values, strict=True)))

    @property
    def longest_seconds(self) -> int:
        """Longest case after its challenge windows: an answer, then two rounds, every juror replaced."""
        round_seconds = _ROUNDS * (self.draw_seconds + self.commit_seconds) + self.reveal_seconds
        return self.answer_seconds + _ROUNDS * round_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployParams:
    """Constructor arguments; the defaults are those of PROTOCOL §5.

    Attributes:
        treasury: receives the fees.
        token: an ERC-20; None deploys a test dollar, on local chains only.
        challenge_seconds: time in which a claim can be disputed.
        dispute_seconds: all challenge windows and the longest case; the court checks it.
    """

    treasury: str
    token: str | None = None
    min_stake_atoms: int = 100_000_000
    max_session_seconds: int = LONGEST_SESSION_SECONDS
    grace_seconds: int = 15 * 60
    unstake_delay_seconds: int = 14 * 24 * HOUR
    challenge_seconds: int = 6 * HOUR
    dispute_seconds: int = 36 * HOUR
    court: CourtParams = CourtParams()

    @classmethod
    def local(cls, treasury: str) -> DeployParams:
        """Short windows for a development chain: 24 h sessions, 2 min grace, 26 h unstake delay."""
        return cls(
            treasury=treasury,
            min_stake_atoms=10_000_000,
            max_session_seconds=24 * HOUR,
            grace_seconds=120,
            unstake_delay_seconds=26 * HOUR,
            challenge_seconds=120,
            dispute_seconds=HOUR,
            court=CourtParams(
                bond_atoms=3_000_000,
                juror_fee_atoms=500_000,
                juror_deposit_atoms=1_000_000,
                full_weight_atoms=80_000_000,
                answer_seconds=120,
                draw_seconds=60,
                commit_seconds=120,
                reveal_seconds=120,
            ),
        )


def check(params: DeployParams) -> None:
    """Passes what the constructors would take.

    Raises:
        BadRequest: they would refuse it, and transactions would be wasted; names every rule that is broken.
    """
    broken = [*_escrow(params), *_registry(params), *_court(params)]
    if broken:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"the contracts would refuse these parameters: {'; '.join(broken)}",
            hint="Correct them in the network's file; nothing was sent.",
            broken=broken,
        )


def _escrow(params: DeployParams) -> Iterator[str]:
    if params.treasury == ZERO_ADDRESS:
        yield "treasury must be an address that can receive the fees"
    if params.token == ZERO_ADDRESS:
        yield "token must be an ERC-20"
    yield from _between("max_session_seconds", params.max_session_seconds, 1, LONGEST_SESSION_SECONDS)
    yield from _between("grace_seconds", params.grace_seconds, 0, _LONGEST_GRACE_SECONDS)
    yield from _between("challenge_seconds", params.challenge_seconds, _SHORTEST_CHALLENGE_SECONDS, _UINT32)


def _registry(params: DeployParams) -> Iterator[str]:
    # Stake is kept in 64 bits: a higher minimum could never be met.
    yield from _between("min_stake_atoms", params.min_stake_atoms, 0, _UINT64)
    yield from _between("dispute_seconds", params.dispute_seconds, 0, _UINT48)
    windows = params.max_session_seconds + params.grace_seconds + params.dispute_seconds
    # Nobody may leave with the stake while work of theirs can still be disputed.
    yield from _between("unstake_delay_seconds", params.unstake_delay_seconds, windows + 1, _UINT48)


def _court(params: DeployParams) -> Iterator[str]:
    court = params.court
    yield from _between("court.juror_fee_atoms", court.juror_fee_atoms, 1, _UINT64)
    yield from _between("court.bond_atoms", court.bond_atoms, _SEATS * court.juror_fee_atoms, _UINT64)
    yield from _between(
        "court.juror_deposit_atoms", court.juror_deposit_atoms, court.juror_fee_atoms, _UINT64
    )
    yield from _between("court.full_weight_atoms", court.full_weight_atoms, 1, _UINT64)
    for name in ("answer_seconds", "draw_seconds", "commit_seconds", "reveal_seconds"):
        yield from _between(f"court.{name}", getattr(court, name), _SHORTEST_WINDOW_SECONDS, _UINT32)
    longest = 2 * params.challenge_seconds + court.longest_seconds
    yield from _between("dispute_seconds", params.dispute_seconds, longest, _UINT48)


def _between(name: str, value: int, least: int, most: int) -> Iterator[str]:
    if not least <= value <= most:
        yield f"{name} is {value}, it must be {least} to {most}"
