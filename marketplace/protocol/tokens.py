"""What a holder signs for a token's own contract: EIP-2612 permits and EIP-3009 authorizations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from marketplace.protocol.eip712 import Message, eip, separator_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDomain:
    """The token a signature is valid for; `name` and `version` are the token's own words."""

    name: str
    version: str
    chain_id: int
    token: str

    def separator(self) -> bytes:
        """EIP-712 domain separator of (name, version, chainId, token)."""
        return separator_of(self.name, self.version, self.chain_id, self.token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit(Message):
    """A holder's leave for `spender` to take `value_atoms` (EIP-2612).

    `deadline` is Unix seconds, inclusive.
    """

    owner: Annotated[str, eip("address", "owner")]
    spender: Annotated[str, eip("address", "spender")]
    value_atoms: Annotated[int, eip("uint256", "value")]
    nonce: Annotated[int, eip("uint256", "nonce")]
    deadline: Annotated[int, eip("uint256", "deadline")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveWithAuthorization(Message):
    """A holder's payment that only its receiver may fetch (EIP-3009); times are Unix seconds, exclusive.

    `nonce` is any 32 bytes the holder has not used; an authorization works once.
    """

    payer: Annotated[str, eip("address", "from")]
    to: Annotated[str, eip("address", "to")]
    value_atoms: Annotated[int, eip("uint256", "value")]
    valid_after: Annotated[int, eip("uint256", "validAfter")]
    valid_before: Annotated[int, eip("uint256", "validBefore")]
    nonce: Annotated[bytes, eip("bytes32", "nonce")]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferWithAuthorization(Message):
    """A holder's payment that anybody may send (EIP-3009); as `ReceiveWithAuthorization` otherwise."""

    payer: Annotated[str, eip("address", "from")]
    to: Annotated[str, eip("address", "to")]
    value_atoms: Annotated[int, eip("uint256", "value")]
    valid_after: Annotated[int, eip("uint256", "validAfter")]
    valid_before: Annotated[int, eip("uint256", "validBefore")]
    nonce: Annotated[bytes, eip("bytes32", "nonce")]
