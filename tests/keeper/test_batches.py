"""However a batch is filled, its events have places in the store."""

from __future__ import annotations

from collections.abc import Iterable

from marketplace.chain.batches import settled_apart
from marketplace.chain.codec import ChainEvent
from marketplace.keeper.follow import event_fact
from marketplace.protocol.batches import pack
from marketplace.protocol.hexes import ZERO32, to_hex
from marketplace.protocol.messages import Voucher
from marketplace.store import events as chain_log
from marketplace.store.engine import Store
from marketplace.store.events import EventFact

_MANY = 4_098


def batch(log_index: int, vouchers: Iterable[tuple[int, int]]) -> list[EventFact]:
    """Facts of a batch of (session, seq)."""
    packed = pack(
        [
            Voucher(
                session_id=session.to_bytes(24, "big") + bytes(8),
                through_seq=seq,
                amount_atoms=seq,
                receipts_root=ZERO32,
            )
            for session, seq in vouchers
        ]
    )
    log = ChainEvent(
        name="BatchSettled",
        args={"key": "0x" + "01" * 20, "receiptsRoot": to_hex(ZERO32), "vouchers": to_hex(packed)},
        contract="Escrow",
        block_number=1,
        block_hash=ZERO32,
        tx_hash=ZERO32,
        log_index=log_index,
    )
    return [event_fact(event) for event in settled_apart(log)]


def test_neighbouring_batches_of_one_session_repeated_are_stored(store: Store) -> None:
    first = batch(4, [(1, seq) for seq in range(1, _MANY)])
    second = batch(5, [(1, _MANY)])
    with store.transaction() as db:
        assert chain_log.add_events(db, [*first, *second]) == [*first, *second]
    assert [fact.args["throughSeq"] for fact in [*first, *second]] == [_MANY - 1, _MANY]


def test_neighbouring_batches_of_very_many_sessions_are_stored(store: Store) -> None:
    both = [*batch(4, [(n, 1) for n in range(1, _MANY)]), *batch(5, [(n, 2) for n in range(1, _MANY)])]
    with store.transaction() as db:
        assert chain_log.add_events(db, both) == both
        assert chain_log.all_events(db) == both
