"""Vouchers of many sessions of one key, packed for one signature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from marketplace.protocol.hexes import keccak
from marketplace.protocol.merkle import root
from marketplace.protocol.messages import Voucher, VoucherBatch

SHORT_ID_BYTES: Final = 24
PACKED_BYTES: Final = 36
_MAX_ATOMS: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedVoucher:
    """One voucher of a batch; `short_id` is the first 24 bytes of the session id."""

    short_id: bytes
    through_seq: int
    amount_atoms: int


def pack(vouchers: Sequence[Voucher]) -> bytes:
    """Packed vouchers, 36 bytes each, in the given order.

    Raises:
        ValueError: an amount of 2^64 atoms or more, which no session can hold.
    """
    return b"".join(_pack(voucher) for voucher in vouchers)


def unpack(packed: bytes) -> Iterator[PackedVoucher]:
    """Vouchers of `pack`.

    Raises:
        ValueError: not a whole number of vouchers.
    """
    if len(packed) % PACKED_BYTES:
        raise ValueError(f"packed vouchers are {PACKED_BYTES} bytes each, got {len(packed)} bytes")
    for start in range(0, len(packed), PACKED_BYTES):
        word = packed[start : start + PACKED_BYTES]
        yield PackedVoucher(
            short_id=word[:SHORT_ID_BYTES],
            through_seq=int.from_bytes(word[SHORT_ID_BYTES:28], "big"),
            amount_atoms=int.from_bytes(word[28:], "big"),
        )


def batch_of(vouchers: Sequence[Voucher]) -> VoucherBatch:
    """What the key signs for all of these: their hash, and a root over their receipt roots in order."""
    return VoucherBatch(
        vouchers_hash=keccak(pack(vouchers)),
        receipts_root=root([voucher.receipts_root for voucher in vouchers]),
    )


def _pack(voucher: Voucher) -> bytes:
    if voucher.amount_atoms > _MAX_ATOMS:
        raise ValueError(f"a session holds less than 2^64 atoms, the voucher says {voucher.amount_atoms}")
    seq, amount = voucher.through_seq.to_bytes(4, "big"), voucher.amount_atoms.to_bytes(8, "big")
    return voucher.session_id[:SHORT_ID_BYTES] + seq + amount
