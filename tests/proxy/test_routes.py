"""What else the proxy serves, to whom, and what it refuses."""

from __future__ import annotations

import json

import httpx2
import pytest

from marketplace.client.aio import AsyncWattline
from marketplace.client.verify import failures, verify_receipt
from marketplace.protocol.payloads import TASKS
from marketplace.proxy.app import create_app
from marketplace.proxy.calls import Bounds
from tests.client.fake_market import FakeMarket
from tests.proxy.conftest import BUYER, HI, Served, serve

BODY = {"model": "tiny-chat", "messages": HI}
ASKED = {
    "classify": {"input": ["I loved it"], "labels": ["bad", "good"]},
    "rerank": {"query": "q", "documents": ["a", "b"]},
    "classify-image": {"images": ["iVBORw0KGgo="] * 5},
}


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"chat", "embed"}))
async def test_every_task_has_its_route_as_at_the_gateway(http: httpx2.AsyncClient, task: str) -> None:
    answer = await http.post(f"/v1/{task}", json={"model": "tiny-chat"} | ASKED[task])
    body = answer.json()
    assert answer.status_code == 200, body
    assert (body["object"], body["model"]) == (task, "tiny-chat")
    assert failures(verify_receipt(body["receipt"])) == []
    assert body["usage"]["cost_details"]["currency"] == "TUSD"


async def test_field_of_a_task_that_is_not_there_is_named(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/classify", json={"model": "tiny-chat", "labels": ["a", "b"]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "input")


async def test_models_nodes_jobs_and_receipts_are_the_gateways(http: httpx2.AsyncClient) -> None:
    made = (await http.post("/v1/chat/completions", json=BODY)).json()
    assert (await http.get("/v1/models")).json()["data"][0]["id"] == "tiny-chat"
    assert len((await http.get("/v1/nodes")).json()["data"]) == 2
    assert (await http.get(f"/v1/jobs/{made['job_id']}")).json()["phase"] == "delivered"
    assert [job["job_id"] for job in (await http.get("/v1/jobs")).json()["data"]] == [made["job_id"]]
    receipt = (await http.get(f"/v1/receipts/{made['receipt']['id']}")).json()
    assert failures(verify_receipt(receipt)) == []
    unknown = await http.get("/v1/jobs/job_none")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_job")


async def test_quotes_are_asked_inside_the_bounds_and_charge_nothing(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    http = serve(watt, Bounds(max_cost="0.000001", node=2)).http()
    ask = {"model": "tiny-chat", "task": "chat", "messages": HI, "max_tokens": 16}
    rows = (await http.post("/v1/quotes", json=ask)).json()["quotes"]
    assert {row["why_not"] for row in rows} == {"price_above_max"}
    assert market.calls[-1][2]["node"] == 2
    assert market.orders == []


@pytest.mark.parametrize(
    "path", ["responses/r/cancel", "files", "batches", "batches/b/cancel", "moderations", "audio/speech"]
)
async def test_routes_of_openai_that_are_not_here_say_where_they_are(
    http: httpx2.AsyncClient, path: str
) -> None:
    answer = await http.post(f"/v1/{path}", json={})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["charged"]) == (422, "unsupported", False)
    assert f"not done at /v1/{path.split('/')[0]} of watt proxy: " in problem["detail"]
    assert "http://gateway.test" in problem["hint"]


async def test_mistyped_route_is_not_found(http: httpx2.AsyncClient) -> None:
    for path in ("/v1/chat", "/elsewhere"):
        assert (await http.get(path)).json()["code"] == "not_found"


async def test_health_tells_whether_the_gateway_answers(http: httpx2.AsyncClient, market: FakeMarket) -> None:
    well = await http.get("/healthz")
    assert (well.status_code, well.json()["key"]) == (200, BUYER.address)
    market.down = True
    ill = await http.get("/healthz")
    assert (ill.status_code, ill.json()["ok"]) == (503, False)
    assert "gateway.test" in ill.json()["detail"]


async def test_token_is_wanted_where_one_was_set(served: Served) -> None:
    http = served.http(create_app(served.proxy, token="secret"))
    assert (await http.get("/v1/models")).json()["code"] == "missing_key"
    wrong = await http.get("/v1/models", headers={"authorization": "Bearer other"})
    assert (wrong.status_code, wrong.json()["code"]) == (401, "unknown_key")
    assert "started with" in wrong.json()["hint"]
    right = await http.get("/v1/models", headers={"authorization": "Bearer secret"})
    assert right.status_code == 200
    assert (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:8403"},
        {"host": "["},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
async def test_pages_of_the_web_cannot_spend_here(
    http: httpx2.AsyncClient, market: FakeMarket, headers: dict[str, str]
) -> None:
    answer = await http.post("/v1/chat/completions", json=BODY, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert market.calls == []


@pytest.mark.parametrize("host", ["127.0.0.1:8403", "localhost:8403", "[::1]:8403"])
async def test_programs_of_this_machine_can(http: httpx2.AsyncClient, host: str) -> None:
    assert (await http.get("/v1/models", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "malformed_body"),
        (b"[]", 400, "malformed_body"),
        (b"{}", 422, "invalid_request"),
        (b"x" * 2_000, 413, "body_too_large"),
    ],
)
async def test_bodies_that_cannot_be_read_are_told_apart(
    served: Served, content: bytes, status: int, code: str
) -> None:
    http = served.http(create_app(served.proxy, max_body_bytes=1_000))
    kind = {"content-type": "application/json"}
    answer = await http.post("/v1/chat/completions", content=content, headers=kind)
    assert (answer.status_code, answer.json()["code"], answer.json()["charged"]) == (status, code, False)


async def test_body_that_lies_about_its_length_is_bounded_too(served: Served, market: FakeMarket) -> None:
    async def endless():
        for _ in range(10):
            yield b"[" * 500

    http = served.http(create_app(served.proxy, max_body_bytes=1_000))
    answer = await http.post("/v1/quotes", content=endless(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert market.calls == []


async def test_half_a_character_is_refused(http: httpx2.AsyncClient) -> None:
    text = json.dumps(BODY).replace("hi", "\\ud800")
    kind = {"content-type": "application/json"}
    answer = await http.post("/v1/chat/completions", content=text, headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_defect_of_ours_is_answered_in_the_same_shape(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.proxy, "budget", lambda: 1 / 0)
    answer = await served.http().get("/v1/budget", headers={"x-request-id": "req_12345678"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "req_12345678"
