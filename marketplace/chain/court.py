"""The court as it is now: rules, cases, jurors, proofs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from marketplace.chain.client import ChainClient
from marketplace.chain.codec import decode_result, decode_struct, encode_call
from marketplace.chain.disputes import CaseState, Verdict
from marketplace.chain.params import CourtParams
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import checksum

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseView:
    """A dispute about one receipt (`Case` in `Cases.sol`); `phase_ends` is Unix seconds."""

    challenger: str
    state: CaseState
    round: int
    phase_ends: int
    amount_atoms: int
    held_atoms: int
    owner: str
    node_id: int
    buyer: str
    key: str
    session_id: bytes
    evidence_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatView:
    """A juror's seat; `commitment` is zero until a sealed verdict is in."""

    juror: str
    verdict: Verdict
    commitment: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JurorView:
    """Money of anyone who has some in the court; `is_enrolled` is whether draws can hit it."""

    balance_atoms: int
    locked_atoms: int
    is_enrolled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofView:
    """What was proven about an order, and what of the award is not paid out yet."""

    buyer: str
    award_atoms: int
    is_proven: bool


def rules(chain: ChainClient) -> CourtParams:
    """Amounts and windows of the court."""
    return CourtParams.of(_view(chain, "rules"))


def case(chain: ChainClient, case_id: bytes) -> CaseView | None:
    """A case; None when it was never opened."""
    found = _struct(chain, "caseOf", case_id)
    if found["state"] == CaseState.NONE:
        return None
    return CaseView(
        challenger=checksum(found["challenger"]),
        state=CaseState(found["state"]),
        round=found["round"],
        phase_ends=found["phaseEnds"],
        amount_atoms=found["amount"],
        held_atoms=found["held"],
        owner=checksum(found["owner"]),
        node_id=found["nodeId"],
        buyer=checksum(found["buyer"]),
        key=checksum(found["key"]),
        session_id=found["sessionId"],
        evidence_hash=found["evidenceHash"],
    )


def seats(chain: ChainClient, case_id: bytes) -> list[SeatView]:
    """The seats of a case in its present round, vacant ones left out."""
    found = [
        SeatView(juror=checksum(juror), verdict=Verdict(verdict), commitment=commitment)
        for juror, verdict, commitment in _view(chain, "seatsOf", case_id)
    ]
    return [seat for seat in found if int(seat.juror, 16)]


def juror(chain: ChainClient, who: str) -> JurorView:
    """Money and place of an address; all zero for a stranger."""
    found = _struct(chain, "jurorOf", who)
    return JurorView(
        balance_atoms=found["balance"], locked_atoms=found["locked"], is_enrolled=found["place"] > 0
    )


def proof(chain: ChainClient, order_hash: bytes) -> ProofView:
    """What was proven about an order."""
    found = _struct(chain, "proofOf", order_hash)
    return ProofView(buyer=checksum(found["buyer"]), award_atoms=found["award"], is_proven=found["isProven"])


def _view(chain: ChainClient, function: str, *values: Any) -> tuple[Any, ...]:
    return _read(chain, decode_result, function, *values)


def _struct(chain: ChainClient, function: str, *values: Any) -> dict[str, Any]:
    return _read(chain, decode_struct, function, *values)


def _read(chain: ChainClient, decode: Callable[[str, str, bytes], T], function: str, *values: Any) -> T:
    court = chain.deployment.court
    try:
        return decode("Court", function, chain.call(court, encode_call("Court", function, *values)))
    except (ValueError, BadRequest) as error:
        # No view of the court reverts, so other code lives at the address.
        raise ChainTrouble(ErrorCode.WRONG_CHAIN, f"Court.{function} at {court}: {error}") from error
