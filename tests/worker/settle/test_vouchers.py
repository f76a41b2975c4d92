"""Which vouchers a node takes."""

import pytest

from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from tests.worker.support import KEY, START_MS, STRANGER, Bench, State


def mismatch(bench: Bench, message: bytes, signature: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says) as caught:
        bench.vouchers.take(message, signature)
    assert caught.value.code is ErrorCode.VOUCHER_MISMATCH


def test_voucher_over_all_receipts_is_taken(bench: Bench) -> None:
    first, second = bench.receipt(1), bench.receipt(2, failed=True)
    message, signature = bench.voucher(2, 1_003, [first.digest, second.digest])
    bench.vouchers.take(message, signature, ["a" * 32])
    held = bench.ledger.vouchers.get(bench.session_id)
    assert held is not None
    assert (held.message, held.signature, held.through_seq) == (message, signature, 2)
    assert (held.amount_atoms, held.owed_atoms, held.key) == (1_003, 1_003, KEY.address)
    assert held.trace_ids == "a" * 32
    assert bench.ledger.receipts.totals()["open"] == 0


def test_voucher_one_atom_short_is_refused(bench: Bench) -> None:
    receipt = bench.receipt(1)
    mismatch(bench, *bench.voucher(1, 1_002, [receipt.digest]), says="below 1003")


def test_voucher_above_the_sum_is_taken_and_the_next_may_not_fall(bench: Bench) -> None:
    first = bench.receipt(1)
    bench.vouchers.take(*bench.voucher(1, 1_500, [first.digest]))
    second = bench.receipt(2, failed=True)
    both = [first.digest, second.digest]
    mismatch(bench, *bench.voucher(2, 1_499, both), says="below 1500")
    bench.vouchers.take(*bench.voucher(2, 1_500, both))


def test_voucher_above_the_deposit_is_refused_until_topped_up(bench: Bench) -> None:
    receipt = bench.receipt(1)
    over = bench.voucher(1, 1_000_001, [receipt.digest])
    mismatch(bench, *over, says="above the deposit")
    bench.chain.put(bench.session_id, State(deposited_atoms=1_000_001))
    bench.vouchers.take(*over)


def test_voucher_by_another_key_is_refused(bench: Bench) -> None:
    receipt = bench.receipt(1)
    mismatch(bench, *bench.voucher(1, 1_003, [receipt.digest], signer=STRANGER), says="no session")


def test_voucher_with_a_broken_signature_is_refused(bench: Bench) -> None:
    message, _ = bench.voucher(1, 0, [])
    mismatch(bench, message, bytes(65), says="signature")


def test_voucher_of_another_nodes_session_is_refused(bench: Bench) -> None:
    bench.chain.put(bench.session_id, State(node_id=8))
    mismatch(bench, *bench.voucher(1, 0, []), says="node 8")


def test_voucher_whose_seq_falls_is_refused(bench: Bench) -> None:
    first, second = bench.receipt(1), bench.receipt(2)
    bench.vouchers.take(*bench.voucher(2, 2_006, [first.digest, second.digest]))
    mismatch(bench, *bench.voucher(1, 2_006, [first.digest]), says="seq 1 is below 2")


def test_voucher_over_a_job_that_still_runs_is_refused(bench: Bench) -> None:
    first = bench.receipt(1)
    bench.take(2)
    mismatch(bench, *bench.voucher(2, 1_003, [first.digest]), says="seq 2 has not ended")


def test_voucher_over_seqs_the_node_never_saw_is_taken(bench: Bench) -> None:
    receipt = bench.receipt(3)
    bench.vouchers.take(*bench.voucher(5, 1_003, [receipt.digest]))


@pytest.mark.parametrize("root_over", ["none", "swapped", "without the failed one"])
def test_voucher_with_another_root_is_refused(bench: Bench, root_over: str) -> None:
    first, second = bench.receipt(1), bench.receipt(2, failed=True)
    digests = {
        "none": [],
        "swapped": [second.digest, first.digest],
        "without the failed one": [first.digest],
    }
    mismatch(bench, *bench.voucher(2, 1_003, digests[root_over]), says="root")


def test_root_follows_seq_and_not_the_order_of_finishing(bench: Bench) -> None:
    hashes = [bench.take(seq) for seq in (1, 2, 3)]
    late = [bench.desk.sign(order_hash, None, bench.work()) for order_hash in reversed(hashes)]
    by_seq = [receipt.digest for receipt in reversed(late)]
    bench.vouchers.take(*bench.voucher(3, 3_009, by_seq))


def test_tree_grows_over_many_vouchers_like_one_over_all(bench: Bench) -> None:
    digests: list[bytes] = []
    for seq in range(1, 8):
        digests.append(bench.receipt(seq).digest)
        bench.vouchers.take(*bench.voucher(seq, 1_003 * seq, digests))
    held = bench.ledger.vouchers.get(bench.session_id)
    assert held is not None
    assert (held.leaves, held.amount_atoms) == (7, 7_021)


def test_waived_receipt_is_neither_owed_nor_in_the_root(bench: Bench) -> None:
    first, second = bench.receipt(1), bench.receipt(2)
    assert bench.ledger.receipts.waive(second.order_hash)
    bench.vouchers.take(*bench.voucher(2, 1_003, [first.digest]))


def test_vouchered_receipt_can_no_longer_be_waived(bench: Bench) -> None:
    receipt = bench.receipt(1)
    bench.vouchers.take(*bench.voucher(1, 1_003, [receipt.digest]))
    assert not bench.ledger.receipts.waive(receipt.order_hash)


def test_same_voucher_again_changes_nothing(bench: Bench) -> None:
    receipt = bench.receipt(1)
    voucher = bench.voucher(1, 1_003, [receipt.digest])
    bench.vouchers.take(*voucher, ["a" * 32])
    before = bench.ledger.vouchers.get(bench.session_id)
    bench.clock.ms += 1_000
    bench.vouchers.take(*voucher, ["a" * 32])
    assert bench.ledger.vouchers.get(bench.session_id) == before


def test_newer_voucher_keeps_the_age_and_traces_of_what_waits(bench: Bench) -> None:
    first = bench.receipt(1)
    bench.vouchers.take(*bench.voucher(1, 1_003, [first.digest]), ["a" * 32])
    bench.clock.ms += 1_000
    second = bench.receipt(2)
    bench.vouchers.take(*bench.voucher(2, 2_006, [first.digest, second.digest]), ["b" * 32])
    held = bench.ledger.vouchers.get(bench.session_id)
    assert held is not None
    assert held.held_since_ms == START_MS
    assert held.trace_ids == f"{'a' * 32},{'b' * 32}"


def test_bytes_that_are_no_voucher_are_refused(bench: Bench) -> None:
    with pytest.raises(BadRequest) as caught:
        bench.vouchers.take(b"\x00" * 31, bytes(65))
    assert caught.value.code is ErrorCode.MALFORMED_BODY


def test_voucher_of_an_unknown_session_waits_for_the_chain(bench: Bench) -> None:
    bench.chain.down = True
    with pytest.raises(ChainTrouble):
        bench.vouchers.take(*bench.voucher(1, 0, []))
