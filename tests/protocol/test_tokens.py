"""Permits and authorizations are what every other implementation of EIP-712 would sign."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from marketplace.protocol.eip712 import Message, fields_of, type_string
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.signing import Signer, signer_of
from marketplace.protocol.tokens import Permit, ReceiveWithAuthorization, TokenDomain

HOLDER = Signer(b"\x31" * 32)
ESCROW = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
USDC = TokenDomain(
    name="USD Coin", version="2", chain_id=8453, token="0x0165878A594ca255338adfa4d48449f69242Eb8F"
)
PERMIT = Permit(owner=HOLDER.address, spender=ESCROW, value_atoms=5_000_000, nonce=3, deadline=2_000_000_000)
AUTHORIZATION = ReceiveWithAuthorization(
    payer=HOLDER.address,
    to=ESCROW,
    value_atoms=2**200,
    valid_after=0,
    valid_before=2_000_000_000,
    nonce=b"\x0a" * 32,
)


def elsewhere(message: Message) -> Any:
    """The same message as eth-account understands it."""
    fields = fields_of(type(message))
    values = {f.name: getattr(message, a) for a, f in fields.items()}
    domain = {"name": USDC.name, "version": USDC.version, "chainId": USDC.chain_id}
    kinds = {type(message).__name__: [{"name": f.name, "type": f.kind} for f in fields.values()]}
    return encode_typed_data(domain | {"verifyingContract": USDC.token}, kinds, values)


@pytest.mark.parametrize("message", [PERMIT, AUTHORIZATION], ids=lambda m: type(m).__name__)
def test_signature_is_the_one_eth_account_makes(message: Message) -> None:
    theirs = Account.sign_message(elsewhere(message), HOLDER.secret)
    assert HOLDER.sign(message, USDC) == bytes(theirs.signature)
    assert signer_of(message, USDC, bytes(theirs.signature)) == HOLDER.address


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Permit, "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"),
        (
            ReceiveWithAuthorization,
            "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,"
            "uint256 validBefore,bytes32 nonce)",
        ),
    ],
)
def test_type_is_the_one_of_the_standard(message: type[Message], text: str) -> None:
    assert type_string(message) == text


def test_signature_for_one_token_is_none_for_another() -> None:
    other = TokenDomain(name="USD Coin", version="1", chain_id=USDC.chain_id, token=USDC.token)
    assert signer_of(PERMIT, other, HOLDER.sign(PERMIT, USDC)) != HOLDER.address


def test_large_amounts_survive_json() -> None:
    data = AUTHORIZATION.to_json()
    assert (data["value"], data["from"]) == (str(2**200), HOLDER.address)
    assert data["nonce"] == to_hex(AUTHORIZATION.nonce)
    assert ReceiveWithAuthorization.from_json(data) == AUTHORIZATION
