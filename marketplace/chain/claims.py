"""Jobs a node claims, found in the transaction that claimed them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from marketplace.chain.calls import SignedJob
from marketplace.protocol.eip712 import WORD, Domain
from marketplace.protocol.messages import Order, Receipt
from marketplace.protocol.signing import BadSignature, expanded, signer_of

# How Solidity's `SignedReceipt` begins: order, offset of its signature, receipt, offset of its signature.
_ORDER_WORDS: Final = 8
_RECEIPT_AT: Final = 9
_RECEIPT_WORDS: Final = 10
_HEAD_WORDS: Final = 20
_SHORT_BYTES: Final = 64
_LONG_BYTES: Final = 65


def jobs_in(
    data: bytes, digests: Sequence[bytes], *, session_id: bytes, node_key: str, domain: Domain
) -> list[SignedJob]:
    """Those of a claim's receipts that are among the bytes of its transaction, in the order of `digests`.

    They are looked for and not decoded, as `terms_in` does it and for its reasons. What is found is what was
    claimed: its digest is in the event `Claimed`, and the node's key of the session's epoch signed it.
    """
    found: dict[bytes, SignedJob] = {}
    at = data.find(session_id)
    while at >= 0:
        job = _read(data, at)
        if job is not None and _fits(job, node_key, domain):
            found.setdefault(job.receipt.digest(domain), job)
        at = data.find(session_id, at + 1)
    return [found[digest] for digest in digests if digest in found]


def _read(data: bytes, at: int) -> SignedJob | None:
    """What Solidity would read as a `SignedReceipt` at this byte."""
    order, receipt = _words(data, at, 0, _ORDER_WORDS), _words(data, at, _RECEIPT_AT, _RECEIPT_WORDS)
    try:
        return SignedJob(
            order=Order.decode(order),
            order_signature=_signature(data, at, _RECEIPT_AT - 1),
            receipt=Receipt.decode(receipt),
            receipt_signature=_signature(data, at, _HEAD_WORDS - 1),
        )
    except ValueError:
        # The session's id stands in other places, too.
        return None


def _words(data: bytes, at: int, first: int, count: int) -> bytes:
    return data[at + WORD * first : at + WORD * (first + count)]


def _signature(data: bytes, at: int, word: int) -> bytes:
    # Signed, because Solidity takes offsets that point back.
    start = at + int.from_bytes(_words(data, at, word, 1), "big", signed=True)
    if start < 0:
        return b""
    length = int.from_bytes(_words(data, start, 0, 1), "big")
    return data[start + WORD : start + WORD + min(length, _LONG_BYTES + 1)]


def _fits(job: SignedJob, node_key: str, domain: Domain) -> bool:
    """Whether the node signed it, for this very order; somebody may have put look-alikes before it."""
    signature = job.receipt_signature
    if len(signature) == _SHORT_BYTES:
        signature = expanded(signature)
    try:
        signer = signer_of(job.receipt, domain, signature)
    except BadSignature:
        return False
    return signer == node_key and job.receipt.order_hash == job.order.digest(domain)
