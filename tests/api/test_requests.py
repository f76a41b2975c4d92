"""HTTP edge: shapes of answers and errors, and every bad request."""

from __future__ import annotations

import json

import pytest
from openai import APIStatusError, AsyncOpenAI, AuthenticationError

from marketplace.openai import money
from marketplace.protocol import wire
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.money import format_atoms
from tests.flow.gateway import gateway
from tests.flow.node import Node, bearer, chat_body, funded

PROBLEM = {
    "type",
    "title",
    "status",
    "detail",
    "code",
    "hint",
    "charged",
    "request_id",
    "retryable",
    "doc_url",
    "error",
}


def check_problem(answer, status, code, *, charged=False):
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert set(body) >= PROBLEM
    assert set(body["error"]) == {"message", "type", "code", "param", "hint", "charged", "doc_url"}
    assert body["doc_url"] == body["error"]["doc_url"] == f"/docs/errors/{code}"
    assert body["charged"] is body["error"]["charged"] is charged
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == body["request_id"]
    assert ("x-should-retry" in answer.headers) is not body["retryable"]
    return body


BAD_CHATS = [
    (422, "invalid_request", {"messages": []}, "messages"),
    (422, "invalid_request", {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    (422, "invalid_request", {"max_tokens": 0}, "max_tokens"),
    (422, "invalid_request", {"max_tokens": 32_769}, "max_tokens"),
    (422, "invalid_request", {"temperature": 2.1}, "temperature"),
    (422, "invalid_request", {"top_p": -0.1}, "top_p"),
    (422, "invalid_request", {"stop": ["a"] * 5}, "stop"),
    (422, "invalid_request", {"stop": [""]}, "stop.0"),
    (422, "invalid_request", {"max_cost": "a lot"}, "max_cost"),
    (422, "invalid_request", {"max_cost": "-1"}, "max_cost"),
    (422, "invalid_request", {"model": ""}, "model"),
    (422, "invalid_request", {"n": 33}, "n"),
    (422, "unsupported", {"tools": [{"type": "function"}]}, "tools"),
    (422, "invalid_request", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    (422, "invalid_request", {"top_logprobs": 1}, "top_logprobs"),
    (422, "unsupported", {"response_format": {"type": "json_object"}}, "response_format"),
    (422, "unsupported", {"frequency_penalty": 1}, "frequency_penalty"),
    (404, "unknown_model", {"model": "gpt-9"}, None),
    (404, "unknown_node", {"node": 9}, None),
    (402, "price_above_max", {"max_cost": "0.000001"}, None),
    (422, "unsupported", {"model": "mini"}, None),
    (422, "invalid_request", {"messages": [{"role": "user", "content": "\ud800"}]}, None),
]


@pytest.mark.parametrize(("status", "code", "changes", "param"), BAD_CHATS)
async def test_bad_chat_changes_nothing(tmp_path, status, code, changes, param):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        before = g.rows()
        content = json.dumps(chat_body(**changes))
        headers = bearer(secret) | {"content-type": "application/json"}
        answer = await g.http.post("/v1/chat/completions", content=content, headers=headers)
        body = check_problem(answer, status, code)
        if param:
            assert body["error"]["param"] == param
        assert g.rows() == before
        assert nodes[1].orders.empty()


BAD_EMBEDS = [
    ("unsupported", {"input": [1, 2]}),
    ("unsupported", {"input": [[1], [2]]}),
    ("unsupported", {"dimensions": 8}),
    ("invalid_request", {"input": ""}),
    ("invalid_request", {"input": []}),
    ("invalid_request", {"input": ["a", ""]}),
    ("invalid_request", {"input": ["a"] * 2049}),
    ("invalid_request", {"encoding_format": "hex"}),
]


@pytest.mark.parametrize(("code", "changes"), BAD_EMBEDS)
async def test_bad_embedding_call_changes_nothing(tmp_path, code, changes):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        before = g.rows()
        body = {"model": "mini", "input": "x"} | changes
        check_problem(await g.http.post("/v1/embeddings", json=body, headers=bearer(secret)), 422, code)
        assert g.rows() == before
        assert nodes[1].orders.empty()


async def test_parameters_without_effect_are_ignored(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        body = chat_body(
            n=1,
            user="me",
            store=False,
            tools=[],
            tool_choice="auto",
            response_format={"type": "text"},
            frequency_penalty=0.0,
            logprobs=None,
            metadata={"a": "b"},
            messages=[
                {
                    "role": "developer",
                    "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind"}],
                },
                {"role": "user", "content": "Hi", "name": "bob"},
            ],
        )
        answer = await g.http.post("/v1/chat/completions", json=body, headers=bearer(secret))
        assert answer.status_code == 200


async def test_bodies_that_are_no_json_or_too_large_are_refused(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        before, headers = g.rows(), bearer(secret) | {"content-type": "application/json"}
        url = "/v1/chat/completions"
        check_problem(await g.http.post(url, content="{", headers=headers), 400, "malformed_body")
        check_problem(await g.http.post(url, content="[]", headers=headers), 400, "malformed_body")
        check_problem(await g.http.post(url, content=b"\xff\xfe", headers=headers), 400, "malformed_body")
        large = b" " * ((1 << 20) + 1)
        check_problem(await g.http.post(url, content=large, headers=headers), 413, "body_too_large")

        async def pieces():
            for _ in range(40):
                yield b" " * (1 << 15)

        check_problem(await g.http.post(url, content=pieces(), headers=headers), 413, "body_too_large")
        assert g.rows() == before


async def test_unknown_pages_methods_keys_and_ids(tmp_path):
    async with gateway(tmp_path) as g:
        get, post = g.http.get, g.http.post
        check_problem(await get("/v2/nothing"), 404, "not_found")
        check_problem(await g.http.delete("/v1/models"), 405, "method_not_allowed")
        check_problem(await get("/v1/jobs"), 401, "missing_key")
        check_problem(await get("/v1/jobs", headers=bearer("sk-watt-no")), 401, "unknown_key")
        check_problem(await post("/v1/chat/completions", json=chat_body()), 401, "missing_key")
        check_problem(await get("/v1/jobs/job_none"), 404, "unknown_job")
        check_problem(await get("/v1/jobs/job_none/events"), 404, "unknown_job")
        check_problem(await get("/v1/receipts/rcpt_none"), 404, "unknown_receipt")
        check_problem(await get("/v1/models/none"), 404, "unknown_model")
        check_problem(await get("/v1/sessions/0x00"), 404, "unknown_session")
        check_problem(await get("/v1/sessions/0x" + "00" * 32), 404, "unknown_session")
        check_problem(await get("/v1/accounts/nobody"), 422, "invalid_request")
        mistyped = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD"
        assert (
            "mistyped"
            in check_problem(await get(f"/v1/accounts/{mistyped}"), 422, "invalid_request")["detail"]
        )
        check_problem(await post("/v1/quotes", json={"model": "tiny"}), 422, "invalid_request")
        assert g.market.streams._jobs == {}


async def test_money_errors_say_what_would_help(tmp_path):
    async with gateway(tmp_path) as g, Node(g, 1, g.put_node(1)) as node:
        secret, address = await g.new_key()

        async def call():
            return await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))

        none = check_problem(await call(), 402, "no_session")
        assert "POST /v1/sessions" in none["hint"]
        assert none["node_id"] == 1
        poor = g.put_session(address, 1, 100)
        short = check_problem(await call(), 402, "session_underfunded")
        assert poor in short["detail"]
        assert "100 atoms are left" in short["error"]["message"]
        g.set_session(poor, deposited_atoms=10_000, expires_at=g.clock() // 1000 + 60)
        check_problem(await call(), 402, "session_expired")
        g.set_session(poor, closed=True, expires_at=g.clock() // 1000 + 6000)
        check_problem(await call(), 402, "no_session")
        await node.leave()
        check_problem(await call(), 503, "no_node")
        assert (await call()).headers["retry-after"] == "1"


async def test_stock_client_reads_our_errors(tmp_path):
    async with gateway(tmp_path) as g, Node(g, 1, g.put_node(1)):
        secret, _ = await g.new_key()
        client = AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret)
        with pytest.raises(APIStatusError) as seen:
            await client.embeddings.create(model="mini", input="x")
        assert (seen.value.status_code, seen.value.code) == (402, "no_session")
        assert seen.value.body["charged"] is False
        assert seen.value.request_id == seen.value.response.json()["request_id"]
        with pytest.raises(AuthenticationError):
            await AsyncOpenAI(base_url=f"{g.url}/v1", api_key="wrong").embeddings.create(
                model="mini", input="x"
            )


async def test_streaming_events_have_the_exact_shape(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
        headers = bearer(secret) | {"traceparent": trace}
        body = chat_body(stream=True, stream_options={"include_usage": False})
        answer = await g.http.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-trace-id"] == "ab" * 16
        lines = [line.removeprefix("data: ") for line in answer.text.strip().split("\n\n")]
        assert lines[-1] == "[DONE]"
        chunks = [json.loads(line) for line in lines[:-1]]
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None, None, None, "stop"]
        last = chunks[-1]
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] == 7
        assert last["usage"]["cost_details"]["ceiling_atoms"] == "124"
        assert last["job_id"] == answer.headers["x-job-id"]
        assert last["receipt"]["trace_id"] == "ab" * 16


async def test_failed_stream_ends_with_an_error_the_client_raises(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.fail}) as (secret, _, _):
        client = AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)
        stream = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        with pytest.raises(Exception, match="nothing was charged") as seen:
            async for _ in stream:
                pass
        assert seen.value.body["code"] == "no_node"


async def test_docs_and_schema_load_nothing_from_elsewhere(tmp_path):
    async with gateway(tmp_path) as g:
        page = (await g.http.get("/docs")).text
        assert "http" not in page.replace("http-equiv", "")
        assert "/v1/chat/completions" in page
        assert "/v1/jobs/{job_id}" in (await g.http.get("/openapi.json")).json()["paths"]
        assert (await g.http.get("/redoc")).status_code == 404


async def test_health_and_metrics(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        assert (await g.http.get("/livez")).json() == {"ok": True}
        ready = (await g.http.get("/readyz")).json()
        assert ready == {
            "ok": True,
            "checks": {"db": {"ok": True, "detail": ""}, "loops": {"ok": True, "detail": ""}},
        }
        text = (await g.http.get("/metrics")).text
        assert 'watt_jobs_total{end="done",task="chat"} 1.0' in text
        assert 'route="/v1/chat/completions",status="200"' in text
        chain = (await g.http.get("/v1/chain")).json()
        assert (chain["chain_id"], chain["token_symbol"], chain["head"], chain["lag_blocks"]) == (
            31337,
            "TUSD",
            None,
            0,
        )
        (node,) = (await g.http.get("/v1/nodes")).json()["data"]
        assert node["connected"]
        assert {model["name"] for model in node["models"]} == {"tiny", "mini"}


async def test_quotes_rank_and_explain(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, 2, 3) as (_, nodes, _):
        nodes[2].price = (1, 0, 0)
        await nodes[2].offer()
        await nodes[2].beat(queue_depth=3)
        await nodes[3].beat(draining=True)
        for number in (2, 3):
            await nodes[number].expect(wire.Lease)
        body = (await g.http.post("/v1/quotes", json=chat_body())).json()
        rows = [(q["node_id"], q["eligible"], q["reason"], q["why_not"]) for q in body["quotes"]]
        assert rows == [
            (2, True, "cheapest", None),
            (1, True, "fastest", None),
            (3, False, "", "node_busy"),
        ]
        assert body["quotes"][0]["ceiling_atoms"] == "1"
        assert body["quotes"][1]["units_in_ceiling"] == 82
        assert body["expires_at"] > g.clock() // 1000


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": "Hi"}] * 1025])
async def test_a_quote_refuses_the_conversations_that_a_call_refuses(tmp_path, messages):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        body = chat_body(messages=messages)
        for path in ("/v1/quotes", "/v1/chat/completions"):
            answer = await g.http.post(path, json=body, headers=bearer(secret))
            check_problem(answer, 422, "invalid_request")
            assert answer.json()["error"]["param"] == "messages"


async def test_jobs_are_listed_in_pages(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        for _ in range(3):
            await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        first = (await g.http.get("/v1/jobs?limit=2", headers=bearer(secret))).json()
        assert (len(first["data"]), first["has_more"]) == (2, True)
        rest = (await g.http.get(f"/v1/jobs?after={first['last_id']}", headers=bearer(secret))).json()
        assert (len(rest["data"]), rest["has_more"]) == (1, False)
        ids = [row["job_id"] for row in first["data"] + rest["data"]]
        assert len(set(ids)) == 3
        other, _ = await g.new_key()
        assert (await g.http.get("/v1/jobs", headers=bearer(other))).json()["data"] == []


async def test_own_defect_is_answered_as_a_problem(tmp_path, monkeypatch):
    async with gateway(tmp_path) as g:

        async def broken(work):
            raise RuntimeError("our defect")

        monkeypatch.setattr(g.market, "read", broken)
        body = check_problem(await g.http.get("/v1/models"), 500, "internal")
        assert "our defect" not in json.dumps(body)


@pytest.mark.parametrize(
    ("units", "atoms"), [("0.000131", 131), ("1", 1_000_000), (0.0003, 300), ("0.0000019", 1), (0, 0)]
)
def test_money_is_read_exactly(units, atoms):
    assert money.to_atoms(units, 6, "x") == atoms


@pytest.mark.parametrize("units", ["nan", "inf", "-1", "x", "1e30", ""])
def test_money_that_is_none_is_refused(units):
    with pytest.raises(BadRequest):
        money.to_atoms(units, 6, "x")


@pytest.mark.parametrize(
    ("atoms", "text"), [(131, "0.000131"), (0, "0.00"), (2_500_000, "2.50"), (10**6, "1.00")]
)
def test_money_is_written_plainly(atoms, text):
    assert format_atoms(atoms, 6) == text
