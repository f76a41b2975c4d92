"""Deposits by signature: in one transaction of one's own, or in one of somebody else's."""

from __future__ import annotations

from typing import Final

from marketplace.chain import calls, tokens
from marketplace.client.relay import SignedDeposit
from marketplace.client.wallet import BuyerWallet
from marketplace.protocol.tokens import Permit, ReceiveWithAuthorization
from marketplace.protocol.transactions import TxRecord

PERMIT_SECONDS: Final = 1_800


def deposit_with_permit(wallet: BuyerWallet, amount: str) -> TxRecord:
    """Deposits in one transaction instead of two, where the token takes EIP-2612 permits.

    Raises:
        BadRequest: the token takes none, or there is less than the amount.
    """
    here, chain = wallet.deployment, wallet.chain
    atoms = wallet.atoms(amount, most=chain.token_balance_atoms(wallet.address))
    permit = Permit(
        owner=wallet.address,
        spender=here.escrow,
        value_atoms=atoms,
        nonce=tokens.permit_nonce(chain, here.token, wallet.address),
        deadline=chain.head().timestamp + PERMIT_SECONDS,
    )
    signature = wallet.signer.sign(permit, tokens.token_domain(chain, here.token))
    return wallet.send(calls.deposit_with_permit(here, atoms, permit.deadline, signature))


def sign_deposit(wallet: BuyerWallet, amount: str, *, valid_seconds: int, nonce: bytes) -> SignedDeposit:
    """An authorization to fetch a deposit, for anybody to send; the buyer needs no gas.

    Whoever sends it, the money can only ever reach the buyer's own account. `nonce` is 32 random bytes.

    Raises:
        BadRequest: the token takes no authorizations, or there is less than the amount.
    """
    here, chain = wallet.deployment, wallet.chain
    authorization = ReceiveWithAuthorization(
        payer=wallet.address,
        to=here.escrow,
        value_atoms=wallet.atoms(amount, most=chain.token_balance_atoms(wallet.address)),
        valid_after=0,
        valid_before=chain.head().timestamp + valid_seconds,
        nonce=nonce,
    )
    signature = wallet.signer.sign(authorization, tokens.token_domain(chain, here.token))
    return SignedDeposit(message=authorization, signature=signature, domain=here.domain)
