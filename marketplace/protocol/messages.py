"""The messages of PROTOCOL §3. Field order is signing order; names equal Solidity's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from marketplace.protocol.eip712 import Message, eip


class ReceiptStatus(IntEnum):
    """How a job ended, as its node signs it."""

    FAILED = 0
    DONE = 1
    CUT_SHORT = 2


class SettleStatus(IntEnum):
    """What the escrow makes of one item of `settle` (`Sessions.sol`)."""

    SETTLED = 0
    UNKNOWN_SESSION = 1
    NOT_SETTLER = 2
    STALE = 3
    ABOVE_DEPOSIT = 4
    EXPIRED = 5
    CLOSED = 6
    CLAIM_PENDING = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(Message):
    """A node's price for one model, valid until `valid_until` (Unix seconds, exclusive)."""

    node_id: Annotated[int, eip("uint32", "nodeId")]
    model_id: Annotated[bytes, eip("bytes32", "modelId")]
    price_per_job_atoms: Annotated[int, eip("uint128", "pricePerJob")]
    price_in_per_million_atoms: Annotated[int, eip("uint128", "priceInPerMillion")]
    price_out_per_million_atoms: Annotated[int, eip("uint128", "priceOutPerMillion")]
    max_latency_ms: Annotated[int, eip("uint32", "maxLatencyMs")]
    late_discount_bps: Annotated[int, eip("uint16", "lateDiscountBps")]
    max_millijoules_per_million_out: Annotated[int, eip("uint64", "maxMillijoulesPerMillionOut")]
    valid_until: Annotated[int, eip("uint48", "validUntil")]
    salt: Annotated[bytes, eip("bytes32", "salt")]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGrant(Message):
    """A buyer's leave for a key to move money into sessions, inside caps that the escrow enforces.

    Amounts fit 64 bits; 0 allows nothing. `expires_at` and `valid_until` are Unix seconds, exclusive.
    `nodes_root` is 0 for any node (see `nodelist`). `nonce` only grows; see `Key.nonce` in `Keys.sol`.
    """

    buyer: Annotated[str, eip("address", "buyer")]
    key: Annotated[str, eip("address", "key")]
    per_session_atoms: Annotated[int, eip("uint128", "perSession")]
    per_day_atoms: Annotated[int, eip("uint128", "perDay")]
    total_atoms: Annotated[int, eip("uint128", "total")]
    expires_at: Annotated[int, eip("uint48", "expiresAt")]
    nodes_root: Annotated[bytes, eip("bytes32", "nodesRoot")]
    nonce: Annotated[int, eip("uint32", "nonce")]
    valid_until: Annotated[int, eip("uint48", "validUntil")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Open(Message):
    """Sets `amount_atoms` of the buyer's account aside for one node. Its digest is the session id."""

    buyer: Annotated[str, eip("address", "buyer")]
    key: Annotated[str, eip("address", "key")]
    node_id: Annotated[int, eip("uint32", "nodeId")]
    amount_atoms: Annotated[int, eip("uint128", "amount")]
    open_before: Annotated[int, eip("uint48", "openBefore")]
    expires_at: Annotated[int, eip("uint48", "expiresAt")]
    salt: Annotated[bytes, eip("bytes32", "salt")]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUp(Message):
    """Raises a session's cumulative deposit; a lower figure changes nothing."""

    session_id: Annotated[bytes, eip("bytes32", "sessionId")]
    deposited_atoms: Annotated[int, eip("uint128", "deposited")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Message):
    """A key's commission of one job at a price of at most `max_amount_atoms`."""

    session_id: Annotated[bytes, eip("bytes32", "sessionId")]
    seq: Annotated[int, eip("uint32", "seq")]
    offer_hash: Annotated[bytes, eip("bytes32", "offerHash")]
    request_hash: Annotated[bytes, eip("bytes32", "requestHash")]
    max_amount_atoms: Annotated[int, eip("uint128", "maxAmount")]
    issued_at_ms: Annotated[int, eip("uint64", "issuedAtMs")]
    deadline_ms: Annotated[int, eip("uint64", "deadlineMs")]
    reply_key: Annotated[bytes, eip("bytes32", "replyKey")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Message):
    """A node's statement of what it did for one order and what that costs."""

    order_hash: Annotated[bytes, eip("bytes32", "orderHash")]
    response_hash: Annotated[bytes, eip("bytes32", "responseHash")]
    exec_hash: Annotated[bytes, eip("bytes32", "execHash")]
    units_in: Annotated[int, eip("uint64", "unitsIn")]
    units_out: Annotated[int, eip("uint64", "unitsOut")]
    amount_atoms: Annotated[int, eip("uint128", "amount")]
    started_at_ms: Annotated[int, eip("uint64", "startedAtMs")]
    finished_at_ms: Annotated[int, eip("uint64", "finishedAtMs")]
    energy_millijoules: Annotated[int, eip("uint64", "energyMillijoules")]
    status: Annotated[int, eip("uint8", "status")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher(Message):
    """A key's acceptance: every seq up to `through_seq` has ended, `amount_atoms` pays them all."""

    session_id: Annotated[bytes, eip("bytes32", "sessionId")]
    through_seq: Annotated[int, eip("uint32", "throughSeq")]
    amount_atoms: Annotated[int, eip("uint128", "amount")]
    receipts_root: Annotated[bytes, eip("bytes32", "receiptsRoot")]


@dataclass(frozen=True, slots=True, kw_only=True)
class VoucherBatch(Message):
    """A key's acceptance of many sessions at once; the hash is of the packed vouchers (`batches`)."""

    vouchers_hash: Annotated[bytes, eip("bytes32", "vouchersHash")]
    receipts_root: Annotated[bytes, eip("bytes32", "receiptsRoot")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement(Message):
    """A settler's leave for anybody to send this list of items; the hash is of its ABI encoding."""

    items_hash: Annotated[bytes, eip("bytes32", "itemsHash")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Message):
    """A node's consent to release the rest of a session once `min_paid_atoms` is paid."""

    session_id: Annotated[bytes, eip("bytes32", "sessionId")]
    min_paid_atoms: Annotated[int, eip("uint128", "minPaid")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Message):
    """A node's answer to a gateway's challenge; off-chain only."""

    node_id: Annotated[int, eip("uint32", "nodeId")]
    challenge: Annotated[bytes, eip("bytes32", "challenge")]
    issued_at_ms: Annotated[int, eip("uint64", "issuedAtMs")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit(Message):
    """A key's proof towards a gateway that it may read its own jobs; off-chain only."""

    key: Annotated[str, eip("address", "key")]
    issued_at_ms: Annotated[int, eip("uint64", "issuedAtMs")]


ON_CHAIN: tuple[type[Message], ...] = (
    Offer,
    KeyGrant,
    Open,
    TopUp,
    Order,
    Receipt,
    Voucher,
    VoucherBatch,
    Settlement,
    Close,
)
