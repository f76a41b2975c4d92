"""Accounts, keys, sessions, settlement and time: calls that are lawful, nearly lawful or hostile."""

from __future__ import annotations

from tests.model.abi import keccak
from tests.model.dice import Dice
from tests.model.messages import Caps, Grant, digest
from tests.model.records import INFINITE, U32
from tests.model.scene import (
    BUYERS,
    DAY,
    IN_ACCOUNT,
    LISTS,
    MOST,
    NO_LIST,
    OWNERS,
    ROOT,
    STRANGER,
    TREASURY,
    Scene,
)


class MoneyVerbs:
    """Each makes a call on both sides, out of a throw of the dice."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.bench, self.model, self.check = scene.bench, scene.model, scene.bench.check

    # ----------------------------------------------------------------------------------------------- accounts

    def deposit(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        buyer = dice.pick((*BUYERS, STRANGER.address))
        amount = dice.amount(IN_ACCOUNT)
        allowed = self.model.tables.allowances.get((buyer, self.scene.places.escrow), 0)
        if buyer in BUYERS and allowed != INFINITE and dice.byte() < 128:  # a permit left less than there was
            self.check("token.approve", buyer, self.scene.places.escrow, INFINITE)
        match dice.byte() % 4:
            case 0 | 1:
                self.check("escrow.deposit", buyer, amount)
            case 2:
                self._with_permit(dice, buyer, amount)
            case _:
                self._with_authorization(dice, buyer, amount)

    def withdraw(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        buyer = dice.pick(BUYERS)
        limit = self.model.account(buyer)
        to = STRANGER.address
        match dice.odd("escrow", "nobody", "self"):
            case "escrow":
                to = self.scene.places.escrow
            case "nobody":
                to = 0
            case "self":
                to = buyer
        # Mostly little, so that there is something left to open sessions with.
        self.check("escrow.withdraw", buyer, dice.amount(limit if dice.byte() > 200 else limit // 50), to)

    # --------------------------------------------------------------------------------------------------- keys

    def set_key(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        (buyer, key), caps = self.scene.some_pair(dice), self._caps(dice)
        key = 0 if dice.odd("no key", *[""] * 5) else key
        if dice.byte() % 2:
            self.check("escrow.setKey", buyer, key, caps)
            return
        nonce = self.model.key(buyer, key).nonce + dice.pick((1, 1, 1, 2, 0, -1, 70_000))
        if dice.odd("last", *[""] * 4) == "last":
            nonce = U32
        valid_until = self.scene.now + dice.pick((60, 1, 0, DAY))
        grant = Grant(buyer, key, *caps, min(max(nonce, 0), U32), valid_until)
        over = self.model.over("KeyGrant", grant)
        signature = self.scene.mangled(dice, self.scene.sign(buyer, over), over)
        self.check("escrow.setKeyBySig", STRANGER.address, grant, signature)

    def revoke_key(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        if dice.byte() < 100:
            self.check("escrow.revokeKey", *self.scene.some_pair(dice))
        else:
            self.set_key(thrown[1:])

    # ----------------------------------------------------------------------------------------------- sessions

    def open_one(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        terms = self.scene.new_terms(dice) if dice.byte() < 230 else self.scene.some_terms(dice)
        ends = self.model.key(terms.buyer, terms.key).expires_at
        if dice.byte() < 8 or (0 < ends - self.scene.now < DAY and dice.byte() < 80):
            self._move_to(dice, ends)
            terms = terms._replace(open_before=self.scene.now + 60, expires_at=self.scene.now + DAY)
        caller, signature = self.scene.consent(dice, terms, self.model.session_id(terms))
        if self.check("escrow.openOneSession", caller, terms, signature):
            self.scene.remember(terms)

    def open_some(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        opens = [self.scene.new_terms(Dice(thrown[n : n + 6])) for n in range(dice.pick((2, 1, 3, 0)))]
        by_buyer = [self.scene.sign(terms.buyer, self.model.session_id(terms)) for terms in opens]
        signatures = by_buyer[:-1] if dice.odd("one short") else by_buyer
        if self.check("escrow.open", STRANGER.address, opens, signatures):
            for terms in opens:
                self.scene.remember(terms)

    def top_up(self, thrown: bytes) -> None:
        self._keep_open()
        dice = Dice(thrown)
        terms = self.scene.some_terms(dice)
        session_id, session = self.scene.session(terms)
        deposited = dice.amount(MOST) + (0 if dice.odd("lower") else session.deposited)
        over = self.model.over("TopUp", (session_id, deposited))
        caller, signature = self.scene.consent(dice, terms, over)
        self.check("escrow.topUp", caller, terms, deposited, signature)

    def close(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        terms = self.scene.some_terms(dice)
        session_id, session = self.scene.session(terms)
        if dice.byte() < 128:  # closing is for the end of a session; meanwhile it grows
            self.top_up(thrown[1:])
            return
        min_paid = dice.pick((session.paid, 0, session.paid + 1, session.paid, 1 << 128))
        over = self.model.over("Close", (session_id, min_paid))
        signer = self.model.tables.signers.get((session.node_id, session.epoch), STRANGER.address)
        signature = self.scene.mangled(dice, self.scene.sign(signer, over), over)
        self.check("escrow.close", STRANGER.address, terms, min_paid, signature)

    def expire(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        opens = [self.scene.some_terms(dice) for _ in range(dice.pick((1, 1, 2, 3)))]
        over = [
            t for t in self.scene.opens if self.scene.now >= t.expires_at + self.model.rules.grace_seconds
        ]
        if dice.byte() < 200 and over:
            opens = [dice.pick(over[-8:]) for _ in opens]
        elif dice.byte() < 100:
            session = self.scene.session(opens[0])[1]
            self._move_to(dice, session.expires_at + self.model.rules.grace_seconds)
        self.check("escrow.expire", STRANGER.address, opens)

    # --------------------------------------------------------------------------------------------- settlement

    def settle(self, thrown: bytes) -> None:
        self._keep_open()
        dice = Dice(thrown)
        chosen = [self.scene.some_terms(dice) for _ in range(dice.pick((1, 2, 2, 4)))]
        if dice.byte() < 128:
            chosen = [terms for terms in chosen if terms.node_id == chosen[0].node_id]
        items = [self.scene.item(Dice(thrown[3 + n :]), terms) for n, terms in enumerate(chosen)]
        caller = self.scene.settler_of(dice, chosen[0])
        if dice.byte() % 3:
            self.check("escrow.settle", caller, items)
            return
        words = b"".join(n.to_bytes(32, "big") for n in (32, len(items)))
        body = b"".join(v if isinstance(v, bytes) else v.to_bytes(32, "big") for item in items for v in item)
        over = self.model.over("Settlement", (keccak(words + body),))
        signature = self.scene.mangled(dice, self.scene.sign(caller, over), over)
        self.check("escrow.settleFor", STRANGER.address, items, signature)

    def settle_batch(self, thrown: bytes) -> None:
        self._keep_open()
        dice = Dice(thrown)
        chosen, key, vouchers = self.scene.batch(dice)
        if dice.odd("cut", *[""] * 3) == "cut":
            vouchers = vouchers[:-1]
        over = self.model.over("VoucherBatch", (keccak(vouchers), ROOT))
        signature = self.scene.sign(key, over, short_form=True)[:64]
        if dice.odd("stranger", *[""] * 3):
            signature = STRANGER.compact(over)
        caller = self.scene.settler_of(dice, chosen[0])
        self.check("escrow.settleBatch", caller, vouchers, ROOT, signature[:32], signature[32:])

    def collect(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        match dice.byte() % 4:
            case 0:
                self.check("escrow.withdrawFees", STRANGER.address)
            case 1:
                bps = dice.pick((100, 0, 500, 501, dice.byte()))
                self.check(
                    "escrow.announceFee", dice.pick((TREASURY.address,) * 3 + (STRANGER.address,)), bps
                )
            case _:
                ids = [
                    dice.byte() % (len(self.model.tables.nodes) + 2) for _ in range(dice.pick((1, 3, 2, 0)))
                ]
                effective_at = self.model.tables.fee["fee"].effective_at
                if effective_at - self.scene.now < DAY or dice.byte() < 8:
                    self._move_to(dice, effective_at)
                self.check("escrow.collect", STRANGER.address, ids)

    # --------------------------------------------------------------------------------------------------- time

    def wait(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        self.bench.set_time(self.scene.now + dice.byte() * dice.pick((1, 10, 60, 300)))

    def reach(self, thrown: bytes) -> None:
        """To the second before, at or after which something changes."""
        dice = Dice(thrown)
        edges = [edge for edge in self._edges() if edge >= self.scene.now]
        self._move_to(dice, edges[min(dice.byte() % 6, len(edges) - 1)])

    def replay(self, thrown: bytes) -> None:
        """A call made before, by the same caller or another."""
        dice = Dice(thrown)
        if not self.bench.sent:
            return
        sent = dice.pick(self.bench.sent[-40:])
        # The court decides about held money once, and not about what a voucher replaced since.
        by = STRANGER.address if sent.verb == "escrow.resolve" else sent.caller
        caller = dice.pick((by, by, by, *OWNERS, *BUYERS))
        self.check(sent.verb, caller, *sent.values)

    # ------------------------------------------------------------------------------------------------ helpers

    def _move_to(self, dice: Dice, edge: int) -> None:
        self.bench.set_time(max(edge + dice.pick((0, -1, 1)), self.scene.now))

    def _keep_open(self) -> None:
        """Time ends sessions faster than steps open them; three are always there to work with."""
        while len(self.scene.live_sessions()) < 3:
            terms = self.scene.ordinary_terms()
            if not self.check("escrow.openOneSession", terms.buyer, terms, b""):
                return
            self.scene.remember(terms)

    def _caps(self, dice: Dice) -> Caps:
        expires_at = self.scene.now + dice.pick((DAY, 3 * DAY, 5 * DAY, 600, 3 * DAY, 5 * DAY, 1, 0))
        most = (MOST, 2 * MOST, dice.pick((6 * MOST, MOST, 2 * MOST)))
        per_session, per_day, total = (dice.amount(cap) if dice.odd("less") else cap for cap in most)
        return Caps(per_session, per_day, total, expires_at, dice.pick((NO_LIST, *LISTS)))

    def _with_permit(self, dice: Dice, buyer: int, amount: int) -> None:
        deadline = self.scene.now + dice.pick((0, 60, -1))
        nonce = self.model.tables.permits.get(buyer, 0)
        fields = (buyer, self.scene.places.escrow, amount, nonce, deadline)
        over = digest(self.scene.places.token_domain, "Permit", fields)
        signature = self.scene.sign(STRANGER.address if dice.odd("stranger") else buyer, over)
        v, r, s = signature[64], signature[:32], signature[32:64]
        self.check("escrow.depositWithPermit", buyer, amount, deadline, v, r, s)

    def _with_authorization(self, dice: Dice, buyer: int, amount: int) -> None:
        after, before = self.scene.now + dice.pick((-1, -60, 0)), self.scene.now + dice.pick((60, 1, 0))
        fields = (buyer, self.scene.places.escrow, amount, after, before, bytes([dice.byte() % 64]).ljust(32))
        over = digest(self.scene.places.token_domain, "ReceiveWithAuthorization", fields)
        signature = self.scene.mangled(dice, self.scene.sign(buyer, over), over)
        values = (buyer, amount, after, before, fields[-1], signature)
        self.check("escrow.depositWithAuthorization", STRANGER.address, *values)

    def _edges(self) -> list[int]:
        """Seconds at which something changes, soonest first; the end of the day comes always."""
        tables, grace = self.model.tables, self.model.rules.grace_seconds
        edges = {(self.scene.now // DAY + 1) * DAY, tables.fee["fee"].effective_at}
        for session in tables.sessions.values():
            if not session.closed:
                edges |= {session.expires_at, session.expires_at + grace}
        edges |= {claim.final_at for claim in tables.claims.values() if claim.pending}
        edges |= {key.expires_at for key in tables.keys.values()}
        edges |= {provider.unstake_at for provider in tables.providers.values() if provider.unstaking}
        return sorted(edges)
