"""The escrow finds a session by the beginning of its id; an id that only begins so is nobody's session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.merkle import root
from marketplace.protocol.messages import Voucher
from tests.worker.settle.fake_escrow import EXPIRES_AT, ClaimBench
from tests.worker.support import DOMAIN, GATEWAY, KEY, State, alias, terms_for
from worker.node.intake import Refusal

LAST_SEQ = (1 << 32) - 1


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ClaimBench]:
    made = ClaimBench(tmp_path)
    yield made
    made.ledger.close()


def spoiler(session_id: bytes, amount_atoms: int = 1) -> tuple[bytes, bytes]:
    """A voucher that ends every seq of the session behind an id, for next to nothing."""
    voucher = Voucher(
        session_id=session_id, through_seq=LAST_SEQ, amount_atoms=amount_atoms, receipts_root=root([])
    )
    return voucher.encode(), KEY.sign(voucher, DOMAIN)


def refused_order(bench: ClaimBench, session_id: bytes) -> None:
    with pytest.raises(Refusal, match="whole id") as caught:
        bench.intake.take(bench.frame(1, session_id=session_id), GATEWAY)
    assert caught.value.code is ErrorCode.UNKNOWN_SESSION


def refused_voucher(bench: ClaimBench, session_id: bytes) -> None:
    with pytest.raises(BadRequest, match="whole id") as caught:
        bench.vouchers.take(*spoiler(session_id))
    assert caught.value.code is ErrorCode.VOUCHER_MISMATCH


def test_voucher_under_another_ending_cannot_end_the_sessions_jobs(bench: ClaimBench) -> None:
    receipt = bench.done_job(1)
    refused_voucher(bench, alias(bench.session_id))
    bench.vouchers.take(*bench.voucher(1, 1_003, [receipt.digest]))
    bench.done_job(2)
    bench.at(EXPIRES_AT)
    assert bench.run() == [("settle", [1]), ("claim", [2])]


def test_voucher_under_another_ending_is_refused_though_it_comes_first(bench: ClaimBench) -> None:
    refused_voucher(bench, alias(bench.session_id))
    assert bench.ledger.vouchers.all() == []
    bench.done_job(1)
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [1])]


def test_other_endings_are_no_fresh_sessions_with_the_whole_deposit(bench: ClaimBench) -> None:
    for number in range(3):
        refused_order(bench, alias(bench.session_id, number))
    bench.take(1)
    for number in range(3, 6):
        refused_order(bench, alias(bench.session_id, number))
    assert sum(bench.ledger.orders.counts().values()) == 1
    assert bench.ledger.sessions.get(alias(bench.session_id)) is None


def test_whole_id_is_looked_up_once_and_other_endings_not_at_all(bench: ClaimBench) -> None:
    bench.take(1)
    bench.clock.ms += 31_000
    bench.take(2)
    refused_order(bench, alias(bench.session_id))
    assert (bench.chain.reads, bench.chain.searches) == (3, 1)


def test_terms_are_kept_for_the_claim(bench: ClaimBench) -> None:
    bench.done_job(1)
    bench.chain.openings.clear()
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [1])]
    assert bench.claim().terms == terms_for(bench.session_id).encode()


def test_session_whose_terms_a_contract_hides_is_served_and_settled(bench: ClaimBench) -> None:
    bench.session_id = b"\x52" * 32
    bench.chain.put(bench.session_id, State())
    bench.chain.openings[bench.session_id] = None
    refused_order(bench, alias(bench.session_id))
    receipt = bench.done_job(1)
    bench.vouchers.take(*bench.voucher(1, 1_003, [receipt.digest]))
    bench.at(EXPIRES_AT)
    assert bench.run() == [("settle", [1])]


def test_terms_that_appear_later_are_claimed_with(bench: ClaimBench) -> None:
    bench.chain.openings[bench.session_id] = None
    bench.done_job(1)
    bench.chain.openings[bench.session_id] = terms_for(bench.session_id)
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [1])]
