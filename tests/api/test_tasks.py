"""Every task that OpenAI has no route for has one of its own, on the same road to the same receipt."""

from __future__ import annotations

import pytest

from marketplace.client.verify import failures, verify_receipt
from tests.api.test_requests import check_problem
from tests.flow.gateway import gateway
from tests.flow.node import bearer, funded
from tests.protocol.test_tasks import BODIES

OTHERS = ["classify", "rerank", "classify-image"]
MODEL = {"model": "mini"}


async def offering(g, nodes, task):
    """The node's second model does this task from now on."""
    nodes[1].embed_model_task = task
    await nodes[1].offer()
    await nodes[1].calm()


@pytest.mark.parametrize("task", OTHERS)
async def test_task_is_run_paid_and_verified(tmp_path, task):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        nodes[1].units_in = 2
        await offering(g, nodes, task)
        answer = await g.http.post(f"/v1/{task}", json=MODEL | BODIES[task], headers=bearer(secret))
        body = answer.json()
        assert answer.status_code == 200, body
        assert (body["object"], body["model"], len(body["results"])) == (task, "mini", 2)
        assert body["usage"]["cost_details"]["atoms"] == body["receipt"]["fields"]["amount"] == "12"
        wrong = [check for check in failures(verify_receipt(body["receipt"])) if check.name != "seed"]
        assert wrong == []  # the fake node makes no seed
        assert g.session(opened[1]).owed_atoms == 12
        job = (await g.http.get(f"/v1/jobs/{body['job_id']}")).json()
        assert job["result"]["results"] == body["results"]


@pytest.mark.parametrize("task", OTHERS)
async def test_quote_for_a_task_names_its_ceiling_and_charges_nothing(tmp_path, task):
    async with gateway(tmp_path) as g, funded(g, 1) as (_, nodes, _opened):
        await offering(g, nodes, task)
        before = g.rows()
        asked = MODEL | {"task": task, "body": BODIES[task]}
        quote = (await g.http.post("/v1/quotes", json=asked)).json()["quotes"][0]
        assert (quote["eligible"], quote["units_out_ceiling"]) == (True, 0)
        assert int(quote["ceiling_atoms"]) == 10 + quote["units_in_ceiling"]
        assert g.rows() == before


async def test_price_above_the_maximum_is_refused_before_anything_runs(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        await offering(g, nodes, "rerank")
        call = MODEL | BODIES["rerank"] | {"max_cost": "0.00001"}
        check_problem(
            await g.http.post("/v1/rerank", json=call, headers=bearer(secret)), 402, "price_above_max"
        )
        assert nodes[1].orders.empty()


@pytest.mark.parametrize(
    ("task", "changes", "param"),
    [
        ("classify", {"labels": ["one"]}, "labels"),
        ("classify", {"labels": ["same", "same"]}, "labels"),
        ("classify", {"label": ["a", "b"]}, "label"),
        ("rerank", {"documents": []}, "documents"),
        ("classify-image", {"images": ["%%%%"]}, "images.0"),
    ],
)
async def test_bad_field_changes_nothing_and_is_named(tmp_path, task, changes, param):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        await offering(g, nodes, task)
        before = g.rows()
        call = MODEL | BODIES[task] | changes
        body = check_problem(
            await g.http.post(f"/v1/{task}", json=call, headers=bearer(secret)), 422, "invalid_request"
        )
        assert body["error"]["param"] == param
        assert g.rows() == before


async def test_model_of_another_task_is_refused(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        call = {"model": "tiny"} | BODIES["classify"]
        check_problem(
            await g.http.post("/v1/classify", json=call, headers=bearer(secret)), 422, "unsupported"
        )


async def test_answer_with_too_few_rows_is_not_paid(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        await offering(g, nodes, "rerank")
        whole = nodes[1].chunks_of
        nodes[1].chunks_of = lambda frame: whole(frame)[:0]
        call = MODEL | BODIES["rerank"]
        answer = await g.http.post("/v1/rerank", json=call, headers=bearer(secret))
        check_problem(answer, 503, "no_node")
        assert g.session(opened[1]).owed_atoms == 0


async def test_list_of_models_says_which_tasks_each_is_offered_for(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, 2) as (_, nodes, _opened):
        await offering(g, nodes, "classify")
        rows = {row["id"]: row for row in (await g.http.get("/v1/models")).json()["data"]}
        assert rows["mini"]["tasks"] == ["classify", "embed"]
        assert rows["tiny"]["tasks"] == ["chat"]
