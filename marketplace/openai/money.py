"""Amounts at the HTTP edge: lenient on the way in, JSON numbers where clients expect them."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from marketplace.protocol.errors import BadRequest, ErrorCode

_MOST_ATOMS = 1 << 63


def to_atoms(units: str | float, decimals: int, param: str) -> int:
    """Atoms of a decimal amount, rounded down. Raises `BadRequest`."""
    try:
        value = Decimal(str(units)).scaleb(decimals)
    except InvalidOperation as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, f"{param} must be a decimal amount", param=param
        ) from error
    if not value.is_finite() or not 0 <= value < _MOST_ATOMS:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{param} is out of range", param=param)
    return int(value)


def to_number(atoms: int, decimals: int) -> float:
    """The same as a JSON number, for fields where clients expect one."""
    return float(Decimal(atoms).scaleb(-decimals))
