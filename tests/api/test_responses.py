"""Responses: the whole answer, its events, and what is left of it after a restart."""

from __future__ import annotations

import asyncio
import json

import pytest
from openai import AsyncOpenAI, OpenAI

from marketplace.client.verify import failures, verify_receipt
from marketplace.protocol import wire
from marketplace.protocol.payloads import finish_chunk, parse_payload, text_chunk
from tests.api.test_requests import check_problem
from tests.flow.gateway import gateway
from tests.flow.node import Node, bearer, funded

TEXT = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def client_of(g, secret):
    return AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)


async def post(g, secret, **changes):
    body = {"model": "tiny", "input": "Hi"} | changes
    return await g.http.post("/v1/responses", json=body, headers=bearer(secret))


async def events_of(g, secret, **changes):
    text = (await post(g, secret, stream=True, **changes)).text
    return [json.loads(block.split("\ndata: ")[1]) for block in text.strip().split("\n\n")]


async def messages_at(node):
    frame = await node.orders.get()
    return [(turn.role, turn.content) for turn in parse_payload(frame.payload).messages]


def ends(finish, **changes):
    """Writes one word and ends this way."""

    async def behave(node, frame):
        await node.idle(frame)
        await node.deliver(frame, chunks=[text_chunk("Hel"), finish_chunk(finish)], finish=finish, **changes)

    return behave


async def test_stock_sync_client_gets_a_response_with_cost_and_receipt(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        client = OpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)
        found = await asyncio.to_thread(
            client.responses.create,
            model="tiny",
            input="Hi",
            instructions="Be brief.",
            max_output_tokens=8,
            temperature=0.5,
            top_p=0.9,
            metadata={"step": "1"},
            store=False,
        )
        assert (found.status, found.output_text, found.object) == ("completed", "Hello world", "response")
        assert found.id.removeprefix("resp_") == found.job_id.removeprefix("job_")
        assert (found.instructions, found.max_output_tokens) == ("Be brief.", 8)
        assert (found.temperature, found.top_p, found.metadata) == (0.5, 0.9, {"step": "1"})
        usage = found.usage
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (5, 2, 7)
        assert usage.model_extra["cost"] == 0.000019
        assert usage.model_extra["cost_details"]["atoms"] == found.receipt["fields"]["amount"] == "19"
        # The fake node makes no seed.
        assert [c for c in failures(verify_receipt(found.receipt)) if c.name != "seed"] == []
        assert await messages_at(nodes[1]) == [("system", "Be brief."), ("user", "Hi")]
        assert g.session(opened[1]).owed_atoms == 19


async def test_stock_client_streams_every_event_in_order_with_usage_last(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        stream = await client_of(g, secret).responses.create(model="tiny", input="Hi", stream=True)
        events = [event async for event in stream]
        assert [event.type for event in events] == TEXT
        assert [event.sequence_number for event in events] == list(range(len(TEXT)))
        assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "Hello world"
        first, last = events[0].response, events[-1].response
        assert (first.status, first.output, first.usage) == ("in_progress", [], None)
        assert (last.id, last.status, last.output_text) == (first.id, "completed", "Hello world")
        assert last.usage.model_extra["cost_details"]["atoms"] == "19"
        assert last.receipt["job_id"] == last.job_id
        item = events[-2].item
        assert {e.item_id for e in events if hasattr(e, "item_id")} == {item.id} == {last.output[0].id}


async def test_stock_stream_helper_folds_the_events(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        async with client_of(g, secret).responses.stream(model="tiny", input="Hi") as stream:
            texts = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
        assert "".join(texts) == final.output_text == "Hello world"


async def test_input_may_be_a_conversation(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        said = [
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": [{"type": "input_text", "text": "A"}, {"type": "text", "text": "B"}]},
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "C", "annotations": []}],
            },
            {"role": "user", "content": "D"},
        ]
        assert (await post(g, secret, input=said)).status_code == 200
        assert await messages_at(nodes[1]) == [
            ("system", "Be kind."),
            ("user", "AB"),
            ("assistant", "C"),
            ("user", "D"),
        ]


async def test_later_response_goes_on_from_an_earlier_one_without_its_instructions(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client = client_of(g, secret)
        first = await client.responses.create(model="tiny", input="One", instructions="Be brief.")
        second = await client.responses.create(
            model="tiny", input="Two", instructions="Be rude.", previous_response_id=first.id
        )
        assert second.previous_response_id == first.id
        third = await client.responses.create(model="tiny", input="Three", previous_response_id=second.id)
        assert third.instructions is None
        assert await messages_at(nodes[1]) == [("system", "Be brief."), ("user", "One")]
        turns = [("user", "One"), ("assistant", "Hello world"), ("user", "Two")]
        assert await messages_at(nodes[1]) == [("system", "Be rude."), *turns]
        assert await messages_at(nodes[1]) == [*turns, ("assistant", "Hello world"), ("user", "Three")]


async def test_response_is_there_after_a_restart_and_goes_on(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        made = await client_of(g, secret).responses.create(
            model="tiny", input="Hi", instructions="Be brief.", metadata={"a": "b"}
        )
    async with gateway(tmp_path) as g, Node(g, 1, g.put_node(1)) as node:
        client = client_of(g, secret)
        found = await client.responses.retrieve(made.id)
        assert found.to_dict() == made.to_dict()
        await client.responses.create(model="tiny", input="More", previous_response_id=made.id)
        assert await messages_at(node) == [("user", "Hi"), ("assistant", "Hello world"), ("user", "More")]


async def test_background_response_is_asked_for_later(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        client = client_of(g, secret)
        made = await client.responses.create(model="tiny", input="Hi", background=True)
        assert (made.status, made.background, made.output) == ("in_progress", True, [])
        assert (await client.responses.retrieve(made.id)).status == "in_progress"
        frame = await nodes[1].orders.get()
        await nodes[1].deliver(frame)
        await nodes[1].expect(wire.VoucherFrame)
        found = await client.responses.retrieve(made.id)
        assert (found.status, found.output_text) == ("completed", "Hello world")


async def test_cancelled_response_keeps_and_costs_what_came(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        client = client_of(g, secret)
        made = await client.responses.create(model="tiny", input="Hi", background=True)
        frame = await nodes[1].orders.get()
        await nodes[1].calm()
        assert (await client.responses.cancel(made.id)).status == "in_progress"
        await nodes[1].expect(wire.Cancel)
        chunks = [text_chunk("Hel"), finish_chunk("cancelled")]
        await nodes[1].deliver(frame, chunks=chunks, status=2, finish="cancelled")
        await nodes[1].expect(wire.VoucherFrame)
        found = await client.responses.retrieve(made.id)
        assert (found.status, found.output_text) == ("cancelled", "Hel")
        assert found.usage.model_extra["cost_details"]["atoms"] == "17"
        assert (await client.responses.cancel(made.id)).to_dict() == found.to_dict()


async def test_response_cancelled_before_its_first_token_is_empty_and_free(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.silent}) as (secret, nodes, opened):
        client = client_of(g, secret)
        made = await client.responses.create(model="tiny", input="Hi", background=True)
        frame = await nodes[1].orders.get()
        await client.responses.cancel(made.id)
        await nodes[1].send(wire.Refused(order_hash=nodes[1].hash_of(frame), code="node_busy"))
        await nodes[1].calm()
        found = await client.responses.retrieve(made.id)
        assert (found.status, found.output, found.usage) == ("cancelled", [], None)
        assert g.session(opened[1]).owed_atoms == 0


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("deadline", "deadline")], ids=["tokens", "time"]
)
async def test_cut_text_is_an_incomplete_response_whole_and_streamed(tmp_path, finish, reason):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: ends(finish)}) as (secret, _, _):
        body = (await post(g, secret)).json()
        assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": reason})
        assert (body["output"][0]["status"], body["output"][0]["content"][0]["text"]) == ("incomplete", "Hel")
        last = (await events_of(g, secret))[-1]
        assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")
        assert last["response"]["usage"]["cost_details"]["atoms"] == "17"


async def test_failed_response_is_an_error_or_an_event_and_is_remembered(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.fail}) as (secret, _, opened):
        problem = check_problem(await post(g, secret), 503, "no_node")
        shown = (await g.http.get(f"/v1/responses/{problem['job_id']}", headers=bearer(secret))).json()
        assert (shown["status"], shown["error"]["code"]) == ("failed", "server_error")
        assert (shown["problem"]["code"], shown["error"]["charged"]) == ("no_node", False)
        events = await events_of(g, secret)
        assert [e["type"] for e in events] == [*TEXT[:2], "response.failed"]
        assert [e["sequence_number"] for e in events] == [0, 1, 2]
        assert events[-1]["response"]["problem"]["code"] == "no_node"
        assert g.session(opened[1]).owed_atoms == 0


async def test_input_that_cannot_be_run_is_called_so_in_openais_words(tmp_path):
    async def too_long(node, frame):
        await node.idle(frame)
        await node.deliver(frame, status=0, finish="input_too_long", chunks=[])

    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: too_long}) as (secret, _, _):
        last = (await events_of(g, secret))[-1]
        assert last["response"]["error"]["code"] == "invalid_prompt"


async def test_stream_of_a_gateway_that_stops_says_where_the_response_is(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        stream = await client_of(g, secret).responses.create(model="tiny", input="Hi", stream=True)
        await nodes[1].orders.get()
        g.market.streams.end_all()
        events = [event async for event in stream]
        assert (events[-1].type, events[-1].code, events[-1].charged) == ("error", "not_ready", False)
        assert "/v1/jobs/job_" in events[-1].message
        assert events[-1].sequence_number == len(events) - 1


async def test_stream_whose_text_fell_apart_is_charged_and_says_so(tmp_path):
    async def half(node, frame):
        await node.idle(frame)
        await node.deliver(frame, status=0, finish="internal", chunks=[text_chunk("Hel")])

    async with gateway(tmp_path) as g, funded(g, 1, 2, behaviours={1: half}) as (secret, nodes, _):
        nodes[2].text = ("Good day",)
        events = await events_of(g, secret)
        assert (events[-1]["type"], events[-1]["code"], events[-1]["charged"]) == (
            "error",
            "stream_diverged",
            True,
        )
        found = await client_of(g, secret).responses.retrieve(events[0]["response"]["id"])
        assert (found.status, found.output_text) == ("completed", "Good day")


async def test_logprobs_come_where_they_are_asked_for(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
        part = (await post(g, secret, **asked)).json()["output"][0]["content"][0]
        assert [row["logprob"] for row in part["logprobs"]] == [-2.5, -2.5]
        events = await events_of(g, secret, **asked)
        told = [row for e in events if e["type"] == "response.output_text.delta" for row in e["logprobs"]]
        assert told == part["logprobs"]
        assert (await post(g, secret)).json()["output"][0]["content"][0]["logprobs"] == []


async def test_one_idempotency_key_is_one_response(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        headers = bearer(secret) | {"idempotency-key": "k"}
        body = {"model": "tiny", "input": "Hi"}
        first, again = [
            (await g.http.post("/v1/responses", json=body, headers=headers)).json() for _ in range(2)
        ]
        assert first["id"] == again["id"]
        assert first["output"] == again["output"]
        assert g.session(opened[1]).owed_atoms == 19


async def test_responses_belong_to_their_key(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        made = (await post(g, secret)).json()
        other, address = await g.new_key()
        g.put_session(address, 1)
        await nodes[1].calm()
        before = g.rows()
        url = f"/v1/responses/{made['id']}"
        check_problem(await g.http.get(url, headers=bearer(other)), 404, "unknown_job")
        check_problem(await g.http.get(url), 401, "missing_key")
        check_problem(await g.http.post(f"{url}/cancel", headers=bearer(other)), 404, "unknown_job")
        check_problem(await post(g, other, previous_response_id=made["id"]), 404, "unknown_job")
        assert g.rows() == before
        assert nodes[1].orders.qsize() == 1


async def test_only_a_response_with_an_answer_can_be_gone_on_from(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, _, _):
        made = (await post(g, secret, background=True)).json()
        running = await post(g, secret, previous_response_id=made["id"])
        assert check_problem(running, 422, "invalid_request")["error"]["param"] == "previous_response_id"
        check_problem(await post(g, secret, previous_response_id="resp_none"), 404, "unknown_job")


async def test_job_of_another_route_is_no_response(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        body = {"model": "mini", "input": "x"}
        job_id = (await g.http.post("/v1/embeddings", json=body, headers=bearer(secret))).json()["job_id"]
        answer = await g.http.get(f"/v1/responses/{job_id}", headers=bearer(secret))
        check_problem(answer, 404, "unknown_job")


UNSUPPORTED = [
    ({"tools": [{"type": "function", "name": "f"}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"reasoning": {"effort": "low"}}, "reasoning"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, "text.format"),
    ({"text": {"format": {"type": "json_object"}}}, "text.format"),
    ({"text": {"verbosity": "low"}}, "text.verbosity"),
    ({"truncation": "auto"}, "truncation"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input.0"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0"),
]
INVALID = [
    ({"input": []}, "input"),
    ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role"),
    ({"input": [{"role": "user", "content": None}]}, "input.0.content"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input.0.content.0.text"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"previous_response_id": "resp_\x00"}, "previous_response_id"),
    ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
]


async def test_bad_response_call_changes_nothing_and_names_the_field(tmp_path):
    rows = [("unsupported", *row) for row in UNSUPPORTED] + [("invalid_request", *row) for row in INVALID]
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        before = g.rows()
        for code, changes, param in rows:
            body = check_problem(await post(g, secret, **changes), 422, code)
            assert body["error"]["param"] == param, changes
        assert g.rows() == before
        assert nodes[1].orders.empty()


async def test_parameters_without_effect_are_accepted(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        answer = await post(
            g,
            secret,
            tools=[],
            tool_choice="auto",
            parallel_tool_calls=True,
            reasoning={"effort": None},
            text={"format": {"type": "text"}, "verbosity": "medium"},
            truncation="disabled",
            include=["reasoning.encrypted_content"],
            user="me",
            service_tier="auto",
            prompt_cache_key="k",
            stream_options={"include_obfuscation": False},
        )
        assert answer.status_code == 200


async def test_streaming_an_old_response_again_points_to_its_events(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        made = (await post(g, secret)).json()
        answer = await g.http.get(f"/v1/responses/{made['id']}?stream=true", headers=bearer(secret))
        assert f"/v1/jobs/{made['job_id']}/events" in check_problem(answer, 422, "unsupported")["detail"]
