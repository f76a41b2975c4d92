"""What a node serves under each of its prices: versions, trials, and the way back. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.shares import WHOLE_BPS

_PERCENT: Final = re.compile(r"(\d{1,3})(?:\.(\d{1,2}))?\s*%")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """One model a node sells, whatever version it is at.

    Attributes:
        source: how the settings name it; what `current` is at first.
        price: the settings' name whose price holds.
        current: shelf name or source of the version that serves.
        previous: the version before it; None: there was none, or it was gone back to.
        canary: the version on trial beside it.
        canary_bps: share of 10,000 of the orders by name that the trial asks for.
    """

    source: str
    price: str
    current: str
    previous: str | None = None
    canary: str | None = None
    canary_bps: int = 0

    @property
    def wanted(self) -> tuple[str, ...]:
        """Versions that must be ready for jobs."""
        return (self.current,) if self.canary is None else (self.current, self.canary)


def servings(priced: Sequence[str], stored: Sequence[Mapping[str, Any]]) -> tuple[Serving, ...]:
    """What is served: every priced model, at the version that was stored for it, and what was added since.

    Args:
        priced: models of the settings; one that is gone from there is no longer served.
        stored: what `plain` gave.
    """
    kept = {item.source: item for item in (Serving(**fields) for fields in stored) if item.price in priced}
    first = [kept.pop(source, Serving(source=source, price=source, current=source)) for source in priced]
    return (*first, *kept.values())


def plain(items: Sequence[Serving]) -> list[dict[str, Any]]:
    """Servings as they are stored."""
    return [asdict(item) for item in items]


def choose(items: Sequence[Serving], name: str | None) -> Serving:
    """The serving of a name, or the only one. `name` may also be of one of its versions.

    Raises:
        BadRequest: none, or which is meant is not clear.
    """
    fitting = [item for item in items if name in (None, item.source, item.current, item.canary)]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(item.source for item in items) or "nothing"
    if name is None and items:
        raise _refused(f"several models are served ({known})", "Name one of them with --for NAME.")
    raise _refused(f"{name or 'no model'} is not served here; served: {known}", "watt models list shows all.")


def put(items: Sequence[Serving], changed: Serving) -> tuple[Serving, ...]:
    """The servings with one of them changed, or added."""
    known = any(item.source == changed.source for item in items)
    swapped = tuple(changed if item.source == changed.source else item for item in items)
    return swapped if known else (*items, changed)


def roll_out(serving: Serving, version: str, share_bps: int) -> Serving:
    """Puts a version on trial beside the current one, or changes its share.

    Raises:
        BadRequest: it serves already, or another trial runs.
    """
    if version == serving.current:
        raise _refused(f"{version} is what {serving.source} serves already", "Roll out another version.")
    if serving.canary not in (None, version):
        raise _refused(
            f"{serving.canary} is on trial for {serving.source}",
            "End that trial first: watt models promote, or watt models roll-back.",
        )
    return replace(serving, canary=version, canary_bps=share_bps)


def promote(serving: Serving) -> Serving:
    """Makes the version on trial the current one. Raises `BadRequest` when none is."""
    if serving.canary is None:
        raise _refused(
            f"no version of {serving.source} is on trial", "Start a trial first: watt models roll-out NAME."
        )
    return replace(serving, current=serving.canary, previous=serving.current, canary=None, canary_bps=0)


def roll_back(serving: Serving) -> Serving:
    """Ends the trial, or else goes back to the version before. Raises `BadRequest` when there is none."""
    if serving.canary is not None:
        return replace(serving, canary=None, canary_bps=0)
    if serving.previous is None:
        raise _refused(
            f"{serving.source} has no version to go back to", "Roll out the version you want instead."
        )
    return replace(serving, current=serving.previous, previous=None)


def users_of(items: Sequence[Serving], version: str) -> list[str]:
    """Sources of the servings that run a version, try it, or could go back to it."""
    return [item.source for item in items if version in (*item.wanted, item.previous)]


def share_bps(text: str) -> int:
    """Share of a percentage, as in `5%` or `0.5%`. Raises `BadRequest` outside 0.01 % to 100 %."""
    found = _PERCENT.fullmatch(text.strip())
    share = int(found[1]) * 100 + int((found[2] or "").ljust(2, "0")) if found else 0
    if not 0 < share <= WHOLE_BPS:
        raise _refused(f"{text!r} is no share", "Give a percentage from 0.01% to 100%, as in 5%.")
    return share


def _refused(detail: str, hint: str) -> BadRequest:
    return BadRequest(ErrorCode.INVALID_REQUEST, detail, hint=hint)
