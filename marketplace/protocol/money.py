"""Amounts as people write them. Whole arithmetic only: no float ever holds money."""

from __future__ import annotations

import re
from typing import Final

from marketplace.protocol.errors import BadRequest, ErrorCode

_DECIMAL: Final = re.compile(r"(\d{1,30})(?:\.(\d{1,30}))?", re.ASCII)
_LEAST_DIGITS: Final = 2
_BITS: Final = 127


def parse_atoms(text: str, decimals: int) -> int:
    """Atoms of a decimal amount such as `0.0003`.

    Raises:
        BadRequest: no plain decimal number, finer than one atom, or 2^127 atoms and more.
    """
    found = _DECIMAL.fullmatch(text.strip())
    if not found:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{text!r} is no amount; write it as in 0.25")
    whole, fraction = found[1], (found[2] or "").rstrip("0")
    if len(fraction) > decimals:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{text} is finer than one atom ({decimals} decimals)")
    atoms = int(whole + fraction.ljust(decimals, "0"))
    # Amounts are signed in 128 bits; the last is left to sums of two.
    if atoms >> _BITS:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{text} is more than any account can hold")
    return atoms


def format_atoms(atoms: int, decimals: int) -> str:
    """Decimal amount of atoms, exact, with at least two digits after the point."""
    whole, fraction = divmod(abs(atoms), 10**decimals)
    digits = str(fraction).rjust(decimals, "0") if decimals else ""
    shown = digits.rstrip("0").ljust(min(_LEAST_DIGITS, decimals), "0")
    sign = "-" if atoms < 0 else ""
    return f"{sign}{whole}.{shown}" if shown else f"{sign}{whole}"
