"""Every refusal, and what is kept of an order that is taken."""

import threading
from dataclasses import replace
from typing import Any

import pytest

from marketplace.protocol.errors import ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import EmbedPayload
from marketplace.protocol.wire import Signed
from tests.worker.support import DOMAIN, GATEWAY, KEY, MODEL_ID, STRANGER, Bench, State, chat_payload
from worker.ledger import OrderState
from worker.node.intake import Answer, Refusal
from worker.node.rules import MAX_SKEW_MS


def refused(bench: Bench, frame: Any, intake: Any = None) -> ErrorCode:
    """Code of the refusal; nothing may have been stored."""
    with pytest.raises(Refusal) as caught:
        (intake or bench.intake).take(frame, GATEWAY)
    assert sum(bench.ledger.orders.counts().values()) == 0
    return caught.value.code


def test_order_that_fits_is_stored_as_signed(bench: Bench) -> None:
    frame = bench.frame()
    taken = bench.intake.take(frame, GATEWAY)
    held = bench.ledger.orders.get(taken.order_hash)
    assert held is not None
    assert taken.answer is Answer.NEW
    assert (held.message, held.signature) == (frame.order.message, frame.order.signature)
    assert (held.payload, held.salt, held.trace_id) == (frame.payload, frame.salt, frame.trace_id)
    assert (held.state, held.key, held.gateway) == (OrderState.QUEUED, KEY.address, GATEWAY)
    assert held.gateway_lease_until_ms == frame.lease_until_ms


def test_intake_refuses_bytes_that_are_no_order(bench: Bench) -> None:
    frame = bench.frame()
    cut = frame.model_copy(update={"order": Signed(message=frame.order.message[:-1], signature=bytes(65))})
    with pytest.raises(Refusal) as caught:
        bench.intake.take(cut, GATEWAY)
    assert caught.value.order_hash is None
    assert caught.value.code is ErrorCode.MALFORMED_BODY


def test_intake_refuses_high_s_signature(bench: Bench) -> None:
    frame = bench.frame()
    bad = frame.model_copy(
        update={"order": Signed(message=frame.order.message, signature=b"\xff" * 64 + b"\x1b")}
    )
    assert refused(bench, bad) is ErrorCode.BAD_SIGNATURE


def test_intake_refuses_order_of_a_key_without_this_session(bench: Bench) -> None:
    assert refused(bench, bench.frame(signer=STRANGER)) is ErrorCode.UNKNOWN_SESSION


def test_intake_refuses_session_that_was_never_opened(bench: Bench) -> None:
    assert refused(bench, bench.frame(session_id=b"\x99" * 32)) is ErrorCode.UNKNOWN_SESSION


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (State(node_id=8), ErrorCode.ORDER_MISDIRECTED),
        (State(key_epoch=2), ErrorCode.ORDER_MISDIRECTED),
        (State(closed=True), ErrorCode.SESSION_EXPIRED),
        (State(expires_at=1_800_000_000), ErrorCode.SESSION_EXPIRED),
        (State(expires_at=1_800_000_060), ErrorCode.SESSION_EXPIRED),
        (State(deposited_atoms=1_999), ErrorCode.SESSION_UNDERFUNDED),
    ],
    ids=["another node", "another epoch", "closed", "over", "deadline at its end", "one atom short"],
)
def test_intake_refuses_session_that_cannot_pay(bench: Bench, state: State, code: ErrorCode) -> None:
    bench.chain.put(bench.session_id, state)
    assert refused(bench, bench.frame()) is code


def test_intake_refuses_while_the_chain_is_away(bench: Bench) -> None:
    bench.chain.down = True
    assert refused(bench, bench.frame()) is ErrorCode.CHAIN_UNAVAILABLE


def test_intake_refuses_offer_of_somebody_else(bench: Bench) -> None:
    assert refused(bench, bench.frame(offer_hash=b"\x77" * 32)) is ErrorCode.OFFER_UNKNOWN


def test_intake_refuses_offer_that_ended_before_the_order(bench: Bench) -> None:
    ended = bench.sell(valid_until=bench.clock.ms // 1000)
    assert refused(bench, bench.frame(offer_hash=ended.digest(DOMAIN))) is ErrorCode.OFFER_EXPIRED


def test_intake_refuses_model_no_longer_served(bench: Bench) -> None:
    bench.served = {}
    assert refused(bench, bench.frame()) is ErrorCode.UNKNOWN_MODEL


def test_intake_refuses_while_models_are_loading(bench: Bench) -> None:
    bench.served = None
    assert refused(bench, bench.frame()) is ErrorCode.NODE_BUSY


@pytest.mark.parametrize("skew_ms", [MAX_SKEW_MS + 1, -MAX_SKEW_MS - 1])
def test_intake_refuses_clock_skew(bench: Bench, skew_ms: int) -> None:
    assert refused(bench, bench.frame(issued_at_ms=bench.clock.ms - skew_ms)) is ErrorCode.CLOCK_SKEW


@pytest.mark.parametrize("skew_ms", [MAX_SKEW_MS, -MAX_SKEW_MS])
def test_intake_takes_order_at_the_edge_of_the_skew(bench: Bench, skew_ms: int) -> None:
    bench.take(issued_at_ms=bench.clock.ms - skew_ms)


def test_intake_refuses_order_past_its_deadline(bench: Bench) -> None:
    assert refused(bench, bench.frame(deadline_ms=bench.clock.ms)) is ErrorCode.ORDER_EXPIRED


@pytest.mark.parametrize(
    "changes", [{"deadline_ms": 1_800_000_900_001}, {"seq": 0}, {"max_amount_atoms": 1 << 63}]
)
def test_intake_refuses_absurd_terms(bench: Bench, changes: dict[str, int]) -> None:
    assert refused(bench, bench.frame(**changes)) is ErrorCode.INVALID_REQUEST


def test_intake_refuses_payload_that_was_not_signed(bench: Bench) -> None:
    frame = bench.frame().model_copy(update={"payload": b"{}"})
    assert refused(bench, frame) is ErrorCode.REQUEST_HASH_MISMATCH


def test_intake_refuses_salt_of_wrong_length(bench: Bench) -> None:
    frame = bench.frame().model_copy(update={"salt": b"\x0a" * 31})
    assert refused(bench, frame) is ErrorCode.REQUEST_HASH_MISMATCH


def test_intake_refuses_payload_that_is_none(bench: Bench) -> None:
    class Raw:
        def model_dump(self, mode: str) -> dict[str, str]:
            return {"task": "paint"}

    frame = bench.frame(payload=Raw())  # type: ignore[arg-type]
    assert refused(bench, frame) is ErrorCode.INVALID_REQUEST


def test_intake_refuses_payload_for_another_model(bench: Bench) -> None:
    frame = bench.frame(payload=chat_payload(model=to_hex(b"\x22" * 32)))
    assert refused(bench, frame) is ErrorCode.INVALID_REQUEST


def test_intake_refuses_task_the_model_does_not_do(bench: Bench) -> None:
    frame = bench.frame(payload=EmbedPayload(model=to_hex(MODEL_ID), input=("a",)))
    assert refused(bench, frame) is ErrorCode.UNSUPPORTED


def test_intake_never_works_at_a_loss(bench: Bench) -> None:
    # 1,000 a job and 8 tokens at 1 atom: the ceiling is 1,008.
    assert refused(bench, bench.frame(max_amount_atoms=1_007)) is ErrorCode.PRICE_ABOVE_MAX
    bench.take(max_amount_atoms=1_008)


def test_order_below_the_bound_in_bytes_is_taken_when_the_own_count_allows_it(bench: Bench) -> None:
    # 1,000 a job, 1 atom for each of 5 tokens in and of 8 out.
    bench.offer = bench.sell(price_in_per_million_atoms=1_000_000)
    asked: list[bytes] = []

    def count(payload: bytes) -> int | None:
        asked.append(payload)
        return 5

    intake = bench.open_intake(count)
    assert refused(bench, bench.frame(max_amount_atoms=1_012), intake) is ErrorCode.PRICE_ABOVE_MAX
    uncounted = bench.frame(2, max_amount_atoms=1_013)
    assert refused(bench, uncounted) is ErrorCode.PRICE_ABOVE_MAX, "nobody counts"
    frame = bench.frame(3, max_amount_atoms=1_013)
    assert intake.take(frame, GATEWAY).answer is Answer.NEW
    assert asked == [frame.payload] * 2
    bench.terms = replace(bench.terms, max_unfinished=20)
    assert intake.take(bench.frame(4, max_amount_atoms=1_500), GATEWAY).answer is Answer.NEW
    assert len(asked) == 2, "within the bound nobody is asked"


def test_intake_refuses_seq_used_by_another_order(bench: Bench) -> None:
    bench.take(1)
    with pytest.raises(Refusal) as caught:
        bench.take(1, max_amount_atoms=2_001)
    assert caught.value.code is ErrorCode.ORDER_REPLAYED


def test_intake_refuses_seq_a_voucher_has_ended(bench: Bench) -> None:
    receipt = bench.receipt(2)
    bench.vouchers.take(*bench.voucher(2, receipt.amount_atoms, [receipt.digest]))
    with pytest.raises(Refusal) as caught:
        bench.take(1)
    assert caught.value.code is ErrorCode.ORDER_REPLAYED


def test_intake_refuses_beyond_the_deposit_counting_orders_in_flight(bench: Bench) -> None:
    bench.chain.put(bench.session_id, State(deposited_atoms=4_000))
    bench.take(1)
    bench.take(2)
    with pytest.raises(Refusal) as caught:
        bench.take(3, max_amount_atoms=1_008)
    assert caught.value.code is ErrorCode.SESSION_UNDERFUNDED


def test_intake_counts_receipts_by_amount_and_vouchers_once(bench: Bench) -> None:
    bench.chain.put(bench.session_id, State(deposited_atoms=1_003 * 2 + 2_000))
    first, second = bench.receipt(1), bench.receipt(2)
    bench.vouchers.take(*bench.voucher(1, 1_003, [first.digest]))
    assert second.amount_atoms == 1_003
    bench.take(3)
    with pytest.raises(Refusal):
        bench.take(4, max_amount_atoms=1_008)


def test_intake_reads_the_session_again_when_it_looks_short(bench: Bench) -> None:
    bench.chain.put(bench.session_id, State(deposited_atoms=2_000))
    bench.take(1)
    bench.chain.put(bench.session_id, State(deposited_atoms=4_000))
    bench.take(2)


def test_intake_reads_a_session_from_the_chain_once_while_fresh(bench: Bench) -> None:
    for seq in range(1, 6):
        bench.take(seq)
    assert bench.chain.reads == 1


def test_intake_refuses_above_the_sessions_exposure(bench: Bench) -> None:
    intake = bench.open_intake(max_session_exposed_atoms=1_003 + 1_999)
    bench.receipt(1)
    with pytest.raises(Refusal) as caught:
        intake.take(bench.frame(2), GATEWAY)
    assert caught.value.code is ErrorCode.EXPOSURE_EXCEEDED


def test_voucher_frees_exposure(bench: Bench) -> None:
    intake = bench.open_intake(max_session_exposed_atoms=2_000)
    receipt = bench.receipt(1)
    bench.vouchers.take(*bench.voucher(1, receipt.amount_atoms, [receipt.digest]))
    intake.take(bench.frame(2), GATEWAY)


def test_intake_is_busy_above_the_nodes_exposure(bench: Bench) -> None:
    assert (
        refused(bench, bench.frame(), bench.open_intake(max_node_exposed_atoms=1_999)) is ErrorCode.NODE_BUSY
    )


def test_dead_sessions_do_not_count_as_the_nodes_exposure(bench: Bench) -> None:
    intake = bench.open_intake(max_node_exposed_atoms=2_000)
    bench.receipt(1)
    bench.clock.ms += (3_600 + 900) * 1000
    other = b"\x52" * 32
    bench.chain.put(other, State(expires_at=bench.clock.ms // 1000 + 600))
    offer = bench.sell()
    intake.take(bench.frame(1, session_id=other, offer_hash=offer.digest(DOMAIN)), GATEWAY)


def test_intake_is_busy_when_the_queue_is_full(bench: Bench) -> None:
    intake = bench.open_intake(max_unfinished=1)
    bench.take(1)
    with pytest.raises(Refusal) as caught:
        intake.take(bench.frame(2), GATEWAY)
    assert caught.value.code is ErrorCode.NODE_BUSY


def test_intake_is_busy_while_draining(bench: Bench) -> None:
    bench.intake.draining = True
    assert refused(bench, bench.frame()) is ErrorCode.NODE_BUSY


def test_same_order_again_is_known_and_its_lease_moves_on(bench: Bench) -> None:
    frame = bench.frame()
    first = bench.intake.take(frame, GATEWAY)
    bench.clock.ms += 10_000
    again = bench.intake.take(replace_lease(frame, bench.clock.ms + 90_000), GATEWAY)
    assert again.answer is Answer.KNOWN
    held = bench.ledger.orders.get(first.order_hash)
    assert held is not None
    assert held.gateway_lease_until_ms == bench.clock.ms + 90_000


def test_refused_order_stays_refused_when_circumstances_improve(bench: Bench) -> None:
    frame = bench.frame()
    bench.served = None
    assert refused(bench, frame) is ErrorCode.NODE_BUSY
    bench.served = {MODEL_ID: "chat"}
    assert refused(bench, frame) is ErrorCode.NODE_BUSY


def test_same_frame_twice_at_once_is_taken_once(bench: Bench) -> None:
    frame = bench.frame()
    answers: list[Answer] = []
    gate = threading.Barrier(4)

    def take() -> None:
        gate.wait()
        answers.append(bench.intake.take(frame, GATEWAY).answer)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [Answer.KNOWN] * 3 + [Answer.NEW]


def replace_lease(frame: Any, until_ms: int) -> Any:
    return frame.model_copy(update={"lease_until_ms": until_ms})
