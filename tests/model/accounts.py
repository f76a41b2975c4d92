"""Money in and out of the escrow, as `IEscrow` words it."""

from __future__ import annotations

from typing import Final

from tests.model.messages import NOBODY, ORDER, digest
from tests.model.records import U128, Fee, Refused, argument, fits
from tests.model.registry import Registry

FEE_NOTICE_SECONDS: Final = 7 * 86_400
FEE_CEILING_BPS: Final = 500
ALL_BPS: Final = 10_000


class Accounts(Registry):
    def deposit(self, amount: int) -> None:
        self._credit(self.caller, argument(amount))
        self.take(self.caller, self.places.escrow, amount)

    def deposit_with_permit(self, amount: int, deadline: int, v: int, r: bytes, s: bytes) -> None:
        argument(amount)
        self._permit(amount, deadline, r + s + bytes([v]))
        self.deposit(amount)

    def deposit_with_authorization(
        self, payer: int, amount: int, after: int, before: int, nonce: bytes, signature: bytes
    ) -> None:
        self._credit(payer, argument(amount))
        fields = (payer, self.places.escrow, amount, after, before, nonce)
        over = digest(self.places.token_domain, "ReceiveWithAuthorization", fields)
        self._require_payer(payer, over, signature)
        if not after < self.now < before:
            raise Refused("ERC3009InvalidAuthorizationTime", after, before)
        if (payer, nonce) in self.tables.authorizations:
            raise Refused("ERC3009UsedAuthorization", payer, nonce)
        self.tables.authorizations[payer, nonce] = True
        self.emit("token", "AuthorizationUsed", payer, nonce)
        self.transfer(payer, self.places.escrow, amount)

    def withdraw(self, amount: int, to: int) -> None:
        if argument(amount) == 0:
            raise Refused("Escrow_ZeroAmount")
        if to in (NOBODY, self.places.escrow):
            raise Refused("Escrow_WrongAddress", to)
        self.debit(self.caller, amount)
        self.emit("escrow", "Withdrawn", self.caller, to, amount)
        self.transfer(self.places.escrow, to, amount)

    # --------------------------------------------------------------------------------------- earnings, fees

    def collect(self, node_ids: list[int]) -> None:
        bps = self.fee_bps()
        for node_id in node_ids:
            node = self.tables.nodes.get(node_id)
            if node is None or node.earnings == 0:
                continue
            fee_down = node.earnings * bps // ALL_BPS
            self.change_node(node_id, earnings=0)
            fee = self._fee()
            self._set_fee(fee.bps, fee.announced_bps, fee.effective_at, fee.uncollected + fee_down)
            self.emit("escrow", "Collected", node_id, node.owner, node.earnings - fee_down, fee_down)
            self.transfer(self.places.escrow, node.owner, node.earnings - fee_down)

    def announce_fee(self, bps: int) -> None:
        if self.caller != self.places.treasury:
            raise Refused("Escrow_NotTreasury", self.caller, self.places.treasury)
        if bps > FEE_CEILING_BPS:
            raise Refused("Escrow_FeeTooHigh", bps, FEE_CEILING_BPS)
        current = self.fee_bps()
        effective_at = self.now + (FEE_NOTICE_SECONDS if bps > current else 0)
        self._set_fee(current, bps, effective_at, self._fee().uncollected)
        self.emit("escrow", "FeeAnnounced", bps, effective_at)

    def withdraw_fees(self) -> None:
        fee = self._fee()
        if fee.uncollected == 0:
            return
        self._set_fee(fee.bps, fee.announced_bps, fee.effective_at, 0)
        self.emit("escrow", "FeesWithdrawn", self.places.treasury, fee.uncollected)
        self.transfer(self.places.escrow, self.places.treasury, fee.uncollected)

    def fee_bps(self) -> int:
        fee = self._fee()
        return fee.bps if self.now < fee.effective_at else fee.announced_bps

    # -------------------------------------------------------------------------------------- what others use

    def account(self, buyer: int) -> int:
        return self.tables.accounts.get(buyer, 0)

    def add_to_account(self, buyer: int, amount: int) -> None:
        self.tables.accounts[buyer] = fits(self.account(buyer) + amount, U128)

    def debit(self, buyer: int, amount: int) -> None:
        if amount > self.account(buyer):
            raise Refused("Escrow_AboveAccount", amount, self.account(buyer))
        self.tables.accounts[buyer] = self.account(buyer) - amount

    # ---------------------------------------------------------------------------------------------- helpers

    def _credit(self, buyer: int, amount: int) -> None:
        if amount == 0:
            raise Refused("Escrow_ZeroAmount")
        self.add_to_account(buyer, amount)
        self.emit("escrow", "Deposited", buyer, amount)

    def _permit(self, amount: int, deadline: int, signature: bytes) -> None:
        """A permit that the token refuses is no error here."""
        nonce = self.tables.permits.get(self.caller, 0)
        fields = (self.caller, self.places.escrow, amount, nonce, deadline)
        over = digest(self.places.token_domain, "Permit", fields)
        if self.now > deadline or self.signer(over, signature) != self.caller:
            return
        self.tables.permits[self.caller] = nonce + 1
        self.approve(self.places.escrow, amount)

    def _require_payer(self, payer: int, over: bytes, signature: bytes) -> None:
        """The token's own rules about who signed, with the words of its library."""
        if payer == self.places.vault:
            return
        if len(signature) != 65:
            raise Refused("ERC3009InvalidSignature")
        s = int.from_bytes(signature[32:64], "big")
        if s > ORDER // 2:
            raise Refused("ECDSAInvalidSignatureS", s)
        signer = self.signer(over, signature)
        if signer == NOBODY:
            raise Refused("ECDSAInvalidSignature")
        if signer != payer:
            raise Refused("ERC3009InvalidSignature")

    def _fee(self) -> Fee:
        return self.tables.fee["fee"]

    def _set_fee(self, bps: int, announced_bps: int, effective_at: int, uncollected: int) -> None:
        self.tables.fee["fee"] = Fee(
            bps=bps, announced_bps=announced_bps, effective_at=effective_at, uncollected=uncollected
        )
