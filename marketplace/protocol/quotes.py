"""What somebody without an account pays for: a quote with an address of its own (`Quotes.sol`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from marketplace.protocol.eip712 import Message, eip, type_hash
from marketplace.protocol.hexes import keccak
from marketplace.protocol.messages import Open


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote(Message):
    """One job at one price; its receiver's address follows from all of it.

    `pay_before` and `expires_at` are Unix seconds, exclusive; `amount_atoms` is the most the job may cost.
    """

    node_id: Annotated[int, eip("uint32", "nodeId")]
    offer_hash: Annotated[bytes, eip("bytes32", "offerHash")]
    request_hash: Annotated[bytes, eip("bytes32", "requestHash")]
    key: Annotated[str, eip("address", "key")]
    amount_atoms: Annotated[int, eip("uint128", "amount")]
    pay_before: Annotated[int, eip("uint48", "payBefore")]
    expires_at: Annotated[int, eip("uint48", "expiresAt")]
    salt: Annotated[bytes, eip("bytes32", "salt")]

    @property
    def struct_hash(self) -> bytes:
        """What the receiver's address and the session's salt are made of."""
        return keccak(type_hash(type(self)) + self.encode())

    def terms(self, receiver: str) -> Open:
        """Terms of the session that its payment opens."""
        return Open(
            buyer=receiver,
            key=self.key,
            node_id=self.node_id,
            amount_atoms=self.amount_atoms,
            open_before=self.pay_before,
            expires_at=self.expires_at,
            salt=self.struct_hash,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer(Message):
    """The quote key's word for who it was that paid, where the token cannot tell."""

    quote_hash: Annotated[bytes, eip("bytes32", "quoteHash")]
    payer: Annotated[str, eip("address", "from")]
    nonce: Annotated[bytes, eip("bytes32", "nonce")]
