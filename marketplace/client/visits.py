"""A key's signed visit: how a buyer without a bearer secret says who asks."""

from __future__ import annotations

from marketplace.protocol.eip712 import Domain
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Visit
from marketplace.protocol.signing import Signer

HEADER = "x-watt-visit"


def visit_header(key: Signer, domain: Domain, now_ms: int) -> dict[str, str]:
    """Header of a call made now; gateways take it for five minutes."""
    visit = Visit(key=key.address, issued_at_ms=now_ms)
    return {HEADER: f"{to_hex(visit.encode())}.{to_hex(key.sign(visit, domain))}"}
