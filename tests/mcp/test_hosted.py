"""`/mcp` of a gateway: the same tools over HTTP, paid by a bearer key."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

from marketplace.mcp.door import Door, mount
from marketplace.protocol import wire
from marketplace.protocol.annex import AnnexV1, exec_hash
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import parse_payload, seed_of
from tests.api.test_tasks import offering
from tests.flow.gateway import CHAT_MODEL, Gateway, gateway
from tests.flow.node import Node, bearer, funded
from tests.mcp.host import Host

MODES = ("auto", "legacy")
HI = {"model": "tiny", "prompt": "hi", "max_tokens": 16}
YES = ElicitResult(action="accept", content={"allow": True})


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[Gateway, Door]]:
    """A gateway with its door."""
    async with gateway(path) as g:
        door = mount(g.app, g.market, max_body_bytes=1 << 20)
        try:
            yield g, door
        finally:
            await door.aclose()


@asynccontextmanager
async def at_door(
    g: Gateway,
    secret: str | None,
    *,
    mode: str = "auto",
    answer: ElicitResult | None = None,
    **limits: str,
) -> AsyncIterator[Host]:
    """A host that names its key, and its user's limits, in headers of its config."""
    asked: list[str] = []

    async def elicited(_context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        assert answer is not None
        return answer

    headers = bearer(secret) if secret else {}
    headers |= {f"x-watt-{name.replace('_', '-')}": value for name, value in limits.items()}
    async with httpx2.AsyncClient(headers=headers, timeout=20) as http:
        transport = streamable_http_client(f"{g.url}/mcp", http_client=http)
        callback = elicited if answer else None
        async with Client(transport, mode=mode, elicitation_callback=callback) as client:
            yield Host(client, asked, [])


async def honest(node: Node, frame: wire.OrderFrame) -> None:
    """Works, and names the seed it sampled with."""
    await node.idle(frame)
    chunks = node.chunks_of(frame)
    await node.send_chunks(frame, chunks)
    receipt, annex = node.receipt_of(frame, chunks)
    seed = seed_of(parse_payload(frame.payload), node.hash_of(frame))
    told = AnnexV1.model_validate_json(annex).model_copy(update={"seed": str(seed)}).encode()
    await node.send_receipt(frame, dataclasses.replace(receipt, exec_hash=exec_hash(told)), told, len(chunks))


@pytest.mark.parametrize("mode", MODES)
async def test_tools_buy_with_the_key_of_the_header(tmp_path: Path, mode: str) -> None:
    async with (
        opened(tmp_path) as (g, _),
        funded(g, 1, behaviours={1: honest}) as (secret, _, _),
        at_door(g, secret, mode=mode) as agent,
    ):
        (model,) = (await agent.call("search_models", task="chat"))["models"]
        assert (model["model"], model["price_out_per_million"]) == ("tiny", "2.00")
        before = (await agent.call("budget"))["left"]
        (offer,) = (await agent.call("quote", **HI))["offers"]
        ran = await agent.call("run", offer=offer["offer"])
        assert (ran["text"], ran["finish"], ran["node_id"]) == ("Hello world", "stop", 1)
        # 10 for the job, 5 tokens in at 1, 2 out at 2.
        assert (ran["paid"], ran["model_id"]) == ("0.000019", to_hex(CHAT_MODEL))
        assert (ran["verified"], ran["failed_checks"]) == (True, [])
        assert agent.progress[-3:] == [(1, "ordered"), (2, "running"), (3, "delivered")]
        assert (await agent.call("run", offer=offer["offer"])) == ran
        job = await agent.call("job", id=ran["job"])
        assert (job["paid"], job["charged"], job["result"]["text"]) == ("0.000019", True, "Hello world")
        checks = (await agent.call("verify_receipt", id=ran["receipt"]))["checks"]
        outcomes = {check["name"]: check["ok"] for check in checks}
        assert (outcomes["receipt signature"], outcomes["node"]) == (True, None)
        after = (await agent.call("budget"))["left"]
        assert round((float(before) - float(after)) * 1e6) == 19


async def test_embeddings_and_other_tasks_are_bought_too(tmp_path: Path) -> None:
    fields = {"input": ["I loved it"], "labels": ["bad", "good"]}
    async with opened(tmp_path) as (g, _), funded(g, 1) as (secret, nodes, _), at_door(g, secret) as agent:
        embedded = await agent.call("run", model="mini", input=["a", "b"])
        assert embedded["vectors"] == [[1.0, 0.0, 0.5], [1.0, 1.0, 0.5]]
        assert (await agent.refused("run", model="mini", prompt="hi"))["code"] == "unsupported"
        await offering(g, nodes, "classify")
        classified = await agent.call("run", model="mini", task="classify", fields=fields)
        assert classified["answer"]["results"][0]["label"] == "good"
        assert len((await agent.call("quote", model="mini", task="classify", fields=fields))["offers"]) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_cap_of_the_header_is_asked_for(tmp_path: Path, mode: str) -> None:
    async with opened(tmp_path) as (g, _), funded(g, 1) as (secret, nodes, _):
        async with at_door(g, secret, mode=mode, per_job="0.00001") as agent:
            refused = await agent.refused("run", **HI)
            assert (refused["code"], refused["charged"]) == ("price_above_max", False)
        no = ElicitResult(action="decline")
        async with at_door(g, secret, mode=mode, answer=no, per_job="0.00001") as agent:
            assert "did not allow" in (await agent.refused("run", **HI))["message"]
        assert nodes[1].orders.empty()
        async with at_door(g, secret, mode=mode, answer=YES, per_job="0.00001") as agent:
            assert (await agent.call("run", **HI))["text"] == "Hello world"
            assert agent.asked[0].endswith("your cap is 0.00001. Allow once?")


async def test_job_above_what_the_budget_of_the_header_leaves_is_asked_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as (g, _), funded(g, 1) as (secret, nodes, _):
        # A job costs 19 and may cost 124.
        async with at_door(g, secret, budget="0.00015") as agent:
            assert (await agent.call("budget"))["left"] == "0.00015"
            await agent.call("run", **HI)
            assert (await agent.call("budget"))["spent"] == "0.000019"
            refused = await agent.refused("run", **HI, max_cost="0.000132")
            assert (refused["code"], refused["charged"]) == ("price_above_max", False)
            assert "your cap is 0.000131" in refused["message"]
            assert "X-Watt-Budget" in refused["hint"]
            await agent.call("run", **HI)
        # Another host, and another gateway process, know what this key has spent.
        async with at_door(g, secret, budget="0.00015", answer=YES) as agent:
            assert (await agent.call("run", **HI))["text"] == "Hello world"
            assert agent.asked == ["This job may cost 0.000124 TUSD; your cap is 0.000112. Allow once?"]
        async with at_door(g, secret) as free:
            assert (await free.call("budget"))["left"] == "9.999943"
        async with at_door(g, secret, budget="much") as agent:
            assert (await agent.refused("run", **HI))["code"] == "invalid_request"
        assert nodes[1].orders.qsize() == 3


async def test_calls_at_once_hold_the_budget_of_the_header_together(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(node: Node, frame: wire.OrderFrame) -> None:
        await node.idle(frame)
        await go_on.wait()
        await node.deliver(frame)

    async with (
        opened(tmp_path) as (g, _),
        funded(g, 1, behaviours={1: slow}) as (secret, _, _),
        at_door(g, secret, budget="0.0003") as agent,
    ):
        running = [asyncio.create_task(agent.raw("run", **HI)) for _ in range(4)]
        done, _ = await asyncio.wait(running, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        go_on.set()
        results = await asyncio.gather(*running)
        assert done
        assert all(task.result().is_error for task in done)
        assert 1 <= sum(not result.is_error for result in results) <= 2, "124 each, of 300"


async def test_models_of_the_header_are_the_only_ones(tmp_path: Path) -> None:
    async with (
        opened(tmp_path) as (g, _),
        funded(g, 1) as (secret, _, _),
        at_door(g, secret, models="mini*") as agent,
    ):
        assert [m["model"] for m in (await agent.call("search_models"))["models"]] == ["mini"]
        assert (await agent.refused("run", **HI))["code"] == "unknown_model"


async def test_prices_are_for_everybody_and_spending_takes_a_key(tmp_path: Path) -> None:
    async with opened(tmp_path) as (g, _), funded(g, 1) as (secret, _, _):
        async with at_door(g, None) as nobody:
            (offer,) = (await nobody.call("quote", **HI))["offers"]
            for arguments in ({"offer": offer["offer"]}, HI):
                refused = await nobody.refused("run", **arguments)
                assert (refused["code"], refused["charged"]) == ("missing_key", False)
            assert (await nobody.refused("budget"))["code"] == "missing_key"
        async with at_door(g, "sk-watt-nobody") as stranger:
            assert (await stranger.refused("run", **HI))["code"] == "unknown_key"
            assert (await stranger.refused("budget"))["code"] == "unknown_key"
        async with at_door(g, secret) as agent:
            # An offer is its asker's.
            assert (await agent.refused("run", offer=offer["offer"]))["code"] == "offer_unknown"


async def test_errors_of_the_gateway_arrive_whole(tmp_path: Path) -> None:
    async with (
        opened(tmp_path) as (g, _),
        funded(g, 1, behaviours={1: Node.fail}) as (secret, nodes, opened_at),
        at_door(g, secret) as agent,
    ):
        refused = await agent.refused("run", **HI)
        assert (refused["code"], refused["charged"]) == ("no_node", False)
        g.set_session(opened_at[1], deposited_atoms=0)
        assert (await agent.refused("run", **HI))["code"] == "session_underfunded"
        await nodes[1].leave()
        assert (await agent.refused("run", **HI))["code"] == "no_node"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", [HI, {"model": "mini", "input": "a"}])
async def test_cancelled_call_cancels_its_job(tmp_path: Path, mode: str, call: dict[str, Any]) -> None:
    async with (
        opened(tmp_path) as (g, _),
        funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _),
        at_door(g, secret, mode=mode) as agent,
        anyio.create_task_group() as tasks,
    ):
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await agent.raw("run", **call)

        tasks.start_soon(run)
        await nodes[1].orders.get()
        scope.cancel()
        await nodes[1].expect(wire.Cancel)


async def test_gateway_that_stops_says_that_the_job_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as (g, _), funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        for call in (HI, {"model": "mini", "input": "a"}):
            async with at_door(g, secret) as agent:
                running = asyncio.create_task(agent.refused("run", **call))
                frame = await nodes[1].orders.get()
                g.market.streams.end_all()
                refused = await running
            assert (refused["code"], refused["charged"]) == ("not_ready", None)
            assert frame.job_id in refused["message"]


async def test_door_that_closes_ends_what_is_open(tmp_path: Path) -> None:
    async with opened(tmp_path) as (g, door), funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        async with at_door(g, secret) as agent:
            running = asyncio.create_task(agent.raw("run", **HI))
            await nodes[1].orders.get()
            await door.aclose()
            running.cancel()
        assert (await g.http.get("/livez")).status_code == 200


async def test_bodies_beyond_the_gateways_bound_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as (g, _):
        large = b" " * ((1 << 20) + 1)
        answer = await g.http.post("/mcp", content=large, headers={"content-type": "application/json"})
        assert answer.status_code == 413
