"""One owner of a key's nonces: sign, persist the exact bytes, broadcast, confirm by block hash.

A retry sends the same bytes, so an intent is paid at most once whatever crashes or answers late.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from eth_account import Account

from marketplace.chain.calls import Call
from marketplace.chain.devkeys import refuse_test_key
from marketplace.chain.ethereum import Ethereum, TxSeen
from marketplace.chain.journal import MemoryJournal as MemoryJournal
from marketplace.protocol.errors import BadRequest, Broken, ChainTrouble, ErrorCode, LostRace
from marketplace.protocol.hexes import checksum, to_hex
from marketplace.protocol.signing import Signer
from marketplace.protocol.transactions import TxJournal, TxRecord, TxState
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

# EIP-7825: no transaction above this.
GAS_LIMIT: Final = 1 << 24
# A nonce that another transaction took is given up only this deep, where no reorganisation reaches.
DISPLACED_DEPTH: Final = 64
_NONCE_TRIES: Final = 8
_POLLS_SECONDS: Final = (0.02, 0.05, 0.1, 0.25, 0.5)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    call: Call
    gas: int
    max_wei: int
    tip_wei: int


class Sender:
    """Sends calls of one key. Only one process may run a sender for a key.

    Args:
        journal: durable; it decides who gets a nonce.
        confirmations: blocks, the transaction's own included, until it counts as final. 1 suits local chains.
    """

    def __init__(
        self,
        client: Ethereum,
        signer: Signer,
        journal: TxJournal,
        now_ms: Callable[[], int],
        *,
        confirmations: int = 1,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        refuse_test_key(signer.address, client.chain_id)
        self._client = client
        self._signer = signer
        self._journal = journal
        self._now_ms = now_ms
        self._confirmations = confirmations
        self._sleep = sleep
        self._lock = threading.Lock()
        self._suspects: set[str] = set()

    @property
    def address(self) -> str:
        """Who pays for the gas."""
        return self._signer.address

    def send(self, intent: str, call: Call, trace_ids: str = "") -> TxRecord:
        """Signs, persists and broadcasts, or finds what was signed for this intent before.

        A broadcast that fails is no error: the record is durable and `step` sends it again.

        Raises:
            BadRequest: it would revert, or the key cannot pay the gas; nothing was persisted.
            ChainTrouble: the chain does not answer; nothing was persisted.
        """
        with self._lock:
            known = self._journal.find(intent)
            if known is not None:
                return known
            record = self._persist(intent, self._prepare(call), trace_ids)
        self._broadcast(record)
        return record

    def step(self) -> list[TxRecord]:
        """Looks at every pending record once; returns those whose state changed.

        Mined in a block that is still the chain's, deep enough: confirmed, or reverted. Gone after a
        reorganisation: back to signed. Not known to the node: the same bytes are sent again. A crash right
        after this call loses its answer but nothing else: the journal has every state.

        Raises:
            ChainTrouble: the chain does not answer and nothing changed; the rest waits for the next call.
        """
        changed: list[TxRecord] = []
        with self._lock:
            try:
                for moved in self._look_at_all(self._journal.pending(self.address)):
                    changed.append(moved)  # noqa: PERF402 - `extend` promises nothing when an answer fails
            except ChainTrouble as trouble:
                # What moved before must reach the caller: it is not pending any more.
                if not changed:
                    raise
                log.warning(Log.CHAIN_TROUBLE, reason=trouble.detail)
        return changed

    def send_and_wait(
        self, intent: str, call: Call, timeout_seconds: float = 60, trace_ids: str = ""
    ) -> TxRecord:
        """Sends and waits until the record is confirmed.

        Raises:
            BadRequest: it would revert, or did; the detail is the contract's error.
            ChainTrouble: not confirmed in time; it may still be, and the same intent finds it.
        """
        record = self.send(intent, call, trace_ids)
        waited_seconds, polls = 0.0, 0
        while record.state not in (TxState.CONFIRMED, TxState.REVERTED):
            self._step_quietly()
            record = self._journal.find(intent) or record
            if record.state in (TxState.CONFIRMED, TxState.REVERTED):
                break
            if waited_seconds >= timeout_seconds:
                raise _unconfirmed(call, record, timeout_seconds)
            pause = _POLLS_SECONDS[min(polls, len(_POLLS_SECONDS) - 1)]
            self._sleep(pause)
            waited_seconds, polls = waited_seconds + pause, polls + 1
        if record.state is TxState.REVERTED:
            reason = self._client.revert_reason(record.tx_hash)
            raise BadRequest(
                ErrorCode.TRANSACTION_REVERTED, f"{call.what}: {reason}", tx_hash=to_hex(record.tx_hash)
            )
        return record

    def _prepare(self, call: Call) -> _Prepared:
        estimated = self._client.estimate_gas(self.address, call)
        # A quarter more: other transactions may be mined first and make this one's slots dearer.
        gas = min(estimated + estimated // 4, GAS_LIMIT)
        fees = self._client.fees()
        need_wei, has_wei = gas * fees.max_wei, self._client.eth_balance_wei(self.address)
        if estimated > GAS_LIMIT:
            raise _refused(
                call, f"{call.what} needs {estimated} gas, the limit is {GAS_LIMIT}; send less in one"
            )
        if has_wei < need_wei:
            raise _refused(
                call, f"{self.address} has {has_wei} wei, {call.what} may need {need_wei}; send it ETH"
            )
        return _Prepared(call=call, gas=gas, max_wei=fees.max_wei, tip_wei=fees.tip_wei)

    def _persist(self, intent: str, prepared: _Prepared, trace_ids: str) -> TxRecord:
        lost: LostRace | None = None
        for _ in range(_NONCE_TRIES):
            nonce = max(self._journal.next_nonce(self.address), self._client.nonce(self.address))
            raw, tx_hash = self._sign(prepared, nonce)
            record = TxRecord(
                intent=intent,
                sender=self.address,
                nonce=nonce,
                raw=raw,
                tx_hash=tx_hash,
                state=TxState.SIGNED,
                created_at_ms=self._now_ms(),
                trace_ids=trace_ids,
            )
            try:
                self._journal.add(record)
            except LostRace as error:
                # Another process took the intent, and then its record is the answer, or only the nonce.
                lost, known = error, self._journal.find(intent)
                if known is not None:
                    return known
                continue
            log.info(Log.TX_SIGNED, what=prepared.call.what, gas=prepared.gas, **_named(record))
            return record
        raise Broken(ErrorCode.INTERNAL, f"no free nonce in {_NONCE_TRIES} tries", intent=intent) from lost

    def _sign(self, prepared: _Prepared, nonce: int) -> tuple[bytes, bytes]:
        fields = {
            "type": 2,
            "chainId": self._client.chain_id,
            "nonce": nonce,
            "gas": prepared.gas,
            "maxFeePerGas": prepared.max_wei,
            "maxPriorityFeePerGas": prepared.tip_wei,
            "value": 0,
            "data": to_hex(prepared.call.data),
            "accessList": prepared.call.access_list,
        }
        if prepared.call.to is not None:
            fields["to"] = checksum(prepared.call.to)
        signed = Account.sign_transaction(fields, self._signer.secret)
        return bytes(signed.raw_transaction), bytes(signed.hash)

    def _broadcast(self, record: TxRecord) -> None:
        try:
            self._client.broadcast(record.raw)
        except ChainTrouble as trouble:
            log.warning(Log.TX_NOT_BROADCAST, reason=trouble.detail, **_named(record))

    def _look_at_all(self, pending: Sequence[TxRecord]) -> Iterator[TxRecord]:
        if not pending:
            return
        head = self._client.head().number
        # Before any receipt, so that a node that lags cannot make a mined transaction look displaced.
        deep = head - DISPLACED_DEPTH
        taken = self._client.nonce(self.address, at=deep) if deep >= 0 else 0
        for record in pending:
            moved = self._look(record, head, displaced=record.nonce < taken)
            if moved is not None:
                yield moved

    def _look(self, record: TxRecord, head: int, *, displaced: bool) -> TxRecord | None:
        seen = self._client.tx_receipt(record.tx_hash)
        if seen is not None and self._is_canonical(seen):
            self._suspects.discard(record.intent)
            return self._found(record, seen, head)
        if displaced and seen is None:
            return self._displaced(record)
        changed = None
        if record.state is TxState.MINED:
            log.warning(Log.TX_REORGED, block_number=record.block_number, **_named(record))
            changed = self._mark(record, TxState.SIGNED, None)
        if not self._client.knows(record.tx_hash):
            self._broadcast(record)
        return changed

    def _displaced(self, record: TxRecord) -> TxRecord | None:
        # Its own nonce looks just as taken. One missing receipt may be one bad answer of one node behind a
        # balancer, and giving up a transaction that was mined would pay twice: so it takes two looks.
        if record.intent not in self._suspects:
            self._suspects.add(record.intent)
            return None
        self._suspects.discard(record.intent)
        log.error(Log.TX_DISPLACED, **_named(record))
        return self._mark(record, TxState.REVERTED, None)

    def _is_canonical(self, seen: TxSeen) -> bool:
        block = self._client.block(seen.block_number)
        return block is not None and block.hash == seen.block_hash

    def _found(self, record: TxRecord, seen: TxSeen, head: int) -> TxRecord | None:
        if head - seen.block_number + 1 < self._confirmations:
            same = record.state is TxState.MINED and record.block_hash == seen.block_hash
            return None if same else self._mark(record, TxState.MINED, seen)
        state = TxState.CONFIRMED if seen.ok else TxState.REVERTED
        event = Log.TX_CONFIRMED if seen.ok else Log.TX_REVERTED
        log.info(event, block_number=seen.block_number, gas_used=seen.gas_used, **_named(record))
        return self._mark(record, state, seen)

    def _mark(self, record: TxRecord, state: TxState, seen: TxSeen | None) -> TxRecord | None:
        number, block_hash = (seen.block_number, seen.block_hash) if seen else (None, None)
        self._journal.mark(record.intent, state, block_number=number, block_hash=block_hash)
        return self._journal.find(record.intent)

    def _step_quietly(self) -> None:
        try:
            self.step()
        except ChainTrouble as trouble:
            log.warning(Log.CHAIN_TROUBLE, reason=trouble.detail)


def _refused(call: Call, detail: str) -> BadRequest:
    return BadRequest(ErrorCode.TRANSACTION_REVERTED, detail, what=call.what, error="", args={})


def _unconfirmed(call: Call, record: TxRecord, timeout_seconds: float) -> ChainTrouble:
    tx_hash = to_hex(record.tx_hash)
    late = f"is not confirmed within {timeout_seconds} s; it may still be mined"
    return ChainTrouble(
        ErrorCode.CHAIN_UNAVAILABLE,
        f"{call.what}: transaction {tx_hash} {late}",
        intent=record.intent,
        tx_hash=tx_hash,
        # Most who wait keep no journal: for them the same wish again is a second transaction.
        hint=f"See what became of it before you repeat it: watt wallet show --tx {tx_hash}",
    )


def _named(record: TxRecord) -> dict[str, object]:
    return {
        "intent": record.intent,
        "tx_hash": to_hex(record.tx_hash),
        "nonce": record.nonce,
        "trace_ids": record.trace_ids,
    }
