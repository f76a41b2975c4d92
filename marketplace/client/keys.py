"""A buyer's keys: what each may move into sessions, granted, listed and taken back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from marketplace.chain import calls, history
from marketplace.chain.client import SessionState
from marketplace.client.caps import Caps, HeldKey, held_key
from marketplace.client.relay import SignedGrant
from marketplace.client.wallet import BuyerWallet
from marketplace.protocol import nodelist
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.forecasts import DAY_SECONDS, HOUR_SECONDS, Forecast, forecast, spent_in
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import KeyGrant, Visit
from marketplace.protocol.transactions import TxRecord

_UINT64: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """How fast a key spends, and its sessions that are not closed, by their ids."""

    forecast: Forecast
    sessions: Mapping[bytes, SessionState]


class BuyerKeys:
    """The keys of one buyer's wallet."""

    def __init__(self, wallet: BuyerWallet) -> None:
        self.wallet = wallet

    def grant(self, key: str, caps: Caps) -> TxRecord:
        """Grants a key, in place of what it was let before. Raises as `BuyerWallet.send`."""
        grant = self._message(key, caps, nonce=0, valid_until=0)
        return self.wallet.send(calls.set_key(self.wallet.deployment, grant))

    def sign_grant(self, key: str, caps: Caps, *, valid_seconds: int = DAY_SECONDS) -> SignedGrant:
        """The same grant signed, for anybody to send; the buyer needs no gas.

        It is void once the buyer has granted or revoked the key otherwise.
        """
        state = self.wallet.chain.key(self.wallet.address, key)
        until = self._now() + valid_seconds
        grant = self._message(key, caps, nonce=state.nonce + 1, valid_until=until)
        domain = self.wallet.deployment.domain
        return SignedGrant(message=grant, signature=self.wallet.signer.sign(grant, domain), domain=domain)

    def visit(self, now_ms: int) -> str:
        """What tells a gateway that this buyer asks, for five minutes: its header `x-watt-visit`."""
        message = Visit(key=self.wallet.address, issued_at_ms=now_ms)
        signature = self.wallet.signer.sign(message, self.wallet.deployment.domain)
        return f"{to_hex(message.encode())}.{to_hex(signature)}"

    def revoke(self, key: str) -> TxRecord:
        """Takes everything from a key at once; sessions it has opened stay open."""
        return self.wallet.send(calls.revoke_key(self.wallet.deployment, key))

    def list(self) -> list[HeldKey]:
        """Every key this buyer ever granted, oldest first, with what each can still move."""
        return [self.held(key) for key in history.keys_of(self.wallet.chain, self.wallet.address)]

    def held(self, key: str) -> HeldKey:
        """A key as the escrow has it."""
        return held_key(self.wallet.chain.key(self.wallet.address, key), key, self._now())

    def use(self, key: str) -> KeyUse:
        """What a key did with its grant: its forecast, and the sessions it has open."""
        moves, now = history.moves_of(self.wallet.chain, self.wallet.address, key), self._now()
        sessions = {move.session_id: None for move in moves}
        states = {name: self.wallet.chain.session(name, key) for name in sessions}
        open_ones = {name: state for name, state in states.items() if state is not None and not state.closed}
        spent = [(move.at, move.atoms) for move in moves]
        held = self.held(key)
        found = forecast(
            spent_in(spent, HOUR_SECONDS, now),
            spent_in(spent, DAY_SECONDS, now),
            left_atoms=held.left_atoms,
            now=now,
            ends_at=held.state.expires_at if held.is_live else None,
        )
        return KeyUse(forecast=found, sessions=open_ones)

    def _now(self) -> int:
        # The chain's clock decides when a key is over and when its day ends.
        return self.wallet.chain.head().timestamp

    def _message(self, key: str, caps: Caps, *, nonce: int, valid_until: int) -> KeyGrant:
        if caps.expires_at <= self._now():
            raise _refused("it would be over already", "Let it last longer: --for 24h")
        amounts = (caps.per_session_atoms, caps.per_day_atoms, caps.total_atoms)
        if not all(0 < amount <= _UINT64 for amount in amounts):
            raise _refused("each cap is above zero and below 2^64 atoms", "Name smaller amounts.")
        if key == self.wallet.address:
            raise _refused("the buyer itself needs no grant", "Name the address of another key.")
        return KeyGrant(
            buyer=self.wallet.address,
            key=key,
            per_session_atoms=caps.per_session_atoms,
            per_day_atoms=caps.per_day_atoms,
            total_atoms=caps.total_atoms,
            expires_at=caps.expires_at,
            nodes_root=nodelist.root(caps.node_ids),
            nonce=nonce,
            valid_until=valid_until,
        )


def _refused(why: str, hint: str) -> BadRequest:
    return BadRequest(ErrorCode.INVALID_REQUEST, f"this grant is of no use: {why}", hint=hint)
