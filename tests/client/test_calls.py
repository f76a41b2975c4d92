"""One call is one order, whatever retries; and no order goes beyond a budget."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from marketplace.client.aio import AsyncWattline
from marketplace.client.asks import chat_ask
from marketplace.client.callbook import CallBook, CallState, Once
from marketplace.client.journal import Journal
from marketplace.client.problems import GatewayProblem, GatewayTrouble
from marketplace.client.results import ChatResult
from marketplace.client.work import Began, Piece
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket

ASK = chat_ask("hi", model="tiny-chat", max_tokens=16)


class Process:
    """A client on a journal of its own file; another one of the same file is the process after a restart."""

    def __init__(self, market: FakeMarket, buyer: Signer, path: Path) -> None:
        self._market, self._buyer, self._path = market, buyer, path

    def start(self) -> AsyncWattline:
        return AsyncWattline(self._market.desk(self._buyer, Journal(self._path)), buyer=self._buyer)


@pytest.fixture
def process(market: FakeMarket, buyer: Signer, tmp_path: Path) -> Process:
    return Process(market, buyer, tmp_path / "buyer.db")


@pytest.fixture
async def killed(process: Process, market: FakeMarket) -> AsyncIterator[AsyncWattline]:
    """A process after a restart; the one before was killed while a node answered its call `k`."""
    market.nodes[1].behaviour = "hang"
    before = process.start()
    stream = await before.chat("hi", model="tiny-chat", stream=True, idempotency_key="k", node=1)
    assert await anext(stream) == "Hello"
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert market.vouchers == []
    market.nodes[1].behaviour = "ok"
    async with process.start() as after:
        yield after


def paid(market: FakeMarket) -> int:
    newest = {voucher.session_id: voucher.amount_atoms for voucher in market.vouchers}
    return sum(newest.values())


async def test_same_key_is_the_same_order_and_answer(watt: AsyncWattline, market: FakeMarket) -> None:
    first = await watt.chat("hi", model="tiny-chat", idempotency_key="k")
    second = await watt.chat("hi", model="tiny-chat", idempotency_key="k")
    assert (second.text, second.receipt_id) == (first.text, first.receipt_id)
    assert (len(market.orders), paid(market)) == (1, first.cost_atoms)


async def test_without_a_key_the_same_words_are_two_calls(watt: AsyncWattline, market: FakeMarket) -> None:
    await watt.chat("hi", model="tiny-chat")
    await watt.chat("hi", model="tiny-chat")
    assert len(market.orders) == 2


async def test_same_key_for_another_call_is_refused(watt: AsyncWattline, market: FakeMarket) -> None:
    await watt.chat("hi", model="tiny-chat", idempotency_key="k")
    with pytest.raises(BadRequest) as caught:
        await watt.embed("hi", model="tiny-chat", idempotency_key="k")
    assert caught.value.code is ErrorCode.IDEMPOTENCY_MISMATCH
    assert len(market.orders) == 1


async def test_side_by_side_calls_of_one_key_are_one_order(watt: AsyncWattline, market: FakeMarket) -> None:
    calls = [watt.chat("hi", model="tiny-chat", idempotency_key="k") for _ in range(8)]
    found = await asyncio.gather(*calls)
    assert len({result.receipt_id for result in found}) == 1
    assert (len(market.orders), paid(market)) == (1, found[0].cost_atoms)
    (session,) = watt.desk.journal.sessions(watt.desk.key.address)
    assert watt.desk.journal.left_atoms(session.session_id) == session.deposited_atoms - found[0].cost_atoms


async def test_killed_process_sends_its_order_again_and_pays_once(
    killed: AsyncWattline, market: FakeMarket
) -> None:
    result = await killed.chat("hi", model="tiny-chat", idempotency_key="k", node=1)
    assert result.text == "Hello, world"
    assert (len(market.orders), paid(market)) == (1, result.cost_atoms)


async def test_unfinished_call_is_verified_and_paid_without_being_asked_for(
    killed: AsyncWattline, market: FakeMarket
) -> None:
    (call,) = killed.work.unfinished()
    _ = [item async for item in killed.work.finish(call)]
    assert (len(market.orders), paid(market)) == (1, 12)
    assert killed.work.unfinished() == []


async def test_unfinished_call_whose_node_failed_is_over(killed: AsyncWattline, market: FakeMarket) -> None:
    market.bundles.clear()
    market.nodes[1].behaviour = "fail"
    (call,) = killed.work.unfinished()
    with pytest.raises(Exception, match="Node 1"):
        _ = [item async for item in killed.work.finish(call)]
    assert killed.work.unfinished() == []


async def test_lost_answer_is_asked_for_again_with_the_same_order(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    market.answers_lost = 3
    result = await watt.chat("hi", model="tiny-chat")
    assert (result.node_id, len(market.orders), paid(market)) == (1, 1, result.cost_atoms)


async def test_gateway_that_never_tells_leaves_the_call_open_and_says_how_to_ask(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    market.answers_lost = 1_000
    with pytest.raises(GatewayTrouble) as caught:
        await watt.chat("hi", model="tiny-chat", idempotency_key="k", timeout_seconds=3)
    assert "same call again" in caught.value.hint
    market.answers_lost = 0
    market.clock.ms += 3_600_000
    result = await watt.chat("hi", model="tiny-chat", idempotency_key="k", timeout_seconds=3)
    assert (len(market.orders), paid(market)) == (1, result.cost_atoms)


async def test_order_that_never_left_is_replaced(
    watt: AsyncWattline, market: FakeMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(watt.desk.gateway, "events", killed)
        with pytest.raises(SystemExit):
            await watt.chat("hi", model="tiny-chat", idempotency_key="k")
    market.clock.ms += 10_000
    result = await watt.chat("hi", model="tiny-chat", idempotency_key="k")
    assert (result.node_id, result.bundle.order.seq) == (1, 2)
    assert (len(market.orders), paid(market)) == (1, 12)


async def test_call_that_failed_without_cost_begins_anew(watt: AsyncWattline, market: FakeMarket) -> None:
    market.nodes[1].behaviour = market.nodes[2].behaviour = "fail"
    with pytest.raises(Exception, match="Node 2"):
        await watt.chat("hi", model="tiny-chat", idempotency_key="k")
    market.nodes[1].behaviour = "ok"
    result = await watt.chat("hi", model="tiny-chat", idempotency_key="k")
    assert (len(market.orders), paid(market)) == (3, result.cost_atoms)


async def test_receipt_that_does_not_hold_is_not_asked_for_twice(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    market.nodes[1].behaviour = "overcharge"
    result = await watt.chat("hi", model="tiny-chat", idempotency_key="k")
    assert result.node_id == 2
    again = await watt.chat("hi", model="tiny-chat", idempotency_key="k")
    assert (again.receipt_id, len(market.orders)) == (result.receipt_id, 2)


async def test_paid_answer_that_is_gone_is_not_bought_again(watt: AsyncWattline, market: FakeMarket) -> None:
    await watt.chat("hi", model="tiny-chat", idempotency_key="k")
    market.orders.clear()
    market.clock.ms += 60_000
    with pytest.raises(GatewayProblem) as caught:
        await watt.chat("hi", model="tiny-chat", idempotency_key="k")
    assert (caught.value.code, caught.value.charged) == (ErrorCode.UNKNOWN_JOB, True)
    assert market.orders == []


async def test_job_is_named_before_its_text_and_again_when_it_is_known(watt: AsyncWattline) -> None:
    def run() -> AsyncIterator[object]:
        return watt.work.run(ASK, once=Once(fingerprint="f", name="k"))

    first, second, *_ = [item async for item in run()]
    assert first == Began(job_id="job_1", node_id=1, again=False)
    assert second == Piece(text="Hello")
    again, *_ = [item async for item in run()]
    assert again == Began(job_id="job_1", node_id=1, again=True)


# ------------------------------------------------------------------------------------------------ the book


def book(tmp_path: Path) -> CallBook:
    return CallBook(Journal(tmp_path / "b.db"), "0xKEY")


def test_repeat_without_a_name_is_the_newest_same_call_of_ten_minutes(tmp_path: Path) -> None:
    calls = book(tmp_path)
    first = calls.begin(Once(fingerprint="a"), 0)
    second = calls.begin(Once(fingerprint="a"), 1)
    assert first.call_id != second.call_id
    assert calls.begin(Once(fingerprint="a", repeated=True), 600_000).call_id == second.call_id
    assert not calls.begin(Once(fingerprint="a", repeated=True), 600_002).again
    assert not calls.begin(Once(fingerprint="b", repeated=True), 2).again


def test_repeat_of_a_failed_call_is_a_new_one(tmp_path: Path) -> None:
    calls = book(tmp_path)
    failed = calls.begin(Once(fingerprint="a"), 0)
    calls.end(failed, CallState.FAILED)
    assert not calls.begin(Once(fingerprint="a", repeated=True), 1).again


def test_delivered_call_stays_delivered(tmp_path: Path) -> None:
    calls = book(tmp_path)
    call = calls.begin(Once(fingerprint="a", name="k"), 0)
    calls.end(call, CallState.DELIVERED)
    calls.end(call, CallState.FAILED)
    assert calls.begin(Once(fingerprint="a", name="k"), 1).state is CallState.DELIVERED


def test_name_is_free_again_after_a_day(tmp_path: Path) -> None:
    calls = book(tmp_path)
    calls.begin(Once(fingerprint="a", name="k"), 0)
    assert not calls.begin(Once(fingerprint="b", name="k"), 24 * 3_600_000 + 1).again


async def test_what_was_asked_is_forgotten_after_a_day_and_its_cost_is_not(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    await watt.set_budget("0.01")
    await watt.chat("a secret", model="tiny-chat", idempotency_key="k")
    market.clock.ms += 24 * 3_600_000 + 1
    calls = CallBook(watt.desk.journal, watt.desk.key.address)
    calls.begin(Once(fingerprint="x"), market.clock.ms)
    assert [row["placed"] for row in watt.desk.journal.rows("SELECT placed FROM placed")] == [None]
    assert (await watt.spending()).spent_atoms == 12


# ----------------------------------------------------------------------------------------------- the budget


async def test_budget_is_what_all_jobs_may_cost_and_counts_what_they_did(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    spending = await watt.set_budget("0.000060")
    assert (spending.limit_atoms, spending.spent_atoms, spending.left_atoms) == (60, 0, 60)
    for spent in (12, 24, 36):
        await watt.chat("hi", model="tiny-chat", max_tokens=16)
        assert (await watt.spending()).spent_atoms == spent
    with pytest.raises(BadRequest) as caught:
        await watt.chat("hi", model="tiny-chat", max_tokens=16)
    assert caught.value.code is ErrorCode.BUDGET_EXCEEDED
    assert caught.value.values["left_atoms"] == 24
    assert len(market.orders) == 3


async def test_budget_goes_on_after_a_restart_and_rises_only_when_told(process: Process) -> None:
    async with process.start() as before:
        await before.set_budget("0.000040")
        await before.chat("hi", model="tiny-chat", max_tokens=16)
    async with process.start() as after:
        assert (await after.set_budget("0.000040")).left_atoms == 28
        with pytest.raises(BadRequest):
            await after.chat("hi", model="tiny-chat", max_tokens=64)
        await after.set_budget("0.0001")
        await after.chat("hi", model="tiny-chat", max_tokens=16)


async def test_order_whose_end_is_not_known_counts_with_its_ceiling(
    killed: AsyncWattline, process: Process, market: FakeMarket, buyer: Signer
) -> None:
    await killed.set_budget("0.01")
    market.nodes[1].behaviour = "silent"
    with pytest.raises(GatewayTrouble):
        await killed.chat("ho", model="tiny-chat", max_tokens=16, timeout_seconds=3, node=1)
    assert (await killed.spending()).spent_atoms == market.orders[-1].max_amount_atoms


async def test_job_that_failed_costs_the_budget_nothing(watt: AsyncWattline, market: FakeMarket) -> None:
    await watt.set_budget("0.01")
    market.nodes[1].behaviour = market.nodes[2].behaviour = "fail"
    with pytest.raises(Exception, match="Node 2"):
        await watt.chat("hi", model="tiny-chat")
    assert (await watt.spending()).spent_atoms == 0


async def test_too_small_a_budget_opens_no_session(watt: AsyncWattline, market: FakeMarket) -> None:
    await watt.set_budget("0.000001")
    with pytest.raises(BadRequest) as caught:
        await watt.chat("hi", model="tiny-chat")
    assert caught.value.code is ErrorCode.BUDGET_EXCEEDED
    assert market.chain.held == {}


async def test_orders_placed_at_once_do_not_pass_the_budget_together(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    await watt.set_budget("0.000060")
    market.nodes[1].behaviour = market.nodes[2].behaviour = "hang"
    call = partial(watt.chat, "hi", model="tiny-chat", max_tokens=16)
    open_calls = {asyncio.ensure_future(call()) for _ in range(6)}
    refused: set[asyncio.Future[ChatResult]] = set()
    while len(open_calls) > 1:
        ended, open_calls = await asyncio.wait(open_calls, return_when=asyncio.FIRST_COMPLETED)
        refused |= ended
    assert {type(task.exception()) for task in refused} == {BadRequest}
    assert (await watt.spending()).spent_atoms == market.orders[0].max_amount_atoms <= 60
    market.held.set()
    await asyncio.gather(*open_calls)
    (session,) = watt.desk.journal.sessions(watt.desk.key.address)
    assert watt.desk.journal.left_atoms(session.session_id) == session.deposited_atoms - 12
    assert len(market.orders) == 1


async def test_names_keep_budgets_apart(watt: AsyncWattline) -> None:
    await watt.set_budget("0.01", name="one")
    await watt.chat("hi", model="tiny-chat")
    assert (await watt.set_budget("0.01", name="two")).spent_atoms == 0
    assert CallBook(watt.desk.journal, watt.desk.key.address).spent_atoms("one") == 12


async def test_without_a_budget_nothing_is_counted(watt: AsyncWattline) -> None:
    await watt.chat("hi", model="tiny-chat")
    spending = await watt.spending()
    assert (spending.limit_atoms, spending.spent_atoms, spending.left_atoms) == (None, 0, None)
    assert watt.desk.journal.rows("SELECT * FROM placed") == []
