"""Keys with caps and sessions, as the protocol page and `IEscrow` word them.

Where a call breaks several rules at once the page does not say which is named; the model names the one that
the contract does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from tests.model.accounts import Accounts
from tests.model.messages import NOBODY, Caps, Grant, Terms, digest, leaf, pair, short
from tests.model.records import DIRTY, U128, Claim, Key, Refused, Session, argument, fits, narrow

REVOCATION_STEP: Final = 65_536
DAY_SECONDS: Final = 86_400
# Bits of the fields of `Open`, in order.
TERMS_BITS: Final = (160, 160, 32, 128, 48, 48)


class Keys(Accounts):
    def set_key(self, key: int, caps: Caps) -> None:
        _fit_all(caps)
        self._grant(self.caller, key, caps, self.key(self.caller, key).nonce + 1)

    def set_key_by_sig(self, grant: Grant, signature: bytes) -> None:
        if grant.nonce <= self.key(grant.buyer, grant.key).nonce:
            return
        if self.now >= grant.valid_until:
            raise Refused("Escrow_GrantTooLate", self.now, grant.valid_until)
        caps = Caps(grant.per_session, grant.per_day, grant.total, grant.expires_at, grant.nodes_root)
        _fit_all(caps)
        signer = self.signer(self.over("KeyGrant", grant), signature)
        if grant.buyer not in (signer or None, self.places.vault):
            raise Refused("Escrow_WrongSigner", signer, grant.buyer)
        self._grant(grant.buyer, grant.key, caps, grant.nonce)

    def revoke_key(self, key: int) -> None:
        held = self.key(self.caller, key)
        nonce = held.nonce + REVOCATION_STEP
        self.tables.keys[self.caller, key] = replace(held, expires_at=0, nonce=nonce)
        self.emit("escrow", "KeyRevoked", self.caller, key, nonce)

    def key(self, buyer: int, key: int) -> Key:
        return self.tables.keys.get((buyer, key), Key())

    def over(self, name: str, fields: Sequence[int | bytes]) -> bytes:
        """What is signed of a message to the escrow."""
        return digest(self.places.escrow_domain, name, fields)

    def authorise(self, terms: Terms, added: int, total: int, over: bytes, signature: bytes) -> None:
        """A buyer moves its money as it likes, a key inside its caps."""
        if not signature and self.caller == terms.buyer:
            return
        if not signature and self.caller == terms.key:
            self._spend(terms, added, total, b"")
            return
        length = 65 if len(signature) % 32 else 64
        proof = signature[length:]
        signer = self.signer(over, signature[:length])
        if signer != NOBODY and signer == terms.buyer and not proof:
            return
        if signer != NOBODY and signer == terms.key:
            self._spend(terms, added, total, proof)
        elif terms.buyer != self.places.vault:
            raise Refused("Escrow_WrongSigner", signer, terms.buyer)

    def _grant(self, buyer: int, key: int, caps: Caps, nonce: int) -> None:
        if key == NOBODY:
            raise Refused("Escrow_ZeroKey")
        for amount in (caps.per_session, caps.per_day, caps.total):
            narrow("Escrow", amount)
        self.tables.keys[buyer, key] = replace(
            self.key(buyer, key),
            per_session=caps.per_session,
            per_day=caps.per_day,
            total=caps.total,
            expires_at=caps.expires_at,
            nodes_root=caps.nodes_root,
            spent=0,
            nonce=nonce,
        )
        self.emit("escrow", "KeySet", buyer, key, nonce, *caps)

    def _spend(self, terms: Terms, added: int, total: int, proof: bytes) -> None:
        held = self.key(terms.buyer, terms.key)
        if self.now >= held.expires_at:
            raise Refused("Escrow_KeyExpired", self.now, held.expires_at)
        if total > held.per_session:
            raise Refused("Escrow_AboveSessionCap", total, held.per_session)
        if held.is_listed and not is_listed(held.nodes_root, terms.node_id, proof):
            raise Refused("Escrow_NodeNotAllowed", terms.node_id)
        today = self.now // DAY_SECONDS
        spent_today = (held.spent_today if held.day == today else 0) + added
        if spent_today > held.per_day:
            raise Refused("Escrow_AboveDayCap", spent_today, held.per_day)
        spent = held.spent + added
        if spent > held.total:
            raise Refused("Escrow_AboveTotalCap", spent, held.total)
        self.tables.keys[terms.buyer, terms.key] = replace(
            held, spent_today=spent_today, spent=spent, day=today
        )


class Sessions(Keys):
    def open(self, opens: list[Terms], signatures: list[bytes]) -> None:
        if len(opens) != len(signatures):
            raise Refused("Escrow_LengthMismatch", len(signatures), len(opens))
        for terms, signature in zip(opens, signatures, strict=True):
            self.open_one_session(terms, signature)

    def open_one_session(self, terms: Terms, signature: bytes) -> None:
        numbers = (terms.buyer, terms.key, terms.node_id, terms.amount, terms.open_before, terms.expires_at)
        if any(number >> bits for number, bits in zip(numbers, TERMS_BITS, strict=True)):
            raise Refused(DIRTY)
        session_id = self.session_id(terms)
        if self.session(terms.key, session_id).exists:
            return
        self._require_openable(terms)
        amount = narrow("Escrow", terms.amount)
        self.authorise(terms, amount, amount, session_id, signature)
        self.debit(terms.buyer, amount)
        session = Session(
            deposited=amount,
            node_id=terms.node_id,
            exists=True,
            epoch=self.tables.nodes[terms.node_id].epoch,
            expires_at=terms.expires_at,
        )
        self.tables.sessions[terms.key, short(session_id)] = session
        parties = (session_id, terms.buyer, terms.node_id, terms.key)
        self.emit("escrow", "SessionOpened", *parties, amount, terms.expires_at, session.epoch)

    def top_up(self, terms: Terms, deposited: int, signature: bytes) -> None:
        argument(deposited)
        session_id, session = self.existing(terms)
        if deposited <= session.deposited:
            return
        if session.closed:
            raise Refused("Escrow_SessionClosed", session_id)
        if self.now >= session.expires_at:
            raise Refused("Escrow_SessionOver", self.now, session.expires_at)
        added = narrow("Escrow", deposited) - session.deposited
        over = self.over("TopUp", (session_id, deposited))
        self.authorise(terms, added, deposited, over, signature)
        self.debit(terms.buyer, added)
        self.change_session(terms.key, session_id, deposited=deposited)
        self.emit("escrow", "SessionToppedUp", session_id, added, deposited)

    def close(self, terms: Terms, min_paid: int, signature: bytes) -> None:
        argument(min_paid)
        session_id, session = self.existing(terms)
        if session.closed:
            return
        if session.claimed:
            raise Refused("Escrow_ClaimPending", session_id)
        if session.paid < min_paid:
            raise Refused("Escrow_PaidTooLittle", session.paid, min_paid)
        wanted = self.node_signer(session)
        signer = self.signer(self.over("Close", (session_id, min_paid)), signature)
        if signer == NOBODY or signer != wanted:
            raise Refused("Escrow_WrongSigner", signer, wanted)
        self._return(terms, session_id, session)

    def expire(self, opens: list[Terms]) -> None:
        for terms in opens:
            session_id = self.session_id(terms)
            session = self.session(terms.key, session_id)
            if not session.exists or session.closed:
                continue
            if self.now < self.grace_end(session):
                raise Refused("Escrow_TooEarly", self.now, self.grace_end(session))
            self._return(terms, session_id, session)

    # -------------------------------------------------------------------------------------- what others use

    def session_id(self, terms: Terms) -> bytes:
        return self.over("Open", terms)

    def session(self, key: int, session_id: bytes) -> Session:
        return self.tables.sessions.get((key, short(session_id)), Session())

    def existing(self, terms: Terms) -> tuple[bytes, Session]:
        session_id = self.session_id(terms)
        session = self.session(terms.key, session_id)
        if not session.exists:
            raise Refused("Escrow_UnknownSession", session_id)
        return session_id, session

    def change_session(self, key: int, session_id: bytes, **changes: Any) -> None:
        place = (key, short(session_id))
        self.tables.sessions[place] = replace(self.tables.sessions[place], **changes)

    def claim_of(self, session_id: bytes) -> Claim:
        return self.tables.claims.get(short(session_id), Claim())

    def grace_end(self, session: Session) -> int:
        return session.expires_at + self.rules.grace_seconds

    def node_signer(self, session: Session) -> int:
        return self.tables.signers[session.node_id, session.epoch]

    # ---------------------------------------------------------------------------------------------- helpers

    def _return(self, terms: Terms, session_id: bytes, session: Session) -> None:
        claim = self.claim_of(session_id)
        rest = fits(session.deposited - session.paid - claim.pending - claim.held, U128)
        self.change_session(terms.key, session_id, closed=True)
        self.add_to_account(terms.buyer, rest)
        self.emit("escrow", "SessionClosed", session_id, session.paid, rest)

    def _require_openable(self, terms: Terms) -> None:
        latest = self.now + self.rules.max_session_seconds
        node = self.tables.nodes.get(terms.node_id)
        broken = [
            (terms.amount == 0, Refused("Escrow_ZeroAmount")),
            (terms.key == NOBODY, Refused("Escrow_ZeroKey")),
            (self.now >= terms.open_before, Refused("Escrow_OpenedTooLate", self.now, terms.open_before)),
            (self.now >= terms.expires_at, Refused("Escrow_SessionOver", self.now, terms.expires_at)),
            (terms.expires_at > latest, Refused("Escrow_SessionTooLong", terms.expires_at, latest)),
            (node is None or not node.serves, Refused("Escrow_NotServing", terms.node_id)),
        ]
        for is_broken, refusal in broken:
            if is_broken:
                raise refusal


def is_listed(root: bytes, node_id: int, proof: bytes) -> bool:
    """Whether whole words of a proof lead from a node to a list's root."""
    node = leaf(node_id)
    for at in range(0, len(proof) - 31, 32):
        node = pair(node, proof[at : at + 32])
    return node == root


def _fit_all(caps: Caps) -> None:
    if any(amount > U128 for amount in caps[:3]):
        raise Refused(DIRTY)
