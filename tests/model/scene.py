"""Who takes part, what they sign, and the market at the start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.model.bench import Bench, Tally
from tests.model.dice import Dice
from tests.model.messages import (
    ORDER,
    Actor,
    Caps,
    Item,
    Order,
    Receipt,
    SignedReceipt,
    Terms,
    leaf,
    pair,
    short,
    twisted,
)
from tests.model.records import INFINITE, U32, U64, U128, Session

START: Final = 1_800_000_000
DAY: Final = 86_400
WALLET: Final = 10**12
IN_ACCOUNT: Final = 10**11
MOST: Final = 2 * 10**9
STAKE: Final = 2 * 10**9
ROOT: Final = b"receipts".ljust(32, b"\0")
JUNK: Final = b"\x07" * 65

ALICE, BOB = Actor("alice"), Actor("bob")
KEY_ONE, KEY_TWO = Actor("first key"), Actor("second key")
PAULA, QUENTIN = Actor("paula"), Actor("quentin")
SETTLER = Actor("settler")
NODE_KEYS: Final = tuple(Actor(f"node key {n}") for n in range(3))
COURT, TREASURY, VAULT, STRANGER = (Actor(name) for name in ("court", "treasury", "vault", "stranger"))
ACTORS: Final = {
    actor.address: actor
    for actor in (ALICE, BOB, KEY_ONE, KEY_TWO, PAULA, QUENTIN, SETTLER, *NODE_KEYS, STRANGER)
}
BUYERS: Final = (ALICE.address, BOB.address, VAULT.address)
# A buyer may well be its own key, or another buyer's.
KEYS: Final = (KEY_ONE.address, KEY_TWO.address, BOB.address)
PAIRS: Final = ((BUYERS[0], KEYS[0]), (BUYERS[1], KEYS[1]), (BUYERS[0], KEYS[0]), (BUYERS[2], KEYS[2]))
OWNERS: Final = (PAULA.address, QUENTIN.address, STRANGER.address)
SETTLERS: Final = (SETTLER.address, QUENTIN.address, STRANGER.address)

# Roots that grants may name, with the proofs of the nodes they list.
NO_LIST: Final = bytes(32)
_PAIR_ROOT: Final = pair(leaf(1), leaf(2))
LISTS: Final[dict[bytes, dict[int, bytes]]] = {
    NO_LIST: {},
    leaf(1): {1: b""},
    _PAIR_ROOT: {1: leaf(2), 2: leaf(1)},
    pair(_PAIR_ROOT, leaf(3)): {1: leaf(2) + leaf(3), 2: leaf(1) + leaf(3), 3: _PAIR_ROOT},
}


class Scene:
    """A bench with parties, and ways to make calls that are right, nearly right or hostile."""

    def __init__(self, tally: Tally, **planted: Any) -> None:
        self.bench = Bench(tally, (COURT.address, TREASURY.address, VAULT.address), **planted)
        self.model = self.bench.model
        self.places = self.model.places
        self.opens: list[Terms] = []
        self.session_ids: dict[Terms, bytes] = {}
        # Digests and amounts of the newest claim of a session.
        self.claims: dict[bytes, list[tuple[bytes, int]]] = {}
        self._salts = 0
        self._set()

    @property
    def now(self) -> int:
        return self.model.now

    # ---------------------------------------------------------------------------------------------- sessions

    def some_terms(self, dice: Dice) -> Terms:
        """Mostly of one of the newest sessions that take orders; otherwise of any, or of none."""
        match dice.odd("unclosed", "any", "none"):
            case "unclosed":
                chosen = [terms for terms in self.opens if not self.session(terms)[1].closed]
            case "any":
                chosen = self.opens
            case "none":
                return self.new_terms(dice)
            case _:
                claimed = self.claimed_sessions() if dice.byte() % 4 == 3 else []
                chosen = claimed or self.live_sessions()[-8:]
        return dice.pick(chosen or self.opens[-8:])

    def claimed_sessions(self) -> list[Terms]:
        return [terms for terms in self.opens if self.session(terms)[1].claimed]

    def live_sessions(self) -> list[Terms]:
        sessions = ((terms, self.session(terms)[1]) for terms in self.opens if self.now < terms.expires_at)
        return [terms for terms, session in sessions if not session.closed]

    def new_terms(self, dice: Dice) -> Terms:
        self._salts += 1
        lasts = dice.pick((DAY, 3600, 72 * 3600, 600, 72 * 3600 - 1, 2 * DAY))
        buyer, key = self.some_pair(dice)
        terms = Terms(
            buyer=buyer,
            key=key,
            node_id=dice.byte() % min(len(self.model.tables.nodes), 5) + 1,
            amount=dice.amount(MOST),
            open_before=self.now + 60,
            expires_at=self.now + lasts,
            salt=self._salts.to_bytes(32, "big"),
        )
        faults: dict[str, dict[str, Any]] = {
            "node": {"node_id": dice.pick((0, 99, U32))},
            "key": {"key": 0},
            "late": {"open_before": self.now},
            "over": {"expires_at": self.now},
            "last second": {"open_before": self.now + 1, "expires_at": self.now + 1},
            "long": {"expires_at": self.now + 72 * 3600 + 1},
            "dirty node": {"node_id": terms.node_id + (1 << 32)},
            "dirty time": {"expires_at": terms.expires_at + (1 << 48)},
        }
        return terms._replace(**faults.get(dice.odd(*faults), {}))

    def some_pair(self, dice: Dice) -> tuple[int, int]:
        """Mostly one of a few buyers with its own key."""
        if dice.odd("any"):
            return dice.pick(BUYERS), dice.pick(KEYS)
        return dice.pick(PAIRS)

    def ordinary_terms(self) -> Terms:
        """What opens unless its node serves nobody or its buyer has nothing left."""
        number = self._salts
        lasts, part = number % 3, 40 + 50 * (number % 4)
        return self.new_terms(Dice(bytes([lasts, 0, number % 4, number % 3, 0, part])))

    def session(self, terms: Terms) -> tuple[bytes, Session]:
        session_id = self.session_ids.get(terms) or self.model.session_id(terms)
        return session_id, self.model.session(terms.key, session_id)

    def remember(self, terms: Terms) -> None:
        """The session can be chosen from now on."""
        if terms not in self.session_ids:
            self.session_ids[terms] = self.model.session_id(terms)
            self.opens.append(terms)

    def consent(self, dice: Dice, terms: Terms, over: bytes) -> tuple[int, bytes]:
        """Who sends an `Open` or `TopUp`, and the signature that goes with it."""
        stranger, kind = STRANGER.address, dice.byte() % 16
        if kind in (4, 5, 9):
            return (terms.key if kind == 9 else terms.buyer), b""
        if kind > 12:
            return stranger, self._hostile(dice, terms, over)
        is_short = kind > 9
        if kind < 4 or kind == 10:
            return stranger, self.sign(terms.buyer, over, short_form=is_short)
        return stranger, self.sign(terms.key, over, short_form=is_short) + self.proof(terms)

    def proof(self, terms: Terms) -> bytes:
        root = self.model.key(terms.buyer, terms.key).nodes_root
        return LISTS[root].get(terms.node_id, b"")

    def sign(self, address: int, over: bytes, *, short_form: bool = False) -> bytes:
        """Signature of a party; what has no secret puts something else in its place."""
        actor = ACTORS.get(address)
        if actor is None:
            return JUNK
        return actor.compact(over) if short_form else actor.sign(over)

    def mangled(self, dice: Dice, signature: bytes, over: bytes) -> bytes:
        """Mostly the signature as it is; otherwise not its signer's any more."""
        is_long = len(signature) == 65 and signature != JUNK
        faults: dict[str, Callable[[], bytes]] = {
            "stranger": lambda: STRANGER.sign(over),
            "high s": lambda: twisted(signature) if is_long else JUNK,
            "parity": lambda: signature[:64] + bytes([signature[64] - 27]) if is_long else JUNK,
            "cut": lambda: signature[:-1],
            "empty": lambda: b"",
            "junk": lambda: JUNK,
            "zeros": lambda: bytes(65),
        }
        fault = dice.odd(*faults)
        return faults[fault]() if fault else signature

    # ---------------------------------------------------------------------------------------------- vouchers

    def numbers(self, dice: Dice, terms: Terms) -> tuple[bytes, int, int]:
        """Session, throughSeq and amount of a voucher, near what would settle."""
        session_id, session = self.session(terms)
        claim = self.model.claim_of(session_id)
        free = session.deposited - session.paid
        seq = session.through_seq + dice.pick((1, 1, 2, 5, 0, -1))
        if claim.pending and dice.byte() < 140:
            seq = claim.through_seq + dice.pick((0, 1, -1))
        amount = session.paid + dice.amount(free)
        match dice.odd("replay", "lower", "all"):
            case "replay":
                return session_id, session.through_seq, session.paid
            case "lower":
                return session_id, max(seq, 0), max(session.paid - 1, 0)
            case "all":
                return session_id, max(seq, 0), session.deposited
        return session_id, max(seq, 0), amount

    def item(self, dice: Dice, terms: Terms) -> Item:
        session_id, seq, amount = self.numbers(dice, terms)
        fault = dice.odd("stranger", "high s", "tail", "dirty seq", "dirty amount", "nobody", "unknown")
        match fault:
            case "tail":
                session_id = session_id[:31] + bytes([session_id[31] ^ 1])
            case "dirty seq":
                seq += 1 << 32
            case "dirty amount":
                amount += 1 << 128
            case "unknown":
                session_id = bytes(32)
        over = self.model.over("Voucher", (session_id, seq, amount, ROOT))
        signer = STRANGER.address if fault == "stranger" else terms.key
        pair_of = self.sign(signer, over, short_form=True)
        if fault == "high s":
            pair_of = pair_of[:32] + (ORDER // 2 + 1).to_bytes(32, "big")
        if fault == "nobody":
            pair_of = bytes(64)
        return Item(session_id, seq, amount, ROOT, pair_of[:32], pair_of[32:64])

    def packed(self, dice: Dice, terms: Terms) -> bytes:
        session_id, seq, amount = self.numbers(dice, terms)
        return short(session_id) + (seq & U32).to_bytes(4, "big") + min(amount, U64).to_bytes(8, "big")

    def batch(self, dice: Dice) -> tuple[list[Terms], int, bytes]:
        """Sessions of one key, that key, and their vouchers."""
        first = self.some_terms(dice)
        same = [terms for terms in self.opens[-12:] if terms.key == first.key] or [first]
        chosen = [dice.pick(same) for _ in range(dice.pick((1, 2, 3, 3, 4)))]
        return chosen, first.key, b"".join(self.packed(dice, terms) for terms in chosen)

    def settler_of(self, dice: Dice, terms: Terms) -> int:
        """Mostly who may settle for the session's node."""
        node = self.model.tables.nodes.get(terms.node_id)
        if node is None or dice.odd("other"):
            return dice.pick((STRANGER.address, *SETTLERS, terms.buyer, terms.key))
        return node.settler

    # ------------------------------------------------------------------------------------------------ claims

    def receipts(self, dice: Dice, terms: Terms) -> list[SignedReceipt]:
        session_id, session = self.session(terms)
        claim = self.model.claim_of(session_id)
        left = max(session.deposited - session.paid - claim.held, 0)
        count = dice.pick((1, 2, 3, 2, 1, 2, 3, 0))
        jobs, seq = [], session.through_seq
        for number in range(count):
            seq += dice.pick((1, 1, 2, 9))
            is_last = number == count - 1
            amount = min(dice.amount(left) if is_last else left * dice.byte() // 1024, U128)
            left = max(left - amount, 0)
            jobs.append(self._job(dice, terms, session_id, session, seq, amount))
        return jobs

    def _job(
        self, dice: Dice, terms: Terms, session_id: bytes, session: Session, seq: int, amount: int
    ) -> SignedReceipt:
        fault = dice.odd(
            *("seq", "session", "order", "maximum", "failed", "late", "key", "node", "high s"), *[""] * 40
        )
        deadline_ms = self.now * 1000
        order = Order(
            session_id=bytes(32) if fault == "session" else session_id,
            seq=session.through_seq if fault == "seq" else min(seq, U32),
            offer_hash=ROOT,
            request_hash=ROOT,
            max_amount=max(amount - 1, 0) if fault == "maximum" else amount,
            issued_at_ms=deadline_ms - 1000,
            deadline_ms=deadline_ms,
            reply_key=ROOT,
        )
        over_order = self.model.over("Order", order)
        receipt = Receipt(
            order_hash=ROOT if fault == "order" else over_order,
            response_hash=ROOT,
            exec_hash=ROOT,
            units_in=dice.byte(),
            units_out=dice.byte(),
            amount=amount,
            started_at_ms=deadline_ms - 900,
            finished_at_ms=deadline_ms + (1 if fault == "late" else 0),
            energy_millijoules=0,
            status=0 if fault == "failed" else 1,
        )
        over = self.model.over("Receipt", receipt)
        signer = self.model.tables.signers.get((session.node_id, session.epoch), STRANGER.address)
        order_signature = self.sign(STRANGER.address if fault == "key" else terms.key, over_order)
        signature = self.sign(STRANGER.address if fault == "node" else signer, over)
        return SignedReceipt(
            order, order_signature, receipt, twisted(signature) if fault == "high s" else signature
        )

    # ------------------------------------------------------------------------------------------------- start

    def _set(self) -> None:
        self.bench.set_time(START - 8 * DAY)
        self.bench.prepare("escrow.announceFee", TREASURY.address, 123)
        self.bench.set_time(START)
        everyone = (*BUYERS, *OWNERS)
        for holder in everyone:
            self.bench.prepare("token.faucet", STRANGER.address, holder, WALLET)
        for buyer in BUYERS:
            self.bench.prepare("token.approve", buyer, self.places.escrow, INFINITE)
            self.bench.prepare("escrow.deposit", buyer, IN_ACCOUNT)
        for owner in OWNERS[:2]:
            self.bench.prepare("token.approve", owner, self.places.registry, INFINITE)
            self.bench.prepare("registry.register", owner, "ipfs://provider")
            self.bench.prepare("registry.stake", owner, STAKE)
        for provider, signer, settler in (
            (PAULA, NODE_KEYS[0], SETTLER),
            (PAULA, NODE_KEYS[1], SETTLER),
            (QUENTIN, NODE_KEYS[2], QUENTIN),
        ):
            values = (signer.address, ROOT, settler.address, "")
            self.bench.prepare("registry.addNode", provider.address, *values)
        caps = Caps(MOST, 2 * MOST, 9 * MOST, START + 5 * DAY, NO_LIST)
        for buyer in BUYERS:
            for key in KEYS:
                listed = caps._replace(nodes_root=_PAIR_ROOT) if key == KEY_TWO.address else caps
                self.bench.prepare("escrow.setKey", buyer, key, listed)
        for _ in range(4):
            terms = self.ordinary_terms()
            self.bench.prepare("escrow.openOneSession", terms.buyer, terms, b"")
            self.remember(terms)
        # From here on sessions with the first node are under its second key.
        self.bench.prepare("registry.rotateNodeKey", PAULA.address, 1, NODE_KEYS[1].address, ROOT)

    def _hostile(self, dice: Dice, terms: Terms, over: bytes) -> bytes:
        by_buyer, by_key = self.sign(terms.buyer, over), self.sign(terms.key, over)
        wrong_proofs: Sequence[bytes] = (leaf(1), leaf(3), leaf(1) + leaf(2), b"\0" * 31, b"")
        choices = (
            STRANGER.sign(over),
            twisted(by_buyer) if by_buyer != JUNK else JUNK,
            twisted(by_key),
            b"",
            by_buyer[:64],
            by_buyer + bytes(32),
            by_key + dice.pick(wrong_proofs),
            self.sign(terms.key, over[::-1]),
            by_key[:64] + b"\x01",
        )
        return dice.pick(choices)
