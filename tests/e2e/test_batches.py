"""The stock client's batch over real models: its gateway is killed half-way, and every line is paid once."""

from __future__ import annotations

import json
from typing import Any

from openai import APIConnectionError, OpenAI

from marketplace.client import verify_receipt
from marketplace.client.verify import failures
from marketplace.local.commands import CHAT_MODEL
from tests.e2e.checker import check
from tests.e2e.market import MarketUnderTest, wait_until
from tests.e2e.test_crashes import answers, connected

LINES = 10
OVER = {"completed", "failed", "cancelled", "expired"}


def calls() -> bytes:
    def line(number: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": f"Say the number {number}."}]
        body = {"model": CHAT_MODEL, "messages": messages, "max_tokens": 4, "temperature": 0}
        return {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}

    return "\n".join(json.dumps(line(number)) for number in range(LINES)).encode()


def test_batch_outlives_its_gateway_and_pays_each_line_once(market: MarketUnderTest) -> None:
    place = market.market
    with OpenAI(base_url=f"{place.gateway_url}/v1", api_key=place.api_key) as client:
        file = client.files.create(file=("calls.jsonl", calls()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"max_cost": "1"},
        )

        def now() -> Any:
            try:
                return client.batches.retrieve(batch.id)
            except APIConnectionError:
                return batch

        wait_until(lambda: now().request_counts.completed > 0, 30, "the first line", every_seconds=0.05)
        before = market.pid("gateway")
        market.kill(before)
        wait_until(lambda: market.pid("gateway") != before and answers(market), 60, "the gateway")
        # A job whose node was away longer than its lease is placed again once its two minutes are over.
        wait_until(lambda: now().status in OVER, 240, "the batch")
        done = now()
        assert (done.status, done.request_counts.completed) == ("completed", LINES)
        lines = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in lines] == [str(number) for number in range(LINES)]
    bodies = [line["response"]["body"] for line in lines]
    assert all(body["choices"][0]["message"]["content"] for body in bodies)
    assert all(failures(verify_receipt(body["receipt"])) == [] for body in bodies)
    cost = sum(int(body["usage"]["cost_details"]["atoms"]) for body in bodies)
    assert done.usage.model_extra["cost_details"]["atoms"] == str(cost)
    assert cost <= int(done.model_extra["ceiling_atoms"])
    placed = {job["job_id"] for job in jobs_of(market, batch.model_extra["trace_id"])}
    assert placed == {body["job_id"] for body in bodies}
    wait_until(lambda: connected(market) == 3, 60, "the nodes")
    assert check(market.evidence()) == []


def jobs_of(market: MarketUnderTest, trace_id: str) -> list[dict[str, Any]]:
    """Every job that was ever placed for a batch."""
    page = market.get("/v1/jobs?limit=100", authorization=f"Bearer {market.market.api_key}")
    return [job for job in page["data"] if job["trace_id"] == trace_id]
