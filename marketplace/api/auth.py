"""Who is asking: a bearer secret, or a key's signed visit."""

from __future__ import annotations

from typing import Final

from fastapi import Request

from marketplace.flow import Market
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex
from marketplace.protocol.messages import Visit
from marketplace.protocol.signing import BadSignature, Signer, signer_of

VISIT_MS: Final = 300_000


async def bearer(market: Market, request: Request) -> Signer:
    """The delegate key behind the Authorization header. Raises `BadRequest`."""
    return await market.key_of(secret_of(request))


def secret_of(request: Request) -> str:
    """The bearer secret of the Authorization header. Raises `BadRequest`."""
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not secret.strip():
        raise BadRequest(ErrorCode.MISSING_KEY)
    return secret.strip()


async def caller(market: Market, request: Request) -> str:
    """Address of the key that asks, by bearer secret or visit. Raises `BadRequest`."""
    visit = request.headers.get("x-watt-visit")
    if visit is None:
        return (await bearer(market, request)).address
    return visitor(market, visit)


def visitor(market: Market, header: str) -> str:
    """Address that signed a visit of the last five minutes. Raises `BadRequest`."""
    message, _, signature = header.partition(".")
    try:
        visit = Visit.decode(from_hex(message))
        signer = signer_of(visit, market.domain, from_hex(signature))
    except (BadSignature, ValueError) as error:
        raise BadRequest(ErrorCode.BAD_SIGNATURE, f"x-watt-visit: {error}") from error
    if signer != visit.key:
        raise BadRequest(ErrorCode.BAD_SIGNATURE, f"the visit must be signed by {visit.key}")
    if abs(market.clock() - visit.issued_at_ms) > VISIT_MS:
        raise BadRequest(ErrorCode.CLOCK_SKEW, "the visit is more than five minutes old")
    return signer
