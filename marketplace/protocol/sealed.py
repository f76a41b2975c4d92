"""A job sealed between buyer and node: who relays it learns how large it is, and not what it says.

One HPKE context an order (`sealing.Context`): its encapsulated key is the order's `replyKey`, its recipient
the node's encryption key in the registry, and its `info` names the order, so that nothing opens under another
one. The request is its message. Chunks and annex come back under a secret it exports, as in RFC 9458 §4.4,
each under the nonce of its place. Hashes and signatures are over what is inside (PROTOCOL §3). The salt is
sealed too: with it a guess could be confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from marketplace.protocol import sealing
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import keccak
from marketplace.protocol.messages import Order

# No JSON begins like this, so that sealed bytes are known wherever plain ones could stand.
MAGIC: Final = b"WATT-SEALED-1\n"
_INFO: Final = b"wattline sealed job\0"
_REPLY: Final = b"wattline reply key\0"
_RESPONSE: Final = b"wattline response"
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 32
# Lengths tell of words: one token of text, with all that is around it, mostly fits one block.
BLOCK_BYTES: Final = 128
_CHUNK, _ANNEX = b"\0\0\0\1", b"\0\0\0\2"


def is_sealed(data: bytes) -> bool:
    """Whether these are sealed bytes rather than a payload or an annex."""
    return data.startswith(MAGIC)


def can_seal_to(node_key: bytes) -> bool:
    """Whether a node's key in the registry is one that requests can be sealed to."""
    try:
        BuyerSeal.of(keccak(_REPLY), node_key, b"")
    except BadRequest:
        return False
    return True


def reply_secret(key_secret: bytes, session_id: bytes, seq: int, request_hash: bytes) -> bytes:
    """Secret of an order's `replyKey`: another one for each order, and its key can always make it again."""
    return keccak(_REPLY + key_secret + session_id + seq.to_bytes(4, "big") + request_hash)


@dataclass(frozen=True, slots=True)
class Responses:
    """Chunks and annex of one order. `secret` is all a node has to keep to seal the same bytes again."""

    secret: bytes = field(repr=False)

    def seal_chunk(self, index: int, body: bytes) -> bytes:
        """A chunk as it leaves the node; the same each time."""
        return self._seal(_CHUNK, index, body)

    def open_chunk(self, index: int, data: bytes) -> bytes:
        """The chunk at this index. Raises `BadRequest` (`seal_unusable`) for any other bytes."""
        return self._open(_CHUNK, index, data)

    def seal_annex(self, annex: bytes) -> bytes:
        """An annex as it leaves the node: it names the tokens of the answer."""
        return self._seal(_ANNEX, 0, annex)

    def open_annex(self, data: bytes) -> bytes:
        """The annex. Raises as `open_chunk`."""
        return self._open(_ANNEX, 0, data)

    def _seal(self, kind: bytes, index: int, data: bytes) -> bytes:
        return MAGIC + AESGCM(self.secret).encrypt(_nonce(kind, index), _padded(data), b"")

    def _open(self, kind: bytes, index: int, data: bytes) -> bytes:
        return _unpadded(sealing.open_aead(self.secret, _nonce(kind, index), _body(data)))


@dataclass(frozen=True, slots=True)
class BuyerSeal:
    """The buyer's end: seals the request, opens what comes back. The same order, the same bytes."""

    node_key: bytes
    _context: sealing.Context = field(repr=False)

    @classmethod
    def of(cls, reply: bytes, node_key: bytes, order_hash: bytes) -> BuyerSeal:
        """Of the secret of an order's `replyKey`.

        Raises:
            BadRequest: `seal_unusable`: the node's key is none that can be sealed to.
        """
        return cls(node_key, sealing.sending(reply, node_key, _INFO + order_hash))

    def seal(self, salt: bytes, payload: bytes) -> bytes:
        """The request as it leaves the buyer; it names the key it is sealed to."""
        return MAGIC + self.node_key + self._context.seal(_padded(salt + payload))

    def open(self, data: bytes) -> tuple[bytes, bytes]:
        """Salt and payload of one's own sealed request. Raises `BadRequest` (`seal_unusable`)."""
        return _request(self._context, data)

    @property
    def responses(self) -> Responses:
        """Opens what comes back."""
        return Responses(self._context.export(_RESPONSE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a node finds in a sealed request, and what its answer is sealed with."""

    salt: bytes
    payload: bytes
    responses: Responses


def open_request(node_secret: bytes, order: Order, order_hash: bytes, data: bytes) -> Opened:
    """A sealed request, by the node it was sealed to.

    Raises:
        BadRequest: `seal_unusable`: sealed to another key, for another order, or altered.
    """
    named = node_key_of(data)
    if named != sealing.public_key(node_secret):
        raise BadRequest(ErrorCode.SEAL_UNUSABLE, "sealed to another key than this node has now")
    context = sealing.receiving(node_secret, order.reply_key, _INFO + order_hash)
    salt, payload = _request(context, data)
    return Opened(salt=salt, payload=payload, responses=Responses(context.export(_RESPONSE)))


def node_key_of(data: bytes) -> bytes:
    """The key a request is sealed to. Raises `BadRequest` (`seal_unusable`) for what is no sealed request."""
    body = _body(data)
    if len(body) < _KEY_BYTES:
        raise _unreadable()
    return body[:_KEY_BYTES]


def _request(context: sealing.Context, data: bytes) -> tuple[bytes, bytes]:
    inside = _unpadded(context.open(_body(data)[_KEY_BYTES:]))
    return inside[:_SALT_BYTES], inside[_SALT_BYTES:]


def _nonce(kind: bytes, index: int) -> bytes:
    return kind + index.to_bytes(8, "big")


def _body(data: bytes) -> bytes:
    if not is_sealed(data):
        raise _unreadable()
    return data[len(MAGIC) :]


def _padded(data: bytes) -> bytes:
    whole = len(data).to_bytes(4, "big") + data
    return whole + bytes(-len(whole) % BLOCK_BYTES)


def _unpadded(whole: bytes) -> bytes:
    length = int.from_bytes(whole[:4], "big")
    if len(whole) < 4 + length:
        raise _unreadable()
    return whole[4 : 4 + length]


def _unreadable() -> BadRequest:
    return BadRequest(ErrorCode.SEAL_UNUSABLE, "these are no sealed bytes of a job")
