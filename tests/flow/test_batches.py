"""Batches end to end over a fake node: every line once, one voucher, whatever breaks in between."""

from __future__ import annotations

import contextlib

import pytest
from sqlmodel import delete, select, update

from marketplace.client.verify import failures, verify_receipt
from marketplace.keeper.batches import BatchRunner
from marketplace.protocol import wire
from marketplace.protocol.errors import Broken
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Order
from marketplace.protocol.payloads import ChatPayload, parse_payload
from marketplace.settlement import step as settlement
from marketplace.store import batches, events
from marketplace.store.tables import JobRow, ReceiptRow
from tests.batches.support import (
    COST,
    EMBED,
    chat_line,
    client_of,
    embed_line,
    finished,
    lines_of,
    started,
    turn,
)
from tests.flow.gateway import CHAT_MODEL, DOMAIN, Clock, gateway
from tests.flow.node import Node, bearer, chat_body, funded, voucher_of
from tests.keeper.market import Cut, PowerCutError
from tests.registry.histories import event


def all_jobs(g):
    with g.store.reading() as tx:
        return list(tx.exec(select(JobRow)))


def counts(batch):
    return batch.status, batch.request_counts.completed, batch.request_counts.failed


def asked_of(frame):
    payload = parse_payload(frame.payload)
    assert isinstance(payload, ChatPayload)
    return payload.messages[-1].content


async def test_twenty_lines_on_one_node_end_in_one_voucher_and_one_settlement(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        client, runner, node = client_of(g, secret), BatchRunner(g.market), nodes[1]
        batch = await started(client, [chat_line(i, f"text {i}") for i in range(20)])
        assert (batch.status, batch.request_counts.total) == ("validating", 20)
        done = await finished(client, batch.id, runner, [node])
        assert counts(done) == ("completed", 20, 0)
        assert done.error_file_id is None
        assert done.usage.model_extra["cost_details"]["atoms"] == str(20 * COST)
        assert (done.usage.input_tokens, done.usage.output_tokens) == (100, 40)
        lines = await lines_of(client, done.output_file_id)
        assert [line["custom_id"] for line in lines] == [f"call-{i}" for i in range(20)]
        bodies = [line["response"]["body"] for line in lines]
        assert {body["choices"][0]["message"]["content"] for body in bodies} == {"Hello world"}
        wrong = {check.name for body in bodies for check in failures(verify_receipt(body["receipt"]))}
        assert wrong <= {"seed"}  # the fake node makes none
        assert sum(int(body["usage"]["cost_details"]["atoms"]) for body in bodies) == 20 * COST

        vouchers = [voucher_of(f)[0] for f in node.frames if isinstance(f, wire.VoucherFrame)]
        last = max(vouchers, key=lambda voucher: voucher.through_seq)
        assert (last.through_seq, last.amount_atoms) == (20, 20 * COST)
        session_id = opened[1]
        assert (g.session(session_id).owed_atoms, g.session(session_id).reserved_atoms) == (20 * COST, 0)
        # The chain pays this one voucher, and with it every line.
        args = {
            "sessionId": session_id,
            "throughSeq": 20,
            "paid": 20 * COST,
            "receiptsRoot": "0x" + "00" * 32,
        }
        paid = event("VoucherSettled", 2, tx=7, **args)
        with g.store.transaction() as tx:
            events.add_events(tx, [paid])
            settlement.on_settled(DOMAIN, tx, session_id, 0)
        assert {(job.phase, job.settled_tx) for job in all_jobs(g)} == {("settled", paid.tx_hash)}


async def test_line_has_the_body_that_the_same_call_gets(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client, runner = client_of(g, secret), BatchRunner(g.market)
        called = (await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))).json()
        done = await finished(client, (await started(client, [chat_line(1)])).id, runner, [nodes[1]])
        (line,) = await lines_of(client, done.output_file_id)
        body = line["response"]["body"]
        assert body.keys() == called.keys()
        assert body["receipt"].keys() == called["receipt"].keys()
        assert (body["choices"], body["usage"]) == (called["choices"], called["usage"])
        assert (line["response"]["status_code"], line["error"]) == (200, None)


async def test_embeddings_come_back_as_the_client_asked(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client, runner = client_of(g, secret), BatchRunner(g.market)
        lines = [embed_line(1, "one", "two"), embed_line(2, "three", encoding_format="base64")]
        batch = await started(client, lines, endpoint=EMBED)
        done = await finished(client, batch.id, runner, [nodes[1]])
        first, second = await lines_of(client, done.output_file_id)
        assert [row["embedding"] for row in first["response"]["body"]["data"]] == [[1, 0, 0.5], [1, 1, 0.5]]
        assert isinstance(second["response"]["body"]["data"][0]["embedding"], str)


# A cut between placing and noting, first line and later; and one between reading an answer and keeping it.
@pytest.mark.parametrize(("at", "point"), [(0, "batch.placed"), (3, "batch.placed"), (6, "batch.read")])
async def test_gateway_that_dies_does_no_line_twice_and_loses_none(tmp_path, at, point):
    clock, cut, seen = Clock(), Cut(at), []

    async def note(node, frame):
        seen.append(asked_of(frame))
        await node.work(frame)

    async with gateway(tmp_path, clock=clock) as g:
        secret, address = await g.new_key()
        signer, session_id = g.put_node(1), g.put_session(address, 1)
        client = client_of(g, secret)
        async with Node(g, 1, signer, note) as node:
            batch = await started(client, [chat_line(i, f"text {i}") for i in range(6)])
            with pytest.raises(PowerCutError, match=point):
                await finished(client, batch.id, BatchRunner(g.market, probe=cut), [node])
            await node.calm()
    async with gateway(tmp_path, clock=clock) as g, Node(g, 1, signer, note) as node:
        client = client_of(g, secret)
        done = await finished(client, batch.id, BatchRunner(g.market), [node])
        assert (done.status, done.request_counts.completed) == ("completed", 6)
        assert len(await lines_of(client, done.output_file_id)) == 6
        assert sorted(seen) == [f"text {i}" for i in range(6)]
        assert len(all_jobs(g)) == 6
        assert done.usage.model_extra["cost_details"]["atoms"] == str(6 * COST)
        assert g.session(session_id).owed_atoms == 6 * COST


async def test_failed_line_goes_to_the_error_file_uncharged_and_after_three_tries(tmp_path):
    tried = []

    async def fickle(node, frame):
        if asked_of(frame) == "bad":
            tried.append(frame.job_id)
            await node.fail(frame)
        else:
            await node.work(frame)

    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: fickle}) as (secret, nodes, opened):
        client, runner = client_of(g, secret), BatchRunner(g.market)
        batch = await started(client, [chat_line(1, "good"), chat_line(2, "bad"), chat_line(3, "good")])
        done = await finished(client, batch.id, runner, [nodes[1]])
        assert counts(done) == ("completed", 2, 1)
        (line,) = await lines_of(client, done.error_file_id)
        assert (line["custom_id"], line["error"]["charged"]) == ("call-2", False)
        body = line["response"]["body"]
        assert (line["response"]["status_code"], body["charged"]) == (body["status"], False)
        assert body["code"] in ("node_failed", "no_node")
        assert len(set(tried)) == 3
        assert g.session(opened[1]).owed_atoms == 2 * COST
        assert len(await lines_of(client, done.output_file_id)) == 2
        shown = g.market.metrics.render().decode()
        assert 'watt_batch_lines_total{end="completed"} 2.0' in shown
        assert 'watt_batch_lines_total{end="failed"} 1.0' in shown


async def test_node_failure_that_passes_costs_nothing_and_loses_nothing(tmp_path):
    failed = set()

    async def once(node, frame):
        first = asked_of(frame) not in failed
        failed.add(asked_of(frame))
        await (node.fail(frame) if first else node.work(frame))

    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: once}) as (secret, nodes, opened):
        client, runner = client_of(g, secret), BatchRunner(g.market)
        batch = await started(client, [chat_line(i, f"text {i}") for i in range(3)])
        done = await finished(client, batch.id, runner, [nodes[1]])
        assert (done.request_counts.completed, done.request_counts.failed) == (3, 0)
        assert g.session(opened[1]).owed_atoms == 3 * COST


async def test_lines_wait_while_no_node_is_there_and_go_on_when_one_is(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client, runner, node = client_of(g, secret), BatchRunner(g.market), nodes[1]
        batch = await started(client, [chat_line(1), chat_line(2)])
        await node.leave()
        for _ in range(3):
            await runner.step()
        waits = await client.batches.retrieve(batch.id)
        assert waits.status == "in_progress"
        assert waits.model_extra["waiting_for"].startswith("no_node: ")
        assert all_jobs(g) == []
        await node.join()
        done = await finished(client, batch.id, runner, [node])
        assert (done.request_counts.completed, done.model_extra["waiting_for"]) == (2, None)


async def test_busy_nodes_are_asked_again_ever_more_slowly(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.refuse}) as (secret, nodes, opened):
        client, runner, node = client_of(g, secret), BatchRunner(g.market), nodes[1]
        batch = await started(client, [chat_line(1)])
        placed = []
        for _ in range(8):
            for _ in range(4):
                await turn(runner, [node])
            placed.append(len(all_jobs(g)))
            g.clock.now_ms += 1_000
        # After 1 s, 2 s and 4 s of pause, never in between.
        assert placed == [1, 2, 2, 3, 3, 3, 3, 4]
        busy = await client.batches.retrieve(batch.id)
        assert busy.model_extra["waiting_for"].startswith("node_busy: ")
        node.behaviour = Node.work
        g.clock.now_ms += 60_000
        await node.calm()
        done = await finished(client, batch.id, runner, [node])
        assert done.request_counts.completed == 1
        assert g.session(opened[1]).owed_atoms == COST


async def test_model_that_nobody_can_run_now_does_not_hold_up_the_others(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, 2) as (secret, nodes, _):
        client, runner = client_of(g, secret), BatchRunner(g.market, in_flight=2)
        away = [chat_line(i, "away", node=2, model="tiny") for i in range(4)]
        here = [chat_line(10 + i, "here", node=1, model=to_hex(CHAT_MODEL)) for i in range(4)]
        await nodes[2].leave()
        batch = await started(client, away + here)
        for _ in range(12):
            await turn(runner, [nodes[1]])
        half = await client.batches.retrieve(batch.id)
        assert (half.status, half.request_counts.completed) == ("in_progress", 4)
        await nodes[2].join()
        done = await finished(client, batch.id, runner, [nodes[1], nodes[2]])
        assert done.request_counts.completed == 8


async def test_no_more_jobs_run_at_a_time_than_allowed_over_all_batches(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        client, runner, node = client_of(g, secret), BatchRunner(g.market, in_flight=4), nodes[1]
        for start in (0, 100):
            await started(client, [chat_line(start + i) for i in range(6)])
        for _ in range(5):
            await turn(runner, [node])
        assert node.orders.qsize() == 4
        with g.store.reading() as tx:
            assert sorted(batches.in_flight(tx).values()) == [2, 2]


async def test_cancelled_batch_stops_its_jobs_and_pays_what_was_delivered(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, opened):
        client, runner, node = client_of(g, secret), BatchRunner(g.market, in_flight=2), nodes[1]
        batch = await started(client, [chat_line(i, f"text {i}") for i in range(5)])
        for _ in range(2):
            await turn(runner, [node])
        asked = await client.batches.cancel(batch.id)
        assert (asked.status, asked.cancelling_at is None) == ("cancelling", False)
        await turn(runner, [node])
        first, second = [await node.orders.get() for _ in range(2)]
        told = {(await node.expect(wire.Cancel)).order_hash for _ in range(2)}
        assert told == {node.hash_of(first), node.hash_of(second)}
        await node.deliver(first)
        await node.deliver(second, chunks=[], status=0, finish="cancelled")
        done = await finished(client, batch.id, runner, [node])
        assert counts(done) == ("cancelled", 1, 4)
        errors = await lines_of(client, done.error_file_id)
        assert [line["error"]["code"] for line in errors] == ["cancelled", *["batch_cancelled"] * 3]
        assert g.session(opened[1]).owed_atoms == COST
        assert (await client.batches.cancel(batch.id)).status == "cancelled"
        assert node.orders.empty()


async def test_batch_that_is_cancelled_before_it_began_places_nothing(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client, runner = client_of(g, secret), BatchRunner(g.market)
        batch = await started(client, [chat_line(1)])
        await client.batches.cancel(batch.id)
        done = await finished(client, batch.id, runner, [nodes[1]])
        assert (done.status, done.output_file_id, all_jobs(g)) == ("cancelled", None, [])


async def test_batch_expires_with_its_window_and_keeps_what_it_has(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, opened):
        client, runner, node = client_of(g, secret), BatchRunner(g.market, in_flight=1), nodes[1]
        batch = await started(client, [chat_line(i) for i in range(3)])
        for _ in range(2):
            await turn(runner, [node])
        await node.deliver(await node.orders.get())
        await node.calm()
        g.clock.now_ms += 86_400_000
        done = await finished(client, batch.id, runner, [node])
        assert counts(done) == ("expired", 1, 2)
        errors = await lines_of(client, done.error_file_id)
        assert {line["error"]["code"] for line in errors} == {"batch_expired"}
        assert [line["response"] for line in errors] == [None, None]
        assert g.session(opened[1]).owed_atoms == COST


async def test_line_that_was_placed_and_not_noted_keeps_its_answer_in_a_cancelled_batch(
    tmp_path,
):
    clock = Clock()
    async with gateway(tmp_path, clock=clock) as g:
        secret, address = await g.new_key()
        signer, session_id = g.put_node(1), g.put_session(address, 1)
        client = client_of(g, secret)
        async with Node(g, 1, signer) as node:
            batch = await started(client, [chat_line(i) for i in range(3)])
            with pytest.raises(PowerCutError):
                await finished(client, batch.id, BatchRunner(g.market, probe=Cut(0)), [node])
            await node.calm()
            await client.batches.cancel(batch.id)
    async with gateway(tmp_path, clock=clock) as g:
        client = client_of(g, secret)
        done = await finished(client, batch.id, BatchRunner(g.market))
        assert counts(done) == ("cancelled", 1, 2)
        assert g.session(session_id).owed_atoms == COST


async def test_money_that_others_spent_meanwhile_is_waited_for(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, atoms=1_000) as (secret, nodes, opened):
        client, runner, node = client_of(g, secret), BatchRunner(g.market), nodes[1]
        batch = await started(client, [chat_line(i) for i in range(4)])
        g.set_session(opened[1], owed_atoms=950)
        for _ in range(3):
            await turn(runner, [node])
        waits = await client.batches.retrieve(batch.id)
        assert waits.model_extra["waiting_for"].startswith("session_underfunded: ")
        g.set_session(opened[1], owed_atoms=0)
        done = await finished(client, batch.id, runner, [node])
        assert done.request_counts.completed == 4


async def test_dearer_offers_never_cost_more_than_was_quoted(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        client, runner, node = client_of(g, secret), BatchRunner(g.market), nodes[1]
        batch = await started(client, [chat_line(1)])
        price, node.price = node.price, (1_000, 1_000_000, 2_000_000)
        await node.offer()
        await node.calm()
        for _ in range(3):
            await turn(runner, [node])
        waits = await client.batches.retrieve(batch.id)
        assert waits.model_extra["waiting_for"].startswith("price_above_max: ")
        node.price = price
        await node.offer()
        done = await finished(client, batch.id, runner, [node])
        assert done.request_counts.completed == 1
        assert g.session(opened[1]).owed_atoms <= int(batch.model_extra["ceiling_atoms"])


async def test_orders_of_a_batch_may_cost_together_what_was_quoted(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        client, runner, node = client_of(g, secret), BatchRunner(g.market), nodes[1]
        batch = await started(client, [chat_line(i, "x" * i) for i in range(1, 6)])
        for _ in range(2):
            await turn(runner, [node])
        orders = [Order.decode((await node.orders.get()).order.message) for _ in range(5)]
        assert sum(order.max_amount_atoms for order in orders) == int(batch.model_extra["ceiling_atoms"])


async def test_one_broken_batch_holds_up_no_other(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client, runner, node = client_of(g, secret), BatchRunner(g.market), nodes[1]
        broken = await started(client, [chat_line(1)])
        for _ in range(2):
            await turn(runner, [node])
        with g.store.transaction() as tx:
            tx.exec(delete(ReceiptRow))
        other = await started(client, [chat_line(2)])
        for _ in range(8):
            with contextlib.suppress(Broken):
                await turn(runner, [node])
            await node.calm()
        assert (await client.batches.retrieve(broken.id)).status == "in_progress"
        assert (await client.batches.retrieve(other.id)).status == "completed"


async def test_answer_deleted_before_it_was_collected_ends_its_line_and_stays_paid(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client, runner = client_of(g, secret), BatchRunner(g.market)
        batch = await started(client, [chat_line(1)])
        for _ in range(2):
            await turn(runner, [nodes[1]])
        with g.store.transaction() as tx:
            tx.exec(update(JobRow).values(deleted_at_ms=1))
        done = await finished(client, batch.id, runner, [nodes[1]])
        assert counts(done) == ("completed", 0, 1)
        (line,) = await lines_of(client, done.error_file_id)
        assert (line["error"]["code"], line["error"]["charged"]) == ("content_deleted", True)
        assert done.usage.model_extra["cost_details"]["atoms"] == str(COST)
