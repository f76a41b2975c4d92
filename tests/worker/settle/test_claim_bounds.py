"""What bounds a claim, and how sessions that go wrong leave the others alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marketplace.protocol.errors import ChainTrouble, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Open
from tests.worker.settle.fake_escrow import CHALLENGE, EXPIRES_AT, GRACE, LIMITS, ClaimBench, State
from worker.ledger import ClaimStage

FINAL_AT = EXPIRES_AT + CHALLENGE


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ClaimBench]:
    made = ClaimBench(tmp_path)
    yield made
    made.ledger.close()


def test_less_than_what_is_worth_the_gas_is_not_claimed(bench: ClaimBench) -> None:
    bench.done_job(1)
    bench.at(EXPIRES_AT)
    bench.settler = bench.make(claim_min_atoms=1_004)
    assert bench.run() == []
    bench.settler = bench.make(claim_min_atoms=0)
    assert bench.run() == []
    bench.settler = bench.make(claim_min_atoms=1_003)
    assert bench.run() == [("claim", [1])]


def test_free_stake_bounds_the_claim_and_what_is_left_out_is_told(
    bench: ClaimBench, warned: list[dict[str, Any]]
) -> None:
    for seq in (1, 2, 3):
        bench.done_job(seq)
    bench.chain.staked_atoms, bench.chain.locked_atoms = 3_108, 100
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [1, 2])]
    assert [(w["event"], w["left_out_atoms"]) for w in warned] == [("claim_short", 1_003)]
    assert "free stake" in warned[0]["reason"]


def test_stake_that_a_slash_left_below_what_is_locked_claims_nothing(bench: ClaimBench) -> None:
    bench.done_job(1)
    bench.chain.staked_atoms, bench.chain.locked_atoms = 50, 100
    bench.at(EXPIRES_AT)
    assert bench.run() == []


def test_session_money_bounds_the_claim(bench: ClaimBench, warned: list[dict[str, Any]]) -> None:
    bench.done_job(1)
    bench.done_job(2)
    bench.chain.put(bench.session_id, State(deposited_atoms=2_500, paid_atoms=500))
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [1])]
    assert "session" in warned[0]["reason"]


def test_one_claim_holds_so_many_receipts_and_no_more(
    bench: ClaimBench, warned: list[dict[str, Any]]
) -> None:
    for seq in (1, 2, 3):
        bench.done_job(seq)
    bench.settler = bench.make(claim_max_receipts=2)
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [1, 2])]
    assert [(w["reason"], w["left_out_atoms"]) for w in warned] == [
        ("one claim holds no more receipts", 1_003)
    ]
    bench.settler = bench.make(claim_max_receipts=3)
    assert bench.run() == []


def test_dearest_receipts_are_claimed_and_all_the_others_told(
    bench: ClaimBench, warned: list[dict[str, Any]]
) -> None:
    for seq in range(1, 9):
        bench.done_job(seq, units_out=8 if seq in (5, 7) else 1)
    bench.settler = bench.make(claim_max_receipts=2, claim_min_atoms=2_016)
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [5, 7])]
    assert warned[0]["left_out_atoms"] == 6 * 1_001


def test_many_receipts_of_which_one_claim_holds_too_little_are_told(
    bench: ClaimBench, warned: list[dict[str, Any]]
) -> None:
    for seq in (1, 2, 3):
        bench.done_job(seq)
    bench.settler = bench.make(claim_max_receipts=2, claim_min_atoms=2_007)
    bench.at(EXPIRES_AT)
    assert bench.run() == []
    assert warned[0]["left_out_atoms"] == 3_009


def test_largest_claim_fits_what_nodes_of_the_chain_pass_on(bench: ClaimBench) -> None:
    bench.done_job(1)
    bench.add_session(b"\x52" * 32)
    bench.done_job(1)
    bench.done_job(2)
    bench.at(EXPIRES_AT)
    bench.run()
    one, two = sorted(len(record.raw) for record in bench.ledger.transactions.newest(9))
    assert one + (LIMITS.claim_max_receipts - 1) * (two - one) < 128 * 1024 - 512


def test_stake_is_shared_by_the_sessions_of_one_run(bench: ClaimBench) -> None:
    bench.done_job(1)
    bench.add_session(b"\x52" * 32)
    bench.done_job(1)
    bench.done_job(2)
    bench.chain.staked_atoms = 2_006
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [1]), ("claim", [1])]
    assert bench.chain.locked_atoms == 2_006


def test_session_whose_terms_nobody_can_read_is_told_and_the_others_go_on(
    bench: ClaimBench, warned: list[dict[str, Any]]
) -> None:
    bench.chain.openings[bench.session_id] = None
    bench.done_job(1)
    bench.add_session(b"\x52" * 32)
    bench.done_job(7)
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [7])]
    assert "terms" in warned[0]["reason"]
    bench.run()
    assert len(warned) == 1


def test_trouble_with_one_session_keeps_neither_the_others_nor_collecting(
    bench: ClaimBench, warned: list[dict[str, Any]]
) -> None:
    first = bench.session_id
    bench.done_job(1)
    bench.add_session(b"\x52" * 32)
    bench.done_job(7)
    bench.at(EXPIRES_AT)
    bench.chain.troubles, bench.chain.earnings_atoms = {first}, 10
    bench.settler = bench.make(collect_min_atoms=10)
    assert bench.run() == [("claim", [7]), ("collect", [])]
    assert (warned[0]["event"], warned[0]["session_id"]) == ("chain_trouble", to_hex(first))
    bench.chain.troubles, bench.chain.earnings_atoms = {bench.session_id}, 0
    assert bench.run() == [("claim", [1])]
    bench.at(FINAL_AT)
    assert bench.run() == [("finalise", []), ("finalise", [])]


def test_session_whose_opening_cannot_be_searched_keeps_the_others_going(bench: ClaimBench) -> None:
    bench.chain.openings[bench.session_id] = None
    bench.done_job(1)
    hidden, searched = bench.session_id, bench.chain.terms_of
    bench.add_session(b"\x52" * 32)
    bench.done_job(7)

    def search(session_id: bytes) -> Open | None:
        if session_id == hidden:
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE)
        return searched(session_id)

    bench.chain.terms_of = search  # type: ignore[method-assign]
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [7])]


def test_claim_that_the_contract_refuses_is_tried_again_and_the_others_go_on(
    bench: ClaimBench, warned: list[dict[str, Any]]
) -> None:
    bench.done_job(1)
    bench.chain.refuses = {bench.session_id}
    bench.add_session(b"\x52" * 32)
    bench.done_job(7)
    bench.at(EXPIRES_AT)
    assert bench.run() == [("claim", [7])]
    assert "AboveFreeStake" in warned[0]["reason"]
    bench.chain.refuses = set()
    assert bench.run() == [("claim", [1])]


def test_refused_claim_ends_with_the_session(bench: ClaimBench) -> None:
    bench.done_job(1)
    bench.chain.refuses = {bench.session_id}
    bench.at(EXPIRES_AT)
    bench.run()
    assert bench.claim().stage is ClaimStage.ASKED
    bench.at(EXPIRES_AT + GRACE + 600)
    assert bench.run() == []
    assert (bench.claim().stage, bench.claim().paid_atoms) == (ClaimStage.ENDED, 0)


@pytest.mark.parametrize(("deposited_atoms", "expected"), [(2_005, []), (2_006, [("claim", [2])])])
def test_disputed_money_is_out_of_reach_of_the_next_claim(
    bench: ClaimBench, deposited_atoms: int, expected: list[Any]
) -> None:
    bench.done_job(1)
    bench.done_job(2)
    bench.chain.put(bench.session_id, State(deposited_atoms=deposited_atoms))
    bench.settler = bench.make(claim_max_receipts=1)
    bench.at(EXPIRES_AT)
    bench.run()
    bench.chain.hold(bench.session_id, 1_003)
    bench.at(EXPIRES_AT + 60)
    assert bench.run() == expected
