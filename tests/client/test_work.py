from __future__ import annotations

import pytest

from marketplace.client.aio import AsyncWattline
from marketplace.client.gateway import Event
from marketplace.client.journal import Journal, SessionUse
from marketplace.client.problems import GatewayProblem, GatewayTrouble
from marketplace.client.verify import failures
from marketplace.protocol.errors import BadRequest, ErrorCode, ProviderFault
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.merkle import root
from marketplace.protocol.pricing import full_price_down
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket
from tests.client.fakes import DOMAIN, MODEL_ID


async def test_chat_is_verified_and_paid_by_voucher(watt: AsyncWattline, market: FakeMarket) -> None:
    result = await watt.chat("hi", model="tiny-chat", max_tokens=16)
    assert (result.text, result.finish, result.node_id) == ("Hello, world", "stop", 1)
    assert result.cost_atoms == 10 + (5 * 200_000 + 2 * 600_000) // 1_000_000 == 12
    assert (result.cost, result.currency) == ("0.000012", "TUSD")
    assert result.acknowledged
    assert all(check.ok for check in result.checks)
    (voucher,) = market.vouchers
    assert (voucher.through_seq, voucher.amount_atoms) == (1, 12)


async def test_stream_gives_text_in_pieces_then_result(watt: AsyncWattline) -> None:
    stream = await watt.chat("hi", model="tiny-chat", stream=True)
    with pytest.raises(RuntimeError, match="not ended"):
        _ = stream.result
    assert [piece async for piece in stream] == ["Hello", ", world"]
    assert stream.result.text == "Hello, world"


async def test_caller_hears_each_event_of_its_job(watt: AsyncWattline, market: FakeMarket) -> None:
    events: list[Event] = []

    async def heard(event: Event) -> None:
        events.append(event)

    market.nodes[1].behaviour = "problem node_busy"
    result = await watt.chat("hi", model="tiny-chat", heard=heard)
    names = [event.name for event in events]
    # The first node took no order; its attempt is heard of all the same.
    assert names == ["order", "order", "job", "chunk", "chunk", "chunk", "receipt"]
    assert [event.data["node_id"] for event in events[:2]] == [1, 2]
    assert events[2].data == {"job_id": result.job_id}


async def test_embeddings_come_back_as_vectors(watt: AsyncWattline) -> None:
    result = await watt.embed(["a", "b"], model="tiny-chat")
    assert result.vectors == [[1.0, 2.0], [1.0, 2.0]]


async def test_any_task_is_bought_by_name(watt: AsyncWattline, market: FakeMarket) -> None:
    body = {"input": ["I loved it"], "labels": ["bad", "good"]}
    result = await watt.ask("classify", body, model="tiny-chat")
    assert result.answer["results"][0]["label"] == "good"
    assert [row["index"] for row in result.rows] == [0]
    assert result.acknowledged
    assert failures(result.checks) == []
    ranked = await watt.ask("rerank", {"query": "q", "documents": ["a", "b"]}, model="tiny-chat")
    assert [row["index"] for row in ranked.answer["results"]] == [1, 0]


async def test_quotes_for_any_task_charge_nothing(watt: AsyncWattline, market: FakeMarket) -> None:
    quotes = await watt.quote_task("rerank", {"query": "q", "documents": ["a"]}, model="tiny-chat")
    assert {quote.units_out_ceiling for quote in quotes} == {0}
    assert market.orders == []


@pytest.mark.parametrize("task", ["classify", "sing"])
async def test_task_that_cannot_be_asked_is_refused_before_any_call(
    watt: AsyncWattline, market: FakeMarket, task: str
) -> None:
    with pytest.raises(BadRequest):
        await watt.ask(task, {"input": ["x"]}, model="tiny-chat")
    assert market.calls == []


async def test_second_job_reuses_the_session_and_voucher_covers_both(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    first = await watt.chat("hi", model="tiny-chat")
    second = await watt.chat("hi", model="tiny-chat")
    assert len(market.chain.held) == 1
    assert [order.seq for order in market.orders] == [1, 2]
    assert market.vouchers[-1].through_seq == 2
    digests = [r.bundle.receipt.digest(DOMAIN) for r in (first, second)]
    assert market.vouchers[-1].receipts_root == root(digests)


@pytest.mark.parametrize("behaviour", ["fail", "fail, told"])
async def test_signed_failure_moves_the_job_to_another_node(
    watt: AsyncWattline, market: FakeMarket, behaviour: str
) -> None:
    market.nodes[1].behaviour = behaviour
    result = await watt.chat("hi", model="tiny-chat")
    assert (result.node_id, result.attempts) == (2, 2)
    assert sum(v.amount_atoms for v in market.vouchers) == result.cost_atoms


@pytest.mark.parametrize("behaviour", ["fail", "fail, told"])
async def test_free_failure_is_a_leaf_of_the_next_voucher(
    watt: AsyncWattline, market: FakeMarket, behaviour: str
) -> None:
    market.nodes[1].behaviour = behaviour
    await watt.chat("hi", model="tiny-chat")
    market.nodes[1].behaviour = "ok"
    await watt.chat("hi", model="tiny-chat", node=1)
    assert (market.vouchers[-1].through_seq, market.vouchers[-1].amount_atoms) == (2, 12)


async def test_cancelled_job_is_not_bought_elsewhere_and_its_free_receipt_is_a_leaf(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    market.nodes[1].behaviour = "fail, cancelled"
    with pytest.raises(BadRequest) as caught:
        await watt.chat("hi", model="tiny-chat")
    assert caught.value.code is ErrorCode.CANCELLED
    assert len(market.orders) == 1
    market.nodes[1].behaviour = "ok"
    await watt.chat("hi", model="tiny-chat", node=1)
    assert (market.vouchers[-1].through_seq, market.vouchers[-1].amount_atoms) == (2, 12)


@pytest.mark.parametrize("behaviour", ["problem node_busy", "forged offer", "problem offer_expired"])
async def test_uncharged_refusal_moves_the_job_to_another_node(
    watt: AsyncWattline, market: FakeMarket, behaviour: str
) -> None:
    market.nodes[1].behaviour = behaviour
    assert (await watt.chat("hi", model="tiny-chat")).node_id == 2


@pytest.mark.parametrize("behaviour", ["overcharge", "wrong key", "other text"])
async def test_receipt_that_does_not_hold_is_never_paid(
    watt: AsyncWattline, market: FakeMarket, behaviour: str
) -> None:
    market.nodes[1].behaviour = behaviour
    with pytest.raises(ProviderFault) as caught:
        await watt.chat("hi", model="tiny-chat", node=1)
    assert caught.value.code is ErrorCode.RECEIPT_INVALID
    assert caught.value.values["bundle"]
    assert market.vouchers == []
    (session,) = watt.desk.journal.sessions(watt.desk.key.address)
    assert session.use is SessionUse.RETIRED


@pytest.mark.parametrize("behaviour", ["overcharge", "wrong key", "refuse", "lapse"])
async def test_whole_answer_that_fails_midway_is_bought_elsewhere(
    watt: AsyncWattline, market: FakeMarket, behaviour: str
) -> None:
    market.nodes[1].behaviour = behaviour
    result = await watt.chat("hi", model="tiny-chat")
    assert result.text == "Hello, world"
    assert result.node_id == 2
    assert {v.session_id for v in market.vouchers} == {result.bundle.order.session_id}


async def test_stream_that_gave_text_is_not_moved(watt: AsyncWattline, market: FakeMarket) -> None:
    market.nodes[1].behaviour = "refuse"
    stream = await watt.chat("hi", model="tiny-chat", stream=True)
    with pytest.raises(GatewayProblem) as caught:
        _ = [piece async for piece in stream]
    assert not caught.value.charged
    assert len(market.orders) == 1


async def test_dropped_connection_attaches_to_the_same_order(watt: AsyncWattline, market: FakeMarket) -> None:
    market.drop_after_chunks = 1
    result = await watt.chat("hi", model="tiny-chat")
    assert result.text == "Hello, world"
    assert len(market.orders) == 1
    assert sum(path == "/v1/jobs" for _, path, _ in market.calls) == 2


async def test_caller_fault_is_not_tried_elsewhere(watt: AsyncWattline, market: FakeMarket) -> None:
    market.nodes[1].behaviour = "problem input_too_long"
    with pytest.raises(GatewayProblem) as caught:
        await watt.chat("hi", model="tiny-chat")
    assert caught.value.code is ErrorCode.INPUT_TOO_LONG
    assert market.orders == []


async def test_last_failure_is_told_when_no_node_is_left(watt: AsyncWattline, market: FakeMarket) -> None:
    market.nodes[1].behaviour = market.nodes[2].behaviour = "problem node_busy"
    with pytest.raises(GatewayProblem) as caught:
        await watt.chat("hi", model="tiny-chat")
    assert caught.value.code is ErrorCode.NODE_BUSY


async def test_price_above_the_maximum_is_refused_before_signing(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    with pytest.raises(BadRequest) as caught:
        await watt.chat("hi", model="tiny-chat", max_cost="0.00001")
    assert caught.value.code is ErrorCode.PRICE_ABOVE_MAX
    assert market.chain.held == {}


async def test_order_reserves_the_ceiling_of_its_offer(watt: AsyncWattline, market: FakeMarket) -> None:
    (quote, _) = await watt.quote("hi", model="tiny-chat", max_tokens=16)
    await watt.chat("hi", model="tiny-chat", max_tokens=16)
    assert market.orders[0].max_amount_atoms == quote.ceiling_atoms


@pytest.mark.parametrize(("counted", "units_in"), [(3, 3), (5_000, 82)], ids=["exact", "more than bytes"])
async def test_order_follows_the_count_that_was_quoted_and_never_passes_the_bound_in_bytes(
    watt: AsyncWattline, market: FakeMarket, counted: int, units_in: int
) -> None:
    market.counted = counted
    await watt.chat("hi", model="tiny-chat", max_tokens=16)
    offer = market.nodes[1].offer()
    assert market.orders[0].max_amount_atoms == full_price_down(offer, units_in, 16)


async def test_silent_gateway_leaves_the_order_open_in_the_journal(market: FakeMarket, buyer: Signer) -> None:
    journal = Journal(":memory:")
    watt = AsyncWattline(market.desk(buyer, journal), buyer=buyer)
    market.nodes[1].behaviour = "silent"
    with pytest.raises(GatewayTrouble):
        await watt.chat("hi", model="tiny-chat", node=1, timeout_seconds=3)
    (session,) = journal.sessions(buyer.address)
    (seat,) = journal.seats(session.session_id)
    assert seat.state == "pending"
    assert market.vouchers == []


async def test_overdue_order_with_a_receipt_is_paid_by_the_next_voucher(
    market: FakeMarket, buyer: Signer
) -> None:
    watt = AsyncWattline(market.desk(buyer), buyer=buyer)
    market.nodes[1].behaviour = "silent"
    with pytest.raises(GatewayTrouble):
        await watt.chat("hi", model="tiny-chat", node=1, timeout_seconds=3)
    market.nodes[1].behaviour = "ok"
    market.clock.ms += 60_000
    await watt.chat("hi", model="tiny-chat", node=1)
    assert (market.vouchers[-1].through_seq, market.vouchers[-1].amount_atoms) == (2, 24)


async def test_overdue_order_without_a_receipt_ends_free(market: FakeMarket, buyer: Signer) -> None:
    watt = AsyncWattline(market.desk(buyer), buyer=buyer)
    market.nodes[1].behaviour = "silent"
    with pytest.raises(GatewayTrouble):
        await watt.chat("hi", model="tiny-chat", node=1, timeout_seconds=3)
    market.bundles.clear()
    market.nodes[1].behaviour = "ok"
    market.clock.ms += 60_000
    await watt.chat("hi", model="tiny-chat", node=1)
    assert (market.vouchers[-1].through_seq, market.vouchers[-1].amount_atoms) == (2, 12)


async def test_late_paid_receipt_of_an_order_given_up_is_not_paid_twice(
    market: FakeMarket, buyer: Signer
) -> None:
    watt = AsyncWattline(market.desk(buyer), buyer=buyer)
    market.nodes[1].behaviour = "lapse"
    with pytest.raises(GatewayProblem):
        await watt.chat("hi", model="tiny-chat", node=1)
    market.nodes[1].behaviour = "ok"
    result = await watt.chat("hi", model="tiny-chat", node=1)
    assert not result.acknowledged
    assert market.vouchers == []
    (session,) = watt.desk.journal.sessions(buyer.address)
    assert session.use is SessionUse.RETIRED


async def test_voucher_that_did_not_arrive_is_covered_by_the_next(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    market.check_vouchers = False
    original = market.voucher
    market.voucher = lambda body: ErrorCode.RATE_LIMITED  # type: ignore[method-assign]
    assert not (await watt.chat("hi", model="tiny-chat")).acknowledged
    market.voucher = original  # type: ignore[method-assign]
    assert (await watt.chat("hi", model="tiny-chat")).acknowledged
    assert market.vouchers[-1].through_seq == 2


async def test_gateway_that_is_down_is_named_with_a_remedy(watt: AsyncWattline, market: FakeMarket) -> None:
    market.down = True
    with pytest.raises(GatewayTrouble) as caught:
        await watt.models()
    assert "gateway.test" in caught.value.detail
    assert "watt up" in caught.value.hint


async def test_jobs_are_listed_by_a_signed_visit(watt: AsyncWattline) -> None:
    result = await watt.chat("hi", model="tiny-chat")
    assert [job["job_id"] for job in await watt.jobs()] == [result.job_id]
    assert (await watt.job(result.job_id))["phase"] == "delivered"


async def test_unknown_model_is_a_problem_with_a_hint(watt: AsyncWattline) -> None:
    with pytest.raises(GatewayProblem) as caught:
        await watt.chat("hi", model="none")
    assert caught.value.code is ErrorCode.UNKNOWN_MODEL
    assert "GET /v1/models" in caught.value.hint


async def test_bad_parameter_is_refused_before_any_call(watt: AsyncWattline, market: FakeMarket) -> None:
    with pytest.raises(BadRequest, match="max_tokens"):
        await watt.chat("hi", model="tiny-chat", max_tokens=0)
    assert market.calls == []


async def test_model_asked_for_by_its_id_is_that_model_or_nothing(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    assert (await watt.chat("hi", model=to_hex(MODEL_ID))).text
    market.names.add("0x" + "99" * 32)
    with pytest.raises(ProviderFault, match="another model"):
        await watt.chat("hi", model="0x" + "99" * 32)
    assert len(market.orders) == 1
