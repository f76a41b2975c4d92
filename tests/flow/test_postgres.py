"""The same market on PostgreSQL, where writers really run side by side."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter

import psycopg
import pytest

from marketplace.keeper.batches import BatchRunner
from marketplace.protocol import wire
from marketplace.store.tables import AccountRow
from tests.batches.support import COST, chat_line, client_of, finished, lines_of, started
from tests.flow.gateway import Clock, gateway
from tests.flow.node import Node, bearer, chat_body, funded
from tests.keeper.market import Cut, PowerCutError

pytestmark = pytest.mark.postgres
POSTGRES = "WATT_TEST_POSTGRES_URL"


@pytest.fixture
def url():
    if POSTGRES not in os.environ:
        pytest.skip(f"{POSTGRES} names no PostgreSQL server")
    schema = f"watt_flow_{os.getpid()}"
    with psycopg.connect(os.environ[POSTGRES], autocommit=True) as admin:
        admin.execute(f"CREATE SCHEMA {schema}")
        yield f"{os.environ[POSTGRES]}?options=-csearch_path%3D{schema}"
        admin.execute(f"DROP SCHEMA {schema} CASCADE")


async def test_parallel_orders_never_reserve_more_than_the_session_holds(tmp_path, url):
    async with gateway(tmp_path, url=url) as g, funded(g, 1, atoms=10 * 124 + 5) as (secret, nodes, opened):
        nodes[1].behaviour = Node.idle
        calls = [
            asyncio.create_task(g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret)))
            for _ in range(30)
        ]
        frames = [await nodes[1].orders.get() for _ in range(10)]
        running = set(calls)
        while len(running) > 10:
            _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        assert g.session(opened[1]).reserved_atoms == 1240
        for frame in frames:
            await nodes[1].deliver(frame)
        codes = Counter([answer.status_code for answer in await asyncio.gather(*calls)])
        assert codes == {200: 10, 402: 20}
        session = g.session(opened[1])
        assert (session.owed_atoms, session.reserved_atoms, session.next_seq) == (190, 0, 11)


async def test_idempotency_key_names_one_job(tmp_path, url):
    async with gateway(tmp_path, url=url) as g, funded(g, 1) as (secret, _, opened):
        headers = bearer(secret) | {"idempotency-key": "mine"}
        answers = await asyncio.gather(
            *(g.http.post("/v1/chat/completions", json=chat_body(), headers=headers) for _ in range(6))
        )
        assert len({answer.json()["job_id"] for answer in answers}) == 1
        assert g.session(opened[1]).owed_atoms == 19


async def test_another_node_takes_over(tmp_path, url):
    async with gateway(tmp_path, url=url) as g, funded(g, 1, 2) as (secret, nodes, opened):
        nodes[1].behaviour = Node.fail
        answer = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        assert answer.json()["receipt"]["node"]["node_id"] == 2
        await nodes[2].expect(wire.VoucherFrame)
        assert [g.session(s).owed_atoms for s in opened.values()] == [0, 19]
        job = (await g.http.get(f"/v1/jobs/{answer.json()['job_id']}")).json()
        assert job["phase"] == "acknowledged"


async def test_text_postgres_cannot_keep_is_refused(tmp_path, url):
    async with gateway(tmp_path, url=url) as g, funded(g, 1) as (secret, _, _):
        for body in (chat_body(model="a\0b"), chat_body(node=1 << 40)):
            answer = await g.http.post("/v1/chat/completions", json=body, headers=bearer(secret))
            assert answer.json()["code"] == "invalid_request"
        assert (await g.http.get("/v1/jobs/job_%00")).json()["code"] == "not_found"
        zero = chat_body(messages=[{"role": "user", "content": "a\0b"}])
        answer = await g.http.post("/v1/chat/completions", json=zero, headers=bearer(secret))
        assert answer.status_code == 200


async def test_batch_survives_a_power_cut_with_every_line_done_once(tmp_path, url):
    clock = Clock()
    async with gateway(tmp_path, clock=clock, url=url) as g:
        secret, address = await g.new_key()
        signer, session_id = g.put_node(1), g.put_session(address, 1)
        async with Node(g, 1, signer) as node:
            batch = await started(client_of(g, secret), [chat_line(i) for i in range(6)])
            with pytest.raises(PowerCutError):
                await finished(client_of(g, secret), batch.id, BatchRunner(g.market, probe=Cut(3)), [node])
            await node.calm()
    async with gateway(tmp_path, clock=clock, url=url) as g, Node(g, 1, signer) as node:
        done = await finished(client_of(g, secret), batch.id, BatchRunner(g.market), [node])
        assert (done.status, done.request_counts.completed) == ("completed", 6)
        assert len(await lines_of(client_of(g, secret), done.output_file_id)) == 6
        assert g.session(session_id).owed_atoms == 6 * COST


async def test_two_that_wait_for_each_other_are_both_done(tmp_path, url):
    async with gateway(tmp_path, url=url) as g:
        buyers = ["0x" + "01" * 20, "0x" + "02" * 20]
        with g.store.transaction() as tx:
            tx.add_all(AccountRow(buyer=buyer, balance_atoms=0) for buyer in buyers)
        meeting = threading.Barrier(2)

        def cross(first, second):
            tried = []

            def work(tx):
                tx.get(AccountRow, first, with_for_update=True).balance_atoms += 1
                tx.flush()
                if not tried:
                    meeting.wait(10)
                tried.append(1)
                tx.get(AccountRow, second, with_for_update=True).balance_atoms += 1
                return len(tried)

            return work

        tries = await asyncio.gather(g.market.write(cross(*buyers)), g.market.write(cross(*reversed(buyers))))
        assert sorted(tries) == [1, 2]
        with g.store.reading() as tx:
            assert [tx.get(AccountRow, buyer).balance_atoms for buyer in buyers] == [2, 2]
