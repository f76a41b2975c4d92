"""An escrow and a sender in memory; claims, vouchers and stake follow the contract's rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eth_abi.abi import decode

from marketplace.chain.artifacts import contract
from marketplace.chain.calls import Call
from marketplace.chain.client import ClaimState, NodeState, ProviderState
from marketplace.chain.codec import ChainEvent
from marketplace.chain.deployment import Deployment
from marketplace.protocol.batches import SHORT_ID_BYTES
from marketplace.protocol.due import SettlePolicy
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import ZERO_ADDRESS, keccak, to_hex
from marketplace.protocol.messages import SettleStatus
from marketplace.protocol.transactions import TxRecord, TxState
from tests.worker.support import DOMAIN, NODE_ID, START_MS, Bench, Clock, FakeChain, State, place
from worker.ledger import HeldReceipt, Ledger
from worker.settle.limits import SettleLimits
from worker.settle.sessions import SessionBook
from worker.settle.step import Settler

GRACE, CHALLENGE = 900, 3_600
EXPIRES_AT = START_MS // 1000 + 3_600
OWNER = "0x" + "0a" * 20
DEPLOYMENT = Deployment(
    chain_id=DOMAIN.chain_id,
    genesis_hash=bytes(32),
    deployed_block=0,
    token=ZERO_ADDRESS,
    registry=ZERO_ADDRESS,
    escrow=DOMAIN.escrow,
    court=ZERO_ADDRESS,
    treasury=ZERO_ADDRESS,
    token_symbol="USD",
    token_decimals=6,
    min_stake_atoms=0,
    max_session_seconds=86_400,
    grace_seconds=GRACE,
    challenge_seconds=CHALLENGE,
)
LIMITS = SettleLimits(
    node_id=NODE_ID,
    policy=SettlePolicy(min_total_atoms=1 << 40, max_age_ms=1 << 40, expiry_margin_seconds=600),
    collect_min_atoms=0,
    claim_min_atoms=1_000,
    claim_margin_seconds=30,
    claim_look_ms=60_000,
    confirm_seconds=1,
)


@dataclass
class FakeEscrow(FakeChain):
    """Executes settle, claim and finalise of one session's key; the court is two methods.

    `meanwhile` happens once, while a claim is read; of claims in `troubles` nothing can be read.

    Claims are kept under the first 24 bytes of the session's id, as in the contract.
    """

    now_ms: Any = None
    staked_atoms: int = 1_000_000
    locked_atoms: int = 0
    earnings_atoms: int = 0
    claims: dict[bytes, ClaimState] = field(default_factory=dict)
    done: list[tuple[str, list[int]]] = field(default_factory=list)
    logs: list[ChainEvent] = field(default_factory=list)
    refuses: set[bytes] = field(default_factory=set)
    troubles: set[bytes] = field(default_factory=set)
    meanwhile: Callable[[], object] = lambda: None

    def node(self, node_id: int) -> NodeState:
        return NodeState(
            owner=OWNER, epoch=1, signer=ZERO_ADDRESS, encryption_key=bytes(32), uri="", settler=ZERO_ADDRESS,
            earnings_atoms=self.earnings_atoms, serving=True,
        )  # fmt: skip

    def provider(self, owner: str) -> ProviderState:
        assert owner == OWNER
        return ProviderState(
            staked_atoms=self.staked_atoms, unstaking_atoms=0, locked_atoms=self.locked_atoms, unstake_at=0,
            registered=True,
        )  # fmt: skip

    def claim(self, session_id: bytes) -> ClaimState | None:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        if session_id in self.troubles:
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE)
        found = self.claims.get(_short(session_id))
        return found if found and (found.pending_atoms or found.held_atoms) else None

    def events(self, first: int, last: int) -> list[ChainEvent]:
        return [event for event in self.logs if first <= event.block_number <= last]

    def hold(self, session_id: bytes, atoms: int) -> None:
        was = self.claims[_short(session_id)]
        self.claims[_short(session_id)] = replace(
            was, pending_atoms=was.pending_atoms - atoms, held_atoms=was.held_atoms + atoms
        )
        if was.pending_atoms == atoms:
            self._change(session_id, 0, was.through_seq)

    def resolve(self, session_id: bytes, atoms: int, *, is_paid: bool) -> None:
        was = self.claims[_short(session_id)]
        self.claims[_short(session_id)] = replace(was, held_atoms=was.held_atoms - atoms)
        self.locked_atoms -= atoms
        if is_paid:
            self._change(session_id, atoms, 0)

    def finalise(self, session_id: bytes) -> None:
        was = self.claims[_short(session_id)]
        self.claims[_short(session_id)] = replace(was, pending_atoms=0)
        self.locked_atoms -= was.pending_atoms
        self._change(session_id, was.pending_atoms, was.through_seq)

    def check(self, call: Call) -> None:
        """What estimating the gas of a call would find."""
        name, values = _read(call)
        if name == "collect":
            return
        session_id = _session_of(name, values)
        found = self.claims.get(_short(session_id))
        if session_id in self.refuses:
            raise _revert("NodeRegistry_AboveFreeStake")
        if name == "claim" and found and found.pending_atoms:
            raise _revert("Escrow_ClaimPending")
        if name == "finalise" and not (found and found.pending_atoms):
            raise _revert("Escrow_NoClaim")
        if name == "finalise" and found and self.now_ms() // 1000 < found.final_at:
            raise _revert("Escrow_TooEarly")

    def execute(self, call: Call, record: TxRecord, block: int) -> None:
        name, values = _read(call)
        if name == "collect":
            self.done.append((name, []))
            return
        session_id = _session_of(name, values)
        if name == "claim":
            seqs = [job[0][1] for job in values[1]]
            self._claimed(session_id, sum(job[2][5] for job in values[1]), seqs[-1])
            self.done.append((name, seqs))
        elif name == "finalise":
            self.finalise(session_id)
            self.done.append((name, []))
        else:
            self._settled(session_id, values[0][0], record, block)

    def _claimed(self, session_id: bytes, atoms: int, through_seq: int) -> None:
        held = self.claims[_short(session_id)].held_atoms if _short(session_id) in self.claims else 0
        self.locked_atoms += atoms
        self.claims[_short(session_id)] = ClaimState(
            pending_atoms=atoms, held_atoms=held, through_seq=through_seq,
            final_at=self.now_ms() // 1000 + CHALLENGE, receipts_hash=bytes(32),
        )  # fmt: skip

    def _settled(self, session_id: bytes, item: Any, record: TxRecord, block: int) -> None:
        found = self.claims.get(_short(session_id))
        if found and found.pending_atoms and item[1] < found.through_seq:
            self._log("VoucherSkipped", session_id, record, block, status=int(SettleStatus.CLAIM_PENDING))
            self.done.append(("skip", [item[1]]))
            return
        if found and found.pending_atoms:
            self.locked_atoms -= found.pending_atoms
            self.claims[_short(session_id)] = replace(found, pending_atoms=0)
        state = self.sessions[place(session_id)]
        self._change(session_id, item[2] - state.paid_atoms, item[1])
        self._log("VoucherSettled", session_id, record, block, throughSeq=item[1], paid=item[2])
        self.done.append(("settle", [item[1]]))

    def _log(self, name: str, session_id: bytes, record: TxRecord, block: int, **args: int) -> None:
        self.logs.append(
            ChainEvent(
                name=name, args={"sessionId": to_hex(session_id)} | args, contract="Escrow",
                block_number=block, block_hash=bytes(32), tx_hash=record.tx_hash, log_index=0,
            )
        )  # fmt: skip

    def _change(self, session_id: bytes, atoms: int, through_seq: int) -> None:
        was = self.sessions[place(session_id)]
        self.sessions[place(session_id)] = replace(
            was, paid_atoms=was.paid_atoms + atoms, through_seq=max(was.through_seq, through_seq)
        )


@dataclass
class FakeSender:
    """Signs into the ledger's journal; `step` mines. `dies` is where the process is killed next."""

    escrow: FakeEscrow
    ledger: Ledger
    calls: dict[str, Call] = field(default_factory=dict)
    dies: str = ""
    mines: bool = True
    address: str = "0x" + "0b" * 20

    def send(self, intent: str, call: Call, trace_ids: str = "") -> TxRecord:
        self._die("before signing")
        known = self.ledger.transactions.find(intent)
        if known is not None:
            return known
        self.escrow.check(call)
        nonce = self.ledger.transactions.next_nonce(self.address)
        record = TxRecord(
            intent=intent, sender=self.address, nonce=nonce, raw=call.data, tx_hash=keccak(bytes([nonce])),
            state=TxState.SIGNED, created_at_ms=nonce, trace_ids=trace_ids,
        )  # fmt: skip
        self.ledger.transactions.add(record)
        self.calls[intent] = call
        self._die("after signing")
        return record

    def step(self) -> list[TxRecord]:
        if not self.mines:
            return []
        changed = []
        for record in self.ledger.transactions.pending(self.address):
            self.escrow.execute(self.calls[record.intent], record, record.nonce)
            self.ledger.transactions.mark(
                record.intent, TxState.CONFIRMED, block_number=record.nonce, block_hash=bytes(32)
            )
            changed.append(record)
        self._die("after confirming")
        return [found for r in changed if (found := self.ledger.transactions.find(r.intent))]

    def _die(self, place: str) -> None:
        if self.dies == place:
            self.dies = ""
            raise KeyboardInterrupt(place)


class ClaimBench(Bench):
    """A node with a settler over the fake escrow."""

    chain: FakeEscrow

    def __init__(self, folder: Path) -> None:
        clock = Clock()
        super().__init__(folder, chain=FakeEscrow(now_ms=clock), clock=clock)
        self.sender = FakeSender(self.chain, self.ledger)
        self.settler = self.make()

    def make(self, **limits: Any) -> Settler:
        """A settler of a fresh process."""
        return Settler(
            ledger=self.ledger,
            chain=self.chain,
            sessions=SessionBook(self.ledger, self.chain, self.clock, max_age_ms=0),
            sender=self.sender,
            deployment=DEPLOYMENT,
            limits=replace(LIMITS, **limits),
            now_ms=self.clock,
            sleep=lambda _seconds: None,
        )

    def add_session(self, session_id: bytes, **state: Any) -> bytes:
        """Another session of the same key; orders that follow are for it."""
        self.chain.put(session_id, State(**state))
        self.session_id = session_id
        return session_id

    def done_job(
        self, seq: int, *, failed: bool = False, sent: bool = True, confirmed: bool = True, **work: Any
    ) -> HeldReceipt:
        """A job whose receipt (1,003 atoms) left for the gateway, which confirmed it."""
        receipt = self.receipt(seq, failed=failed, **work)
        if sent:
            self.ledger.receipts.sent(receipt.order_hash, now_ms=self.clock.ms)
        if sent and confirmed:
            self.ledger.signing.delivered(receipt.order_hash, now_ms=self.clock.ms)
        return receipt

    def at(self, unix_seconds: int) -> None:
        """Moves the clock."""
        self.clock.ms = unix_seconds * 1000

    def run(self) -> list[tuple[str, list[int]]]:
        """One run of the settler; gives what the escrow was made to do by it, with seqs."""
        before = len(self.chain.done)
        self.settler.run()
        return self.chain.done[before:]

    def restart(self) -> None:
        """The settle process was killed; another takes over."""
        self.settler = self.make()

    def claim(self) -> Any:
        """The ledger's claim of the session."""
        found = self.ledger.claims.get(self.session_id)
        assert found is not None
        return found

    def paid(self) -> int:
        """What the chain has paid of the session."""
        return self.chain.sessions[place(self.session_id)].paid_atoms


def _read(call: Call) -> tuple[str, tuple[Any, ...]]:
    entries = contract("Escrow").functions
    name = next(n for n in ("claim", "finalise", "settle", "collect") if entries[n].selector == call.data[:4])
    return name, tuple(decode(entries[name].kinds, call.data[4:]))


def _session_of(name: str, values: tuple[Any, ...]) -> bytes:
    return bytes(values[0][0][0] if name == "settle" else values[0][6])


def _short(session_id: bytes) -> bytes:
    return session_id[:SHORT_ID_BYTES]


def _revert(error: str) -> BadRequest:
    return BadRequest(ErrorCode.TRANSACTION_REVERTED, f"{error}()", error=error, args={})
