"""Who gets a share of something: decided by a hash, so that everyone who asks twice hears the same."""

from __future__ import annotations

from typing import Final

from marketplace.protocol.hexes import keccak

WHOLE_BPS: Final = 10_000
_BYTES: Final = 8


def draws(ticket: bytes, share_bps: int) -> bool:
    """Whether a ticket is in a share of `share_bps` of 10,000; a larger share keeps all of a smaller one.

    A ticket is anything that names one asking; its first 64 hashed bits decide, biased by less than 2^-50.
    """
    drawn = int.from_bytes(keccak(b"share" + ticket)[:_BYTES], "big")
    return drawn % WHOLE_BPS < share_bps
