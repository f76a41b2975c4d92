"""Batches of vouchers on the chain, told session by session."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from marketplace.chain.codec import ChainEvent
from marketplace.protocol.batches import unpack
from marketplace.protocol.hexes import from_hex, to_hex

_WORD: Final = 32


def settled_apart(event: ChainEvent) -> list[ChainEvent]:
    """The `VoucherSettled` of each session of a `BatchSettled`; any other event as it is.

    Session ids are short: 24 bytes and eight of zero. `receiptsRoot` is the batch's. A batch may hold any
    number of vouchers of one session, each above the one before. Amounts are cumulative: the last tells all.
    """
    if event.name != "BatchSettled":
        return [event]
    newest = {voucher.short_id: voucher for voucher in unpack(from_hex(event.args["vouchers"]))}
    return [
        replace(
            event,
            name="VoucherSettled",
            part=part,
            args={
                "sessionId": to_hex(voucher.short_id.ljust(_WORD, b"\0")),
                "throughSeq": voucher.through_seq,
                "paid": voucher.amount_atoms,
                "receiptsRoot": event.args["receiptsRoot"],
            },
        )
        for part, voucher in enumerate(newest.values())
    ]
