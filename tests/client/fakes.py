"""A clock, a chain to read, and nodes that sign with the protocol's own code."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from marketplace.chain.client import ChainEvent, KeyState, NodeState, SessionState, TxSeen
from marketplace.chain.deployment import Deployment
from marketplace.client.bundle import Bundle, Settlement
from marketplace.protocol.annex import NO_TRACE, Annex, Profile, exec_hash
from marketplace.protocol.hexes import ZERO_ADDRESS, keccak, to_hex
from marketplace.protocol.merkle import response_hash
from marketplace.protocol.messages import Offer, Open, Order, Receipt
from marketplace.protocol.payloads import ChatPayload, parse_payload, seed_of
from marketplace.protocol.pricing import amount_due
from marketplace.protocol.signing import Signer
from tests.answers import chunks_for

MODEL_ID = keccak(b"tiny-chat")
START_MS = 1_795_000_000_000
DEPLOYMENT = Deployment(
    chain_id=31337,
    genesis_hash=b"\x07" * 32,
    deployed_block=1,
    token="0x0165878A594ca255338adfa4d48449f69242Eb8F",
    registry="0xCf7Ed3AccA5a467e9e704C703E8D87F634fB0Fc9",
    escrow="0x5FbDB2315678afecb367f032d93F642f64180aa3",
    court="0x" + "44" * 20,
    treasury="0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    token_symbol="TUSD",
    token_decimals=6,
    min_stake_atoms=5_000_000,
    max_session_seconds=72 * 3600,
    grace_seconds=900,
    challenge_seconds=21_600,
)
DOMAIN = DEPLOYMENT.domain
NO_KEY = KeyState(
    per_session_atoms=0,
    per_day_atoms=0,
    total_atoms=0,
    expires_at=0,
    is_listed=False,
    spent_today_atoms=0,
    spent_atoms=0,
    day=0,
    nonce=0,
    nodes_root=bytes(32),
)


_FINISHES = {"fail, cancelled": "cancelled", "fail, input_too_long": "input_too_long"}


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.ms = START_MS
        self._drawn = 0

    def now_ms(self) -> int:
        return self.ms

    async def sleep(self, seconds: float) -> None:
        self.ms += max(1, int(seconds * 1000))

    def random_bytes(self, count: int) -> bytes:
        self._drawn += 1
        return keccak(b"seed %d" % self._drawn)[:count]


class FakeChain:
    """Answers as `ChainClient` does, from dictionaries."""

    def __init__(self) -> None:
        self.deployment = DEPLOYMENT
        self.nodes: dict[int, NodeState] = {}
        self.epochs: dict[tuple[int, int], str] = {}
        self.held: dict[tuple[bytes, str], SessionState] = {}
        self.accounts: dict[str, int] = {}
        self.keys: dict[tuple[str, str], KeyState] = {}
        self.transactions: dict[bytes, TxSeen] = {}
        self.logs: list[ChainEvent] = []

    def session(self, session_id: bytes, key: str) -> SessionState | None:
        short = session_id[:24]
        return next(
            (held for (known, by), held in self.held.items() if known[:24] == short and by == key), None
        )

    def claimed_receipts(self, session_id: bytes) -> frozenset[str]:
        claims = [event.args for event in self.logs if event.name == "Claimed"]
        return frozenset(
            d for args in claims if args["sessionId"] == to_hex(session_id) for d in args["receiptHashes"]
        )

    def opened(self, session_id: bytes) -> bool:
        return any(known == session_id for known, _ in self.held)

    def key(self, buyer: str, key: str) -> KeyState:
        return self.keys.get((buyer, key), NO_KEY)

    def account_atoms(self, buyer: str) -> int:
        return self.accounts.get(buyer, 0)

    def node(self, node_id: int) -> NodeState | None:
        return self.nodes.get(node_id)

    def signer_at(self, node_id: int, epoch: int) -> str:
        return self.epochs.get((node_id, epoch), ZERO_ADDRESS)

    def tx_receipt(self, tx_hash: bytes) -> TxSeen | None:
        return self.transactions.get(tx_hash)

    def events(self, first: int, last: int) -> list[ChainEvent]:
        return [event for event in self.logs if first <= event.block_number <= last]

    def add_node(self, node_id: int, signer: str) -> None:
        self.epochs[node_id, 1] = signer
        self.nodes[node_id] = NodeState(
            owner=ZERO_ADDRESS,
            epoch=1,
            signer=signer,
            encryption_key=bytes(32),
            uri="",
            settler=ZERO_ADDRESS,
            earnings_atoms=0,
            serving=True,
        )

    def open(self, terms: Open) -> bytes:
        session_id = terms.digest(DOMAIN)
        self.accounts[terms.buyer] -= terms.amount_atoms
        self.held[session_id, terms.key] = SessionState(
            deposited_atoms=terms.amount_atoms,
            paid_atoms=0,
            through_seq=0,
            node_id=terms.node_id,
            expires_at=terms.expires_at,
            key_epoch=self.nodes[terms.node_id].epoch,
            closed=False,
        )
        return session_id

    def settle(self, bundle: Bundle, tx_hash: bytes = b"\x21" * 32, block: int = 41) -> Bundle:
        """The same bundle after its voucher was settled in `block`."""
        block_hash = b"\x03" * 32
        self.transactions[tx_hash] = TxSeen(block_number=block, block_hash=block_hash, ok=True, gas_used=1)
        arguments = {"sessionId": to_hex(bundle.order.session_id), "throughSeq": bundle.order.seq}
        self.logs.append(
            ChainEvent(
                name="VoucherSettled",
                args=arguments,
                contract="Escrow",
                block_number=block,
                block_hash=block_hash,
                tx_hash=tx_hash,
                log_index=3,
            )
        )
        return dataclasses.replace(bundle, settlement=Settlement(tx_hash=tx_hash, block_number=block))


@dataclass
class FakeNode:
    """One node. `behaviour` says how it treats the next orders."""

    node_id: int
    price_per_job: int = 10
    behaviour: str = "ok"
    signer: Signer = field(init=False)

    def __post_init__(self) -> None:
        self.signer = Signer(keccak(b"node %d" % self.node_id))

    def offer(self) -> Offer:
        return Offer(
            node_id=self.node_id,
            model_id=MODEL_ID,
            price_per_job_atoms=self.price_per_job,
            price_in_per_million_atoms=200_000,
            price_out_per_million_atoms=600_000,
            max_latency_ms=0,
            late_discount_bps=0,
            max_millijoules_per_million_out=0,
            valid_until=START_MS // 1000 + 600,
            salt=b"\x05" * 32,
        )

    def answer(self, order: Order, body: bytes, salt: bytes, now_ms: int, trace_id: str) -> dict[str, Any]:
        """Chunks, signed receipt and annex for an order."""
        payload = parse_payload(body)
        failed = self.behaviour.startswith("fail")
        words = ("In", " other words") if self.behaviour == "own words" else ("Hello", ", world")
        chunks = [] if failed else chunks_for(payload, text=words)
        status, units_out = (0, 0) if failed else (1, 2 if isinstance(payload, ChatPayload) else 0)
        profile = Profile(engine="fake/1", torch="2.13", dtype="float32")
        annex = Annex(
            trace_id=trace_id,
            model=to_hex(MODEL_ID),
            profile=profile,
            profile_hash=to_hex(profile.digest()),
            sampling=None,
            token_ids="",
            trace_root=NO_TRACE,
            seed=str(seed_of(payload, order.digest(DOMAIN))),
            units_in=5,
            units_out=units_out,
            finish=_FINISHES.get(self.behaviour, "error" if failed else "stop"),
            device_microseconds=900,
            energy_method="none",
        ).encode()
        amount = amount_due(
            self.offer(), order, units_in=5, units_out=units_out, finished_at_ms=now_ms, status=status
        )
        receipt = Receipt(
            order_hash=order.digest(DOMAIN),
            response_hash=response_hash(salt, chunks),
            exec_hash=exec_hash(annex),
            units_in=5,
            units_out=units_out,
            amount_atoms=amount + 1 if self.behaviour == "overcharge" else amount,
            started_at_ms=now_ms,
            finished_at_ms=now_ms,
            energy_millijoules=12,
            status=status,
        )
        signer = Signer(b"\x99" * 32) if self.behaviour == "wrong key" else self.signer
        return {
            "chunks": chunks,
            "receipt": receipt,
            "signature": signer.sign(receipt, DOMAIN),
            "annex": annex,
        }
