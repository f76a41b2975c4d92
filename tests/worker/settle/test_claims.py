"""A node is paid although its buyer is gone: what it claims, when, and what becomes of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marketplace.chain.client import ClaimState
from marketplace.protocol.errors import ChainTrouble
from marketplace.protocol.messages import Open
from tests.worker.settle.fake_escrow import CHALLENGE, EXPIRES_AT, GRACE, ClaimBench, State
from tests.worker.support import place, terms_for
from worker.ledger import ClaimStage

FINAL_AT = EXPIRES_AT + CHALLENGE


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ClaimBench]:
    made = ClaimBench(tmp_path)
    yield made
    made.ledger.close()


def totals(bench: ClaimBench) -> tuple[int, int]:
    """Atoms of open receipts, and of those that a pending claim covers."""
    return bench.ledger.receipts.totals()["open_atoms"], bench.ledger.claims.covered_atoms()


def test_nothing_is_claimed_while_the_session_lasts(bench: ClaimBench) -> None:
    bench.done_job(1)
    bench.at(EXPIRES_AT - 1)
    assert bench.run() == []


def test_expired_session_pays_its_receipts_after_the_window_and_once(bench: ClaimBench) -> None:
    for seq in (1, 2, 3):
        bench.done_job(seq)
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [1, 2, 3])]
    claim = bench.claim()
    assert (claim.stage, claim.pending_atoms, claim.final_at) == (ClaimStage.PENDING, 3_009, FINAL_AT)
    assert Open.decode(claim.terms) == terms_for(bench.session_id)
    assert totals(bench) == (3_009, 3_009)
    bench.at(FINAL_AT - 1)
    assert bench.run() == []
    bench.at(FINAL_AT)
    assert bench.run() == [("finalise", [])]
    claim = bench.claim()
    assert (claim.stage, claim.paid_atoms, claim.pending_atoms, bench.paid()) == (
        ClaimStage.ENDED,
        3_009,
        0,
        3_009,
    )
    assert totals(bench) == (0, 0)
    assert bench.run() == []


def test_only_receipts_that_left_bill_and_are_owed_are_claimed(bench: ClaimBench) -> None:
    vouchered = bench.done_job(1)
    bench.vouchers.take(*bench.voucher(1, 1_003, [vouchered.digest]))
    bench.done_job(2, failed=True)
    bench.ledger.receipts.waive(bench.done_job(3).order_hash)
    bench.done_job(4, sent=False)
    bench.done_job(5)
    bench.at(EXPIRES_AT)
    assert bench.run() == [("settle", [1]), ("claim", [5])]
    assert (bench.claim().claimed_atoms, bench.claim().paid_before_atoms) == (1_003, 1_003)


def test_voucher_that_cannot_be_settled_yet_keeps_the_claim_waiting(bench: ClaimBench) -> None:
    first = bench.done_job(1)
    bench.vouchers.take(*bench.voucher(1, 1_003, [first.digest]))
    bench.done_job(2)
    bench.at(EXPIRES_AT)
    bench.ledger.vouchers.skip(bench.session_id, "not_settler", retry_at_ms=bench.clock.ms + 60_000)
    assert bench.run() == []
    bench.at(EXPIRES_AT + 60)
    assert bench.run() == [("settle", [1]), ("claim", [2])]


def test_voucher_that_pays_nothing_does_not_keep_the_claim_waiting(bench: ClaimBench) -> None:
    failed = bench.done_job(1, failed=True)
    bench.vouchers.take(*bench.voucher(1, 0, [failed.digest]))
    bench.done_job(2)
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [2])]


def test_voucher_that_adds_nothing_to_what_was_paid_does_not_keep_the_claim_waiting(
    bench: ClaimBench,
) -> None:
    paid = bench.done_job(1)
    bench.vouchers.take(*bench.voucher(1, 1_003, [paid.digest]))
    bench.settler.run(everything=True)
    failed = bench.done_job(2, failed=True)
    bench.vouchers.take(*bench.voucher(2, 1_003, [paid.digest, failed.digest]))
    bench.done_job(3)
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [3])]


def test_receipt_that_is_superseded_at_last_was_not_claimed(bench: ClaimBench) -> None:
    late = bench.done_job(1, confirmed=False)
    bench.done_job(2)
    bench.at(EXPIRES_AT + 569)
    assert bench.run() == []
    assert bench.ledger.receipts.waive(late.order_hash)
    assert bench.run() == [("claim", [2])]


def test_receipt_its_gateway_never_confirmed_is_claimed_in_time(bench: ClaimBench) -> None:
    bench.done_job(1, confirmed=False)
    bench.done_job(2)
    bench.at(EXPIRES_AT + 570)
    assert bench.run() == [("claim", [1, 2])]


def test_job_without_a_receipt_keeps_the_claim_waiting(bench: ClaimBench) -> None:
    bench.done_job(1)
    running = bench.take(2)
    bench.at(EXPIRES_AT)
    assert bench.run() == []
    bench.desk.fail(running, None, "deadline_passed")
    assert bench.run() == [("claim", [1])]


@pytest.mark.parametrize("place", ["before signing", "after signing", "after confirming"])
def test_killed_while_claiming_it_claims_once(bench: ClaimBench, place: str) -> None:
    bench.done_job(1)
    bench.at(EXPIRES_AT)
    bench.sender.dies = place
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    bench.restart()
    bench.run()
    assert bench.chain.done == [("claim", [1])]
    assert (bench.claim().stage, bench.claim().pending_atoms) == (ClaimStage.PENDING, 1_003)
    assert len(bench.ledger.transactions.newest(9)) == 1


@pytest.mark.parametrize("place", ["before signing", "after signing", "after confirming"])
def test_killed_while_finalising_it_finalises_once(bench: ClaimBench, place: str) -> None:
    bench.done_job(1)
    bench.at(EXPIRES_AT)
    bench.run()
    bench.at(FINAL_AT)
    bench.sender.dies = place
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    bench.restart()
    bench.run()
    assert bench.chain.done == [("claim", [1]), ("finalise", [])]
    assert (bench.claim().stage, bench.claim().paid_atoms, bench.paid()) == (ClaimStage.ENDED, 1_003, 1_003)
    assert totals(bench) == (0, 0)


def test_claim_that_is_not_mined_in_time_is_not_sent_twice(bench: ClaimBench) -> None:
    bench.done_job(1)
    bench.at(EXPIRES_AT)
    bench.sender.mines = False
    for _ in range(2):
        with pytest.raises(ChainTrouble):
            bench.run()
    bench.sender.mines = True
    bench.run()
    assert bench.chain.done == [("claim", [1])]


def test_late_voucher_takes_the_place_of_the_claim(bench: ClaimBench) -> None:
    digests = [bench.done_job(seq).digest for seq in (1, 2)]
    bench.at(EXPIRES_AT)
    bench.run()
    bench.vouchers.take(*bench.voucher(2, 2_006, digests))
    assert totals(bench) == (0, 0)
    assert bench.run() == [("settle", [2])]
    claim = bench.claim()
    assert (claim.stage, claim.pending_atoms, claim.paid_atoms) == (ClaimStage.ENDED, 0, 2_006)
    bench.at(FINAL_AT)
    assert bench.run() == []
    assert (bench.paid(), bench.chain.locked_atoms) == (2_006, 0)


def test_voucher_below_a_pending_claim_is_not_sent(bench: ClaimBench) -> None:
    first = bench.done_job(1)
    second = bench.done_job(2)
    bench.at(EXPIRES_AT)
    bench.run()
    bench.vouchers.take(*bench.voucher(1, 1_003, [first.digest]))
    for minute in range(1, 4):
        bench.at(EXPIRES_AT + 60 * minute)
        assert bench.run() == []
    bench.vouchers.take(*bench.voucher(2, 2_006, [first.digest, second.digest]))
    assert bench.run() == [("settle", [2])]


def test_voucher_that_comes_while_the_claim_is_made_goes_first(bench: ClaimBench) -> None:
    first = bench.done_job(1)
    bench.done_job(2)
    bench.at(EXPIRES_AT)
    bench.chain.meanwhile = lambda: bench.vouchers.take(*bench.voucher(1, 1_003, [first.digest]))
    assert bench.run() == []
    assert bench.run() == [("settle", [1]), ("claim", [2])]


def test_jobs_behind_a_late_voucher_are_claimed_anew(bench: ClaimBench) -> None:
    first = bench.done_job(1)
    bench.done_job(2)
    bench.settler = bench.make(claim_max_receipts=1)
    bench.at(EXPIRES_AT)
    bench.run()
    bench.vouchers.take(*bench.voucher(1, 1_003, [first.digest]))
    assert bench.run() == [("settle", [1]), ("claim", [2])]
    bench.at(FINAL_AT)
    bench.run()
    assert (bench.paid(), bench.claim().paid_atoms) == (2_006, 1_003)


@pytest.mark.parametrize("is_paid", [True, False])
def test_disputed_receipt_waits_for_the_court(
    bench: ClaimBench, warned: list[dict[str, Any]], is_paid: bool
) -> None:
    bench.done_job(1)
    bench.done_job(2)
    bench.at(EXPIRES_AT)
    bench.run()
    bench.chain.hold(bench.session_id, 1_003)
    bench.at(EXPIRES_AT + 60)
    bench.run()
    assert (bench.claim().pending_atoms, bench.claim().held_atoms) == (1_003, 1_003)
    assert warned[0]["event"] == "claim_held"
    bench.at(FINAL_AT)
    assert bench.run() == [("finalise", [])]
    assert (bench.claim().stage, bench.claim().paid_atoms) == (ClaimStage.HELD, 1_003)
    bench.chain.resolve(bench.session_id, 1_003, is_paid=is_paid)
    bench.at(FINAL_AT + 60)
    assert bench.run() == []
    assert (bench.claim().stage, bench.claim().paid_atoms) == (ClaimStage.ENDED, 2_006 if is_paid else 1_003)
    assert totals(bench) == (0, 0)


def test_claim_the_chain_has_and_the_ledger_forgot_is_not_made_again(
    bench: ClaimBench, warned: list[dict[str, Any]]
) -> None:
    bench.done_job(1)
    bench.chain.claims[place(bench.session_id)[0]] = ClaimState(
        pending_atoms=1_003, held_atoms=0, through_seq=1, final_at=FINAL_AT, receipts_hash=bytes(32)
    )
    bench.at(EXPIRES_AT)
    assert (bench.run(), warned) == ([], [])


def test_claim_that_somebody_else_finalised_is_noticed(bench: ClaimBench) -> None:
    bench.done_job(1)
    bench.at(EXPIRES_AT)
    bench.run()
    bench.at(FINAL_AT)
    bench.chain.finalise(bench.session_id)
    assert bench.run() == []
    assert (bench.claim().stage, bench.claim().paid_atoms) == (ClaimStage.ENDED, 1_003)


def test_claim_that_a_reorganisation_took_back_is_made_again(bench: ClaimBench) -> None:
    bench.done_job(1)
    bench.at(EXPIRES_AT)
    bench.run()
    bench.chain.claims, bench.chain.locked_atoms = {}, 0
    bench.at(EXPIRES_AT + 60)
    assert bench.run() == [("claim", [1])]
    first, second = (record.intent for record in reversed(bench.ledger.transactions.newest(9)))
    assert second == f"{first}:2"


def test_one_look_without_the_claim_does_not_end_it(bench: ClaimBench) -> None:
    bench.done_job(1)
    bench.at(EXPIRES_AT)
    bench.run()
    kept, bench.chain.claims = bench.chain.claims, {}
    bench.at(EXPIRES_AT + GRACE + 600)
    bench.run()
    assert bench.claim().stage is ClaimStage.ASKED
    bench.chain.claims = kept
    bench.at(FINAL_AT)
    assert bench.run() == [("finalise", [])]
    assert bench.paid() == 1_003


def test_closed_session_is_not_claimed_from(bench: ClaimBench) -> None:
    bench.done_job(1)
    bench.chain.put(bench.session_id, State(closed=True))
    bench.at(EXPIRES_AT)
    assert bench.run() == []
