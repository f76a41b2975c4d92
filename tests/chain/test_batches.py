"""Batches of vouchers as the chain tells them, packed for signing, and lists of nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.chain.batches import settled_apart
from marketplace.chain.codec import ChainEvent
from marketplace.protocol import nodelist
from marketplace.protocol.batches import batch_of, pack, unpack
from marketplace.protocol.hexes import ZERO32, keccak, to_hex
from marketplace.protocol.messages import Voucher

WORDS = st.binary(min_size=32, max_size=32)
VOUCHER = st.builds(
    Voucher,
    session_id=WORDS,
    through_seq=st.integers(0, 2**32 - 1),
    amount_atoms=st.integers(0, 2**64 - 1),
    receipts_root=WORDS,
)
VOUCHERS = st.lists(VOUCHER, max_size=6)


@given(VOUCHERS)
def test_unpacking_gives_back_what_was_packed(vouchers: list[Voucher]) -> None:
    found = [(v.short_id, v.through_seq, v.amount_atoms) for v in unpack(pack(vouchers))]
    assert found == [(v.session_id[:24], v.through_seq, v.amount_atoms) for v in vouchers]


def test_amount_that_no_session_can_hold_is_refused() -> None:
    voucher = Voucher(session_id=ZERO32, through_seq=1, amount_atoms=2**64, receipts_root=ZERO32)
    with pytest.raises(ValueError, match="less than 2\\^64"):
        pack([voucher])


def test_half_a_voucher_is_refused() -> None:
    with pytest.raises(ValueError, match="36 bytes each"):
        list(unpack(bytes(37)))


def test_batch_binds_every_voucher_and_every_root() -> None:
    one = Voucher(session_id=b"\x01" * 32, through_seq=1, amount_atoms=5, receipts_root=b"\x02" * 32)
    other = Voucher(session_id=b"\x03" * 32, through_seq=2, amount_atoms=6, receipts_root=b"\x04" * 32)
    both = batch_of([one, other])
    assert both.vouchers_hash == keccak(pack([one, other]))
    assert both != batch_of([other, one])
    assert both.receipts_root != batch_of([one]).receipts_root


@given(st.lists(VOUCHER, max_size=6, unique_by=lambda voucher: voucher.session_id[:24]), WORDS)
def test_settled_batch_is_told_session_by_session(vouchers: list[Voucher], root: bytes) -> None:
    told = settled_apart(batch(vouchers, root))
    assert [event.part for event in told] == list(range(len(vouchers)))
    assert all(event.args["sessionId"].endswith("00" * 8) for event in told)
    assert [event.args["paid"] for event in told] == [v.amount_atoms for v in vouchers]
    assert {event.name for event in told} <= {"VoucherSettled"}


def test_session_that_a_batch_repeats_is_told_once_as_its_last_voucher_says() -> None:
    repeated = [
        Voucher(session_id=b"\x01" * 32, through_seq=seq, amount_atoms=seq, receipts_root=ZERO32)
        for seq in range(1, 4_100)
    ]
    other = Voucher(session_id=b"\x02" * 32, through_seq=9, amount_atoms=5, receipts_root=ZERO32)
    told = settled_apart(batch([*repeated[:-1], other, repeated[-1]], ZERO32))
    assert [(event.part, event.args["throughSeq"]) for event in told] == [(0, 4_099), (1, 9)]


def batch(vouchers: list[Voucher], root: bytes) -> ChainEvent:
    args = {"key": "0x" + "01" * 20, "receiptsRoot": to_hex(root), "vouchers": to_hex(pack(vouchers))}
    return ChainEvent(
        name="BatchSettled",
        args=args,
        contract="Escrow",
        block_number=1,
        block_hash=ZERO32,
        tx_hash=ZERO32,
        log_index=4,
    )


@given(st.sets(st.integers(1, 2**32 - 1), min_size=1, max_size=9), st.data())
def test_proof_leads_from_each_node_of_a_list_to_its_root(nodes: set[int], data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(sorted(nodes)))
    walked, steps = keccak(keccak(chosen.to_bytes(32, "big"))), nodelist.proof(nodes, chosen)
    for start in range(0, len(steps), 32):
        walked = keccak(b"".join(sorted((walked, steps[start : start + 32]))))
    assert walked == nodelist.root(nodes)


def test_list_of_no_nodes_allows_any_and_proves_none() -> None:
    assert nodelist.root([]) == ZERO32
    with pytest.raises(ValueError, match="not on the list"):
        nodelist.proof([1, 2], 3)
