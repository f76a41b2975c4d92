"""Claims, the court's word, stake and nodes."""

from __future__ import annotations

from typing import Final

from tests.model.dice import Dice
from tests.model.messages import Terms, short
from tests.model.records import U64
from tests.model.registry import MOST_NODES
from tests.model.scene import BUYERS, COURT, NODE_KEYS, OWNERS, ROOT, SETTLERS, STAKE, STRANGER, TREASURY
from tests.model.verbs import MoneyVerbs

# Dice of a claim in good order: two receipts, of an eighth and of half of what is left.
_TWO_RECEIPTS: Final = bytes([1, 0, 120, 0, 0, 0, 0, 0, 128])


class Verbs(MoneyVerbs):
    """All of them."""

    def claim(self, thrown: bytes) -> None:
        self._keep_open()
        dice = Dice(thrown)
        self._claim(dice, self.scene.some_terms(dice))

    def finalise(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        terms = self._pending_terms(dice)
        if dice.byte() < 160:
            self._move_to(dice, self.model.claim_of(self.model.session_id(terms)).final_at)
        self.check("escrow.finalise", STRANGER.address, terms)

    def hold(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        terms = self._pending_terms(dice, disputable=dice.byte() < 200)
        if dice.byte() < 50:
            self._move_to(dice, self.model.claim_of(self.model.session_id(terms)).final_at)
        self._hold(dice, terms)

    def resolve(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        waiting = [t for t in self.scene.claimed_sessions() if self._held(t)]
        terms = dice.pick(waiting) if waiting else self._pending_terms(dice)
        if not waiting:
            self._hold(Dice(b""), terms)
        session_id, held = self.model.session_id(terms), self._held(terms)
        # The court decides about something or does not call; at most about what is held, or it is refused.
        amount = max(dice.pick((held, held, held // 2, held + 1)), 1)
        caller = dice.pick((COURT.address,) * 6 + (STRANGER.address, self.scene.settler_of(dice, terms)))
        is_paid = bool(dice.byte() % 2)
        self.check("escrow.resolve", caller, session_id, terms.key, terms.buyer, amount, is_paid)

    def stake(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        owner = dice.pick((*OWNERS, *OWNERS[:2]))
        provider = self.model.provider(owner)
        match dice.byte() % 6:
            case 0 | 1:
                self.check("registry.stake", owner, dice.amount(STAKE))
            case 2 | 3:
                self.check("registry.requestUnstake", owner, self._stake_amount(dice, owner, provider.free))
            case 4:
                if dice.byte() < 60:
                    self._move_to(dice, provider.unstake_at)
                self.check("registry.withdrawStake", owner)
            case _:
                self.check("registry.register", owner, dice.pick(("", "ipfs://somewhere else")))

    def penalise(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        owner = dice.pick((*OWNERS, *OWNERS[:2]))
        caller = dice.pick((COURT.address,) * 5 + (STRANGER.address,))
        match dice.byte() % 6:
            case 0:
                provider = self.model.provider(owner)
                whole = provider.staked + provider.unstaking
                most = whole if dice.byte() > 100 else whole // 4
                self.check("registry.slash", caller, owner, self._stake_amount(dice, owner, most))
            case 1 | 2:
                amount = dice.amount(self.model.tables.totals["slashed"])
                self.check("registry.release", caller, dice.pick((*BUYERS, STRANGER.address)), amount)
            case _:
                self._prop_up(dice, owner)

    def change_node(self, thrown: bytes) -> None:
        dice = Dice(thrown)
        node_id = dice.byte() % (len(self.model.tables.nodes) + 2)
        node = self.model.tables.nodes.get(node_id)
        owner = dice.pick(OWNERS) if node is None or dice.odd("other") else node.owner
        signer = dice.pick((*(actor.address for actor in NODE_KEYS), 0))
        settler = dice.pick((*SETTLERS, SETTLERS[0], 0))
        match dice.byte() % 4:
            case 0:
                # Once in a while as many as an owner can have, and one more.
                times = MOST_NODES + 1 if dice.byte() > 253 else 1
                for _ in range(times):
                    self.check("registry.addNode", owner, signer, ROOT, settler, "ipfs://node")
            case 1:
                self.check("registry.rotateNodeKey", owner, node_id, signer, ROOT)
            case 2:
                self.check("registry.setSettler", owner, node_id, settler)
            case _:
                self.check("registry.setMetadata", owner, node_id, "ipfs://new")

    def trespass(self, thrown: bytes) -> None:
        """What only one contract may tell another, told by somebody else."""
        dice = Dice(thrown)
        caller = dice.pick((*OWNERS, *BUYERS, COURT.address, TREASURY.address))
        match dice.byte() % 8:
            case 0:
                self.check("registry.lock", caller, dice.pick(OWNERS), dice.byte())
            case 1:
                self.check("registry.unlock", caller, dice.pick(OWNERS), dice.byte())
            case 2:
                self.check("escrow.setSettler", caller, 1, caller)
            case 3:
                self.check("escrow.setNode", caller, 1, caller, 1, True)
            case 4:
                self.check("escrow.setServing", caller, [1, 2], True)
            case _:
                self.settle(thrown[2:])

    def _claim(self, dice: Dice, terms: Terms) -> None:
        receipts = self.scene.receipts(dice, terms)
        if self.check("escrow.claim", self.scene.settler_of(dice, terms), terms, receipts):
            hashes = [self.model.over("Receipt", job.receipt) for job in receipts]
            amounts = [job.receipt.amount for job in receipts]
            self.scene.claims[short(self.model.session_id(terms))] = list(zip(hashes, amounts, strict=True))

    def _hold(self, dice: Dice, terms: Terms) -> None:
        session_id = self.model.session_id(terms)
        listed = self.scene.claims.get(short(session_id), [(ROOT, 1)])
        receipt, amount = dice.pick(listed)
        hashes = [known for known, _ in listed]
        caller = COURT.address
        match dice.odd("stranger", "other", "fewer", "turned", "more"):
            case "stranger":
                caller = STRANGER.address
            case "other":
                receipt = ROOT
            case "fewer":
                hashes = hashes[1:]
            case "turned":
                hashes = hashes[::-1]
            case "more":
                amount = min(self.model.claim_of(session_id).pending + 1, U64)
        self.check("escrow.hold", caller, session_id, terms.key, receipt, amount, hashes)

    def _pending_terms(self, dice: Dice, *, disputable: bool = False) -> Terms:
        """Mostly of a session with a pending claim, which is made when there is none to dispute."""
        if dice.odd("any"):
            return self.scene.some_terms(dice)
        claimed = self.scene.claimed_sessions()
        since = self.scene.now if disputable else 0
        claims = ((terms, self.model.claim_of(self.scene.session(terms)[0])) for terms in claimed)
        pending = [terms for terms, claim in claims if claim.pending and claim.final_at >= since]
        if pending:
            return dice.pick(pending)
        self._keep_open()
        terms = self.scene.some_terms(dice)
        self._claim(Dice(_TWO_RECEIPTS), terms)
        return terms

    def _held(self, terms: Terms) -> int:
        return self.model.claim_of(self.scene.session(terms)[0]).held

    def _stake_amount(self, dice: Dice, owner: int, most: int) -> int:
        """Often what leaves just the minimum stake or what is locked, or an atom more or less."""
        provider = self.model.provider(owner)
        edge = dice.pick((self.model.rules.min_stake, provider.locked))
        if 0 < edge < provider.staked and dice.byte() < 80:
            return provider.staked - edge + dice.pick((0, 1, -1))
        return dice.amount(most)

    def _prop_up(self, dice: Dice, owner: int) -> None:
        """A penalised provider stakes again, or no session could open any more."""
        if owner == STRANGER.address:
            owner = OWNERS[0]
        missing = max(STAKE - self.model.provider(owner).staked, 1)
        self.check(
            "registry.stake", owner, min(missing, STAKE) if dice.byte() < 240 else dice.amount(missing)
        )
