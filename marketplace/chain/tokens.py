"""What must be known of a token before its holder signs for it."""

from __future__ import annotations

from typing import Any, Final

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from marketplace.chain.codec import decode_result, encode_call
from marketplace.chain.ethereum import Ethereum
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import keccak
from marketplace.protocol.tokens import TokenDomain

_VERSION: Final = keccak(b"version()")[:4]


def token_domain(chain: Ethereum, token: str) -> TokenDomain:
    """The token's own EIP-712 domain, proven against its separator.

    Raises:
        BadRequest: the token has no such domain, so nothing can be signed for it.
        ChainTrouble: the chain does not answer.
    """
    name, version = _described(chain, token) or _named(chain, token)
    domain = TokenDomain(name=name, version=version, chain_id=chain.chain_id, token=token)
    # A wrong guess would give signatures that only fail once somebody has paid gas for them.
    if chain.call(token, encode_call("TestDollar", "DOMAIN_SEPARATOR")) != domain.separator():
        raise _unsupported(token, "its domain is not that of its name and version")
    return domain


def permit_nonce(chain: Ethereum, token: str, owner: str) -> int:
    """The number the owner's next EIP-2612 permit must carry. Raises as `token_domain`."""
    return int(_read(chain, token, "nonces", owner)[0])


def symbol_and_decimals(chain: Ethereum, token: str) -> tuple[str, int]:
    """How a token's amounts are written. Raises as `token_domain`."""
    return str(_read(chain, token, "symbol")[0]), int(_read(chain, token, "decimals")[0])


def _described(chain: Ethereum, token: str) -> tuple[str, str] | None:
    """Name and version by ERC-5267, which newer tokens answer."""
    try:
        _, name, version, *_ = _read(chain, token, "eip712Domain")
    except BadRequest:
        return None
    return str(name), str(version)


def _named(chain: Ethereum, token: str) -> tuple[str, str]:
    """Name and version by the functions that older tokens, such as USDC, have."""
    try:
        (version,) = decode(["string"], chain.call(token, _VERSION))
    except (BadRequest, DecodingError) as error:
        raise _unsupported(token, "it names no version") from error
    return str(_read(chain, token, "name")[0]), str(version)


def _read(chain: Ethereum, token: str, function: str, *values: Any) -> tuple[Any, ...]:
    try:
        data = chain.call(token, encode_call("TestDollar", function, *values))
        return decode_result("TestDollar", function, data)
    except (BadRequest, ValueError) as error:
        raise _unsupported(token, f"it does not answer {function}") from error


def _unsupported(token: str, why: str) -> BadRequest:
    return BadRequest(
        ErrorCode.UNSUPPORTED,
        f"nothing can be signed for the token at {token}: {why}",
        hint="Approve and deposit with transactions instead: watt wallet deposit AMOUNT",
    )
