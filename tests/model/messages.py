"""What parties sign, worked out from the protocol page and not from the package under test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from coincurve import PrivateKey, PublicKey

from tests.model.abi import keccak, word, words

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
NOBODY: Final = 0
_LOW_255_BITS: Final = (1 << 255) - 1


class Caps(NamedTuple):
    per_session: int
    per_day: int
    total: int
    expires_at: int
    nodes_root: bytes


class Grant(NamedTuple):
    buyer: int
    key: int
    per_session: int
    per_day: int
    total: int
    expires_at: int
    nodes_root: bytes
    nonce: int
    valid_until: int


class Terms(NamedTuple):
    buyer: int
    key: int
    node_id: int
    amount: int
    open_before: int
    expires_at: int
    salt: bytes


class Order(NamedTuple):
    session_id: bytes
    seq: int
    offer_hash: bytes
    request_hash: bytes
    max_amount: int
    issued_at_ms: int
    deadline_ms: int
    reply_key: bytes


class Receipt(NamedTuple):
    order_hash: bytes
    response_hash: bytes
    exec_hash: bytes
    units_in: int
    units_out: int
    amount: int
    started_at_ms: int
    finished_at_ms: int
    energy_millijoules: int
    status: int


class SignedReceipt(NamedTuple):
    order: Order
    order_signature: bytes
    receipt: Receipt
    receipt_signature: bytes


class Item(NamedTuple):
    session_id: bytes
    through_seq: int
    amount: int
    receipts_root: bytes
    r: bytes
    vs: bytes


_MONEY_FIELDS = "address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce"
TYPES: Final = {
    name: keccak(f"{name}({fields})".encode())
    for name, fields in {
        "KeyGrant": "address buyer,address key,uint128 perSession,uint128 perDay,uint128 total,"
        "uint48 expiresAt,bytes32 nodesRoot,uint32 nonce,uint48 validUntil",
        "Open": "address buyer,address key,uint32 nodeId,uint128 amount,uint48 openBefore,"
        "uint48 expiresAt,bytes32 salt",
        "TopUp": "bytes32 sessionId,uint128 deposited",
        "Order": "bytes32 sessionId,uint32 seq,bytes32 offerHash,bytes32 requestHash,uint128 maxAmount,"
        "uint64 issuedAtMs,uint64 deadlineMs,bytes32 replyKey",
        "Receipt": "bytes32 orderHash,bytes32 responseHash,bytes32 execHash,uint64 unitsIn,uint64 unitsOut,"
        "uint128 amount,uint64 startedAtMs,uint64 finishedAtMs,uint64 energyMillijoules,uint8 status",
        "Voucher": "bytes32 sessionId,uint32 throughSeq,uint128 amount,bytes32 receiptsRoot",
        "VoucherBatch": "bytes32 vouchersHash,bytes32 receiptsRoot",
        "Settlement": "bytes32 itemsHash",
        "Close": "bytes32 sessionId,uint128 minPaid",
        "Permit": "address owner,address spender,uint256 value,uint256 nonce,uint256 deadline",
        "ReceiveWithAuthorization": _MONEY_FIELDS,
    }.items()
}
_DOMAIN = keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")


def domain(name: str, chain_id: int, contract: int) -> bytes:
    """Separator of version 1 of a contract."""
    return keccak(words(_DOMAIN, keccak(name.encode()), keccak(b"1"), chain_id, contract))


def digest(separator: bytes, name: str, fields: Sequence[int | bytes]) -> bytes:
    """What is signed of a message whose fields are words."""
    return keccak(b"\x19\x01" + separator + keccak(TYPES[name] + words(*fields)))


def items_hash(items: Sequence[Item]) -> bytes:
    return keccak(words(32, len(items)) + b"".join(words(*item) for item in items))


def short(session_id: bytes) -> bytes:
    """What a batch carries of an id, and under what a session is kept."""
    return session_id[:24]


class Actor:
    """An address with a secret, and every form in which it may sign."""

    __slots__ = ("_key", "address", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._key = PrivateKey(keccak(name.encode()))
        self.address = _address(self._key.public_key)

    def sign(self, over: bytes) -> bytes:
        """65 bytes r, s, v."""
        raw = self._key.sign_recoverable(over, hasher=None)
        return bytes(raw[:64]) + bytes([raw[64] + 27])

    def compact(self, over: bytes) -> bytes:
        """64 bytes r, vs, as EIP-2098."""
        long = self.sign(over)
        return long[:32] + word(int.from_bytes(long[32:64], "big") | (long[64] - 27) << 255)


def twisted(long: bytes) -> bytes:
    """The other signature of the same signer, with a high s, which must be refused."""
    return long[:32] + word(ORDER - int.from_bytes(long[32:64], "big")) + bytes([55 - long[64]])


def recover(over: bytes, signature: bytes) -> int:
    """Who signed, in 65 or 64 bytes; nobody when it is malformed or s is high."""
    if len(signature) == 64:
        vs = int.from_bytes(signature[32:], "big")
        signature = signature[:32] + word(vs & _LOW_255_BITS) + bytes([27 + (vs >> 255)])
    if len(signature) != 65 or signature[64] not in (27, 28):
        return NOBODY
    r, s = (int.from_bytes(signature[i : i + 32], "big") for i in (0, 32))
    if not 0 < r < ORDER or not 0 < s <= ORDER // 2:
        return NOBODY
    try:
        raw = signature[:64] + bytes([signature[64] - 27])
        return _address(PublicKey.from_signature_and_message(raw, over, hasher=None))
    except ValueError:  # no point of the curve
        return NOBODY


def leaf(node_id: int) -> bytes:
    return keccak(keccak(word(node_id)))


def pair(a: bytes, b: bytes) -> bytes:
    return keccak(min(a, b) + max(a, b))


def _address(key: PublicKey) -> int:
    return int.from_bytes(keccak(key.format(compressed=False)[1:])[-20:], "big")
