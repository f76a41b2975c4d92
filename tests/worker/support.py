"""A node's surroundings in tests: a clock, a chain that only knows sessions, orders, and a tiny engine."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from marketplace.protocol import sealing
from marketplace.protocol.annex import Profile
from marketplace.protocol.batches import SHORT_ID_BYTES
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import ChainTrouble, ErrorCode
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.merkle import request_hash, root
from marketplace.protocol.messages import Offer, Open, Order, Voucher
from marketplace.protocol.payloads import (
    ChatMessage,
    ChatPayload,
    Payload,
    encode_payload,
    finish_chunk,
    text_chunk,
)
from marketplace.protocol.sealed import BuyerSeal
from marketplace.protocol.signing import Signer
from marketplace.protocol.wire import OrderFrame, Signed
from worker.inference.engine import Chunk, Emit, EngineJob, Outcome, Sink
from worker.ledger import HeldOffer, HeldReceipt, Ledger
from worker.metering import Reading
from worker.node.intake import Intake
from worker.node.rules import Terms
from worker.receipts import ReceiptDesk, Work
from worker.settle.sessions import SessionBook
from worker.settle.vouchers import VoucherDesk

DOMAIN = Domain(31_337, "0x5FbDB2315678afecb367f032d93F642f64180aa3")
NODE = Signer(b"\x01" * 32)
ENCRYPTION, REPLY = b"\x04" * 32, b"\x0e" * 32
KEY = Signer(b"\x02" * 32)
STRANGER = Signer(b"\x03" * 32)
NODE_ID = 7
MODEL_ID = b"\x11" * 32
START_MS = 1_800_000_000_000
GATEWAY = "ws://gateway/v1/link"
_numbers = itertools.count(1)


class Clock:
    """Unix milliseconds that move only when told."""

    def __init__(self, ms: int = START_MS) -> None:
        self.ms = ms

    def __call__(self) -> int:
        return self.ms


@dataclass(frozen=True, kw_only=True)
class State:
    """What the chain answers for a session."""

    deposited_atoms: int = 1_000_000
    paid_atoms: int = 0
    through_seq: int = 0
    node_id: int = NODE_ID
    expires_at: int = START_MS // 1000 + 3600
    key_epoch: int = 1
    closed: bool = False


@dataclass
class FakeChain:
    """Sessions by key and the first 24 bytes of their id, as the escrow keeps them; openings by whole id.

    A session without terms was opened by a contract that shows them to nobody.
    """

    sessions: dict[tuple[bytes, str], State] = field(default_factory=dict)
    openings: dict[bytes, Open | None] = field(default_factory=dict)
    down: bool = False
    reads: int = 0
    searches: int = 0

    def put(self, session_id: bytes, state: State, terms: Open | None = None) -> None:
        """Opens a session of the usual key, or changes it."""
        self.openings[session_id] = terms or self.openings.get(session_id) or terms_for(session_id)
        self.sessions[place(session_id)] = state

    def session(self, session_id: bytes, key: str) -> Any:
        self.reads += 1
        self._answer()
        return self.sessions.get((session_id[:SHORT_ID_BYTES], key))

    def terms_of(self, session_id: bytes) -> Open | None:
        self.searches += 1
        self._answer()
        return self.openings.get(session_id)

    def opened(self, session_id: bytes) -> bool:
        self.searches += 1
        self._answer()
        return session_id in self.openings

    def _answer(self) -> None:
        if self.down:
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE)


def place(session_id: bytes) -> tuple[bytes, str]:
    """Where the escrow keeps a session of the usual key."""
    return session_id[:SHORT_ID_BYTES], KEY.address


def alias(session_id: bytes, number: int = 0) -> bytes:
    """Another id that begins as this one; the escrow takes it for the same."""
    return session_id[:SHORT_ID_BYTES] + number.to_bytes(8, "big")


def terms_for(session_id: bytes) -> Open:
    """Terms whose salt is the session's id, so that fakes know it by them."""
    ends_at = START_MS // 1000 + 3600
    return Open(
        buyer=KEY.address, key=KEY.address, node_id=NODE_ID, amount_atoms=1_000_000,
        open_before=ends_at, expires_at=ends_at, salt=session_id,
    )  # fmt: skip


def chat_payload(**changes: Any) -> ChatPayload:
    values: dict[str, Any] = {
        "model": to_hex(MODEL_ID),
        "messages": (ChatMessage(role="user", content="Say hello."),),
        "max_tokens": 8,
    }
    return ChatPayload(**values | changes)


class Bench:
    """A node's intake, receipts and vouchers over a real ledger, with one open session."""

    def __init__(
        self,
        folder: Path,
        ledger: Ledger | None = None,
        *,
        chain: Any = None,
        clock: Any = None,
        domain: Domain = DOMAIN,
        node_id: int = NODE_ID,
    ) -> None:
        """`chain` may be a real client; then the session in it is for the test to open."""
        self.folder = folder
        self.domain, self.node_id = domain, node_id
        self.clock = clock or Clock()
        self.chain = chain or FakeChain()
        self.ledger = ledger or Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.session_id = b"\x51" * 32
        if isinstance(self.chain, FakeChain):
            self.chain.put(self.session_id, State())
        self.book = SessionBook(self.ledger, self.chain, self.clock, max_age_ms=30_000)
        self.served: dict[bytes, str] | None = {MODEL_ID: "chat"}
        self.terms = Terms(
            node_id=node_id,
            epoch=1,
            domain=domain,
            max_job_ms=900_000,
            max_session_exposed_atoms=100_000,
            max_node_exposed_atoms=200_000,
            max_unfinished=10,
        )
        self.offer = self.sell()
        self.desk = ReceiptDesk(self.ledger, NODE, domain, self.clock)
        self.vouchers = VoucherDesk(self.ledger, self.book, domain, self.clock, node_id=node_id)
        self.intake = self.open_intake()

    def open_intake(
        self, count: Callable[[bytes], int | None] = lambda _payload: None, **terms: Any
    ) -> Intake:
        return Intake(
            ledger=self.ledger,
            sessions=self.book,
            terms=replace(self.terms, **terms),
            tasks=lambda: self.served,
            grace_seconds=900,
            now_ms=self.clock,
            encryption_secret=ENCRYPTION,
            count=count,
        )

    def sell(self, **changes: Any) -> Offer:
        values: dict[str, Any] = {
            "node_id": self.node_id,
            "model_id": MODEL_ID,
            "price_per_job_atoms": 1_000,
            "price_in_per_million_atoms": 0,
            "price_out_per_million_atoms": 1_000_000,
            "max_latency_ms": 0,
            "late_discount_bps": 0,
            "max_millijoules_per_million_out": 0,
            "valid_until": self.clock.ms // 1000 + 600,
            "salt": next(_numbers).to_bytes(32, "big"),
        }
        offer = Offer(**values | changes)
        self.ledger.offers.put(
            HeldOffer(
                offer_hash=offer.digest(self.domain),
                model_id=offer.model_id,
                message=offer.encode(),
                signature=NODE.sign(offer, self.domain),
                valid_until=offer.valid_until,
            )
        )
        return offer

    def frame(
        self,
        seq: int = 1,
        *,
        payload: Payload | None = None,
        signer: Signer = KEY,
        lease_ms: int = 60_000,
        **changes: Any,
    ) -> OrderFrame:
        salt = b"\x0a" * 32
        data = encode_payload(payload or chat_payload())
        values: dict[str, Any] = {
            "session_id": self.session_id,
            "seq": seq,
            "offer_hash": self.offer.digest(self.domain),
            "request_hash": request_hash(salt, data),
            "max_amount_atoms": 2_000,
            "issued_at_ms": self.clock.ms,
            "deadline_ms": self.clock.ms + 60_000,
            "reply_key": bytes(32),
        }
        order = Order(**values | changes)
        return OrderFrame(
            job_id=f"job_{seq}",
            trace_id=f"{seq:032x}",
            order=Signed(message=order.encode(), signature=signer.sign(order, self.domain)),
            salt=salt,
            payload=data,
            lease_until_ms=self.clock.ms + lease_ms,
        )

    def sealed_frame(
        self, seq: int = 1, *, to: bytes = ENCRYPTION, inside: bytes | None = None, **changes: Any
    ) -> OrderFrame:
        """The same order sealed to a node's secret; `inside` is in place of its payload."""
        plain = self.frame(seq, **changes)
        order = Order.decode(plain.order.message)
        order = replace(order, reply_key=sealing.public_key(REPLY))
        signed = Signed(message=order.encode(), signature=KEY.sign(order, self.domain))
        seal = BuyerSeal.of(REPLY, sealing.public_key(to), order.digest(self.domain))
        payload = seal.seal(plain.salt, plain.payload if inside is None else inside)
        return plain.model_copy(update={"order": signed, "salt": b"", "payload": payload})

    def take(self, seq: int = 1, **changes: Any) -> bytes:
        """Takes an order; gives its hash."""
        return self.intake.take(self.frame(seq, **changes), GATEWAY).order_hash

    def receipt(self, seq: int, *, failed: bool = False, **work: Any) -> HeldReceipt:
        """Takes an order and signs its receipt: 3 output tokens, 1,003 atoms, or none when failed."""
        order_hash = self.take(seq)
        if failed:
            return self.desk.fail(order_hash, None, "internal")
        return self.desk.sign(order_hash, None, self.work(**work))

    def work(self, **changes: Any) -> Work:
        values: dict[str, Any] = {
            "finish": "stop",
            "failed": False,
            "started_at_ms": self.clock.ms,
            "finished_at_ms": self.clock.ms,
            "units_in": 5,
            "units_out": 3,
        }
        return Work(**values | changes)

    def voucher(
        self, through_seq: int, amount_atoms: int, digests: list[bytes], *, signer: Signer = KEY
    ) -> tuple[bytes, bytes]:
        """Message and signature of a voucher."""
        voucher = Voucher(
            session_id=self.session_id,
            through_seq=through_seq,
            amount_atoms=amount_atoms,
            receipts_root=root(digests),
        )
        return voucher.encode(), signer.sign(voucher, self.domain)


class TinyRunning:
    """A job of a `TinyEngine`."""

    stopping = dropped = False

    def stop(self) -> None:
        self.stopping = True

    def drop(self) -> None:
        self.dropped = True


class TinyEngine:
    """Answers with counted words, one chunk each; deterministic in the seed, resumable.

    `before_chunk` runs before each chunk is emitted, with its index.
    """

    profile = Profile(engine="tiny 1", torch="none", dtype="none")
    alive = True

    def __init__(self, before_chunk: Callable[[int], None] = lambda _index: None, *, words: int = 4) -> None:
        self.before_chunk = before_chunk
        self.words = words
        self.runs = 0
        self.lock = threading.Lock()

    def load(self) -> None:
        return

    def close(self) -> None:
        return

    def units_in(self, payload: Payload) -> int:
        return 5

    def bodies(self, seed: int) -> list[bytes]:
        word = to_hex(keccak(seed.to_bytes(8, "big"))[:2])
        return [text_chunk(f"{word} {i} ") for i in range(self.words)] + [finish_chunk("stop")]

    def submit(self, job: EngineJob, sink: Sink) -> TinyRunning:
        """Runs the job on the caller's thread; like an engine, it looks between chunks whether to go on."""
        running = TinyRunning()
        try:
            sink(self.run(job, sink, running))
        except Exception as error:  # noqa: BLE001 - as an engine does
            sink(error)
        return running

    def run(self, job: EngineJob, emit: Emit, running: TinyRunning | None = None) -> Outcome:
        with self.lock:
            self.runs += 1
        bodies = self.bodies(job.seed)
        assert [c.body for c in job.resume] == bodies[: len(job.resume)]
        reading = Reading(device_microseconds=10, energy_millijoules=2, energy_method="model")
        for index in range(len(job.resume), len(bodies)):
            if running and running.stopping:
                emit(Chunk(index=index, body=finish_chunk("cancelled")))
                return Outcome(
                    finish="cancelled", units_in=5 if index else 0, units_out=index, reading=reading
                )
            self.before_chunk(index)
            if running and running.dropped:
                break
            emit(Chunk(index=index, body=bodies[index], token_ids=(index,)))
        return Outcome(finish="stop", units_in=5, units_out=self.words, reading=reading)


class TinyPool:
    """One engine for every model."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def engine_for(self, model_id: bytes) -> Any:
        return self.engine

    def units_in(self, payload: Payload) -> int | None:
        return int(self.engine.units_in(payload))
