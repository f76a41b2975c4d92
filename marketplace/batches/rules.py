"""What a batch can cost, whether it can be paid, and when a line is tried again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from marketplace.funding.rules import Price, Purse, choose
from marketplace.protocol.errors import SPECS, BadRequest, ErrorCode
from marketplace.protocol.hexes import keccak
from marketplace.protocol.phases import ENDINGS, EndReason
from marketplace.quoting.rules import L, Need, Quote, rank, refusal, resolve

WINDOW_MS: Final = 86_400_000
MOST_TRIES: Final = 3
# Nodes that are full or away say nothing about the line: it waits as long as the batch may.
_BUSY: Final = frozenset({EndReason.NO_NODE_LEFT, EndReason.REFUSED})
_PAUSE_MS: Final = 1_000
_MOST_PAUSE_MS: Final = 60_000
# An offer of a node that is away or draining still says what a line may cost once it is back.
_AWAY: Final = frozenset({ErrorCode.NO_NODE, ErrorCode.NODE_BUSY})
# Refusals at placing that a line brings on itself; all others pass with time, money or nodes.
_LINES_FAULT: Final = frozenset(
    {
        ErrorCode.INVALID_REQUEST,
        ErrorCode.UNSUPPORTED,
        ErrorCode.INPUT_TOO_LONG,
        ErrorCode.INVALID_FILE,
        ErrorCode.MODEL_NOT_ALLOWED,
        ErrorCode.KEY_REVOKED,
    }
)


def line_name(batch_id: str, number: int) -> str:
    """What a line's job is known by: placed again after a crash, it is the same job."""
    # Callers' own names begin with a key's address, so none of theirs can be this one.
    return keccak(f"batch\0{batch_id}\0{number}".encode()).hex()


def line_id(batch_id: str, number: int) -> str:
    """Id of a line in an output or error file."""
    return "batch_req_" + line_name(batch_id, number)[:24]


def able(
    model: str, listings: Sequence[L], need: Need, *, now_ms: int, min_stake_atoms: int
) -> list[Quote[L]]:
    """Quotes for a line that can be taken now; where there is none, those of nodes that may be back.

    Raises:
        BadRequest: no node that is known will ever take it.
    """
    model_id = resolve(model, listings)
    if model_id is None:
        raise BadRequest(ErrorCode.UNKNOWN_MODEL, f"nobody offers a model called {model[:80]!r}")
    fitting = [item for item in listings if item.model_id == model_id]
    quotes = rank(fitting, need, now_ms=now_ms, min_stake_atoms=min_stake_atoms)
    found = [quote for quote in quotes if quote.eligible] or _away(quotes, need)
    if not found:
        raise BadRequest(*refusal(quotes, need))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which session pays a line, and how much at most."""

    session_id: str
    ceiling_atoms: int


def share_out(
    wanted: Mapping[int, Sequence[Price]],
    purses: Iterable[Purse],
    promised: Mapping[str, int],
    deadline_ms: int,
) -> dict[int, Share]:
    """Who pays each line, so that all of them can be paid at once.

    Args:
        wanted: prices of each line, by its number.
        purses: open sessions of the key.
        promised: what lines of the key's other batches may yet take, by session.
        deadline_ms: until when a session must last.

    Raises:
        BadRequest: the sessions cannot carry it; the detail says from which line on.
    """
    left = [_less(purse, promised.get(purse.session_id, 0)) for purse in purses]
    whole, shares = list(left), dict[int, Share]()
    for number, offered in wanted.items():
        try:
            place, purse = choose(offered, left, deadline_ms)
        except BadRequest as lacking:
            choose_alone(number, offered, whole, deadline_ms)
            detail = (
                f"all lines together may cost {_least(wanted)} atoms or more; the sessions of this key "
                f"can set {total(shares)} aside for {len(shares)} of {len(wanted)} lines"
            )
            raise BadRequest(ErrorCode.SESSION_UNDERFUNDED, detail) from lacking
        ceiling = offered[place].ceiling_atoms
        left[left.index(purse)] = _less(purse, ceiling)
        shares[number] = Share(session_id=purse.session_id, ceiling_atoms=ceiling)
    return shares


def choose_alone(number: int, offered: Sequence[Price], purses: Sequence[Purse], deadline_ms: int) -> None:
    """Raises `BadRequest` that names the line when it could not be paid even alone."""
    try:
        choose(offered, purses, deadline_ms)
    except BadRequest as lacking:
        raise BadRequest(lacking.code, f"line {number}: {lacking.detail}", line=number) from lacking


def total(shares: Mapping[int, Share]) -> int:
    """The most all lines can cost together, in atoms."""
    return sum(share.ceiling_atoms for share in shares.values())


def check_limit(ceiling_atoms: int, max_cost_atoms: int | None) -> None:
    """Raises `BadRequest` when the lines together may cost more than the caller allows."""
    if max_cost_atoms is not None and ceiling_atoms > max_cost_atoms:
        detail = f"all lines together may cost {ceiling_atoms} atoms, max_cost allows {max_cost_atoms}"
        raise BadRequest(ErrorCode.PRICE_ABOVE_MAX, detail, ceiling_atoms=str(ceiling_atoms))


def is_lines_fault(code: ErrorCode) -> bool:
    """Whether a refusal at placing would be the same at any time."""
    return code in _LINES_FAULT


class Next(StrEnum):
    """What becomes of a line whose job ended without an answer."""

    RETRY = "retry"
    PAUSE = "pause"
    FAIL = "fail"


def after(reason: EndReason, tries: int, *, was_taken: bool) -> Next:
    """Another try while that may help; a pause first where nodes have no room.

    Args:
        reason: how the line's last job ended.
        tries: jobs of the line that failed so far, this one among them.
        was_taken: a node began with it; what all of them turned away was never tried.
    """
    if reason in _BUSY and not was_taken:
        return Next.PAUSE
    problem = ENDINGS[reason].problem
    may_help = problem is not None and SPECS[problem].retryable
    return Next.RETRY if may_help and tries < MOST_TRIES else Next.FAIL


def pause_ms(times: int) -> int:
    """How long nothing is placed after nodes had no room, `times` in a row."""
    return min(_PAUSE_MS << min(times, 10), _MOST_PAUSE_MS)


def _away(quotes: Sequence[Quote[L]], need: Need) -> list[Quote[L]]:
    limit = need.max_cost_atoms
    away = [quote for quote in quotes if quote.why_not in _AWAY]
    return [quote for quote in away if limit is None or quote.ceiling_atoms <= limit]


def _less(purse: Purse, atoms: int) -> Purse:
    return replace(purse, left_atoms=max(0, purse.left_atoms - atoms))


def _least(wanted: Mapping[int, Sequence[Price]]) -> int:
    return sum(min(price.ceiling_atoms for price in offered) for offered in wanted.values())
